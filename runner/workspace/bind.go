package workspace

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// maxMounts bounds what is mounted over a bound project. The engine mounts one by one.
const maxMounts = 512

// prepareBind mounts the project itself, read-only or not, and over it what hides and protects. Unlike an
// overlay this needs the walk over the project before the container is created.
func (v *View) prepareBind(ctx context.Context) error {
	if err := v.bindPossible(); err != nil {
		return err
	}
	project, err := v.bound("", v.Mode == policy.ModeReadonly)
	if err != nil {
		return err
	}
	v.Mounts = []Mount{project}
	if err := v.mask(ctx); err != nil {
		return err
	}
	if v.Mode == policy.ModeBind {
		if err := v.guard(ctx); err != nil {
			return err
		}
		if err := v.pin(); err != nil {
			return err
		}
	}
	v.lower("the agent sees the project itself: it can use sockets and FIFOs that programs of the host make there later")
	if len(v.Mounts) > maxMounts {
		return unsupported(v.Mode, "use mode overlay, or fewer patterns", "hiding and protecting takes %d mounts, more than %d", len(v.Mounts), maxMounts)
	}
	slices.SortStableFunc(v.Mounts, func(a, b Mount) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

func (v *View) bindPossible() error {
	e := v.cfg.Engine
	if why := e.blind(); why != "" {
		return unsupported(v.Mode, "use mode copy", "%s", why)
	}
	if e.UserNS && v.cfg.UID != 0 {
		return unsupported(v.Mode, "use mode copy", "the engine runs in a user namespace (rootless or userns-remap), where the agent's uid is not the project's")
	}
	info, err := os.Stat(v.cfg.Project)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", v.Mode, err)
	}
	if owner := statOf(info).owner; v.Mode == policy.ModeBind && owner.UID != v.cfg.UID && v.cfg.UID != 0 {
		v.lower("the project belongs to uid %d and the agent is uid %d: it can write only what everybody can", owner.UID, v.cfg.UID)
	}
	return nil
}

// mask covers what is hidden: a file with an empty one, a directory with an empty one. Sockets and FIFOs, behind which
// programs of the host listen, can be used through a read-only mount as well, so they are covered like hidden files.
func (v *View) mask(ctx context.Context) error {
	matches, err := findMatches(ctx, v.cfg.Project, orSpecial{v.cfg.Hide}, v.cfg.UID)
	if err != nil {
		return err
	}
	v.hidden = paths(matches)
	for _, m := range matches {
		switch {
		case m.typ.IsDir():
			v.Mounts = append(v.Mounts, Mount{Type: MountTmpfs, Path: m.path, ReadOnly: true})
		case m.typ&fs.ModeSymlink != 0:
			if err := v.linkIsHarmless(m.path); err != nil {
				return err
			}
		default:
			v.Mounts = append(v.Mounts, Mount{Type: MountBind, Source: os.DevNull, Path: m.path, ReadOnly: true})
		}
	}
	return nil
}

// linkIsHarmless refuses a hidden symlink to something visible in the project: a mount on it would
// land on its target. One that leads out of the project leads nowhere inside.
func (v *View) linkIsHarmless(link string) error {
	target, err := filepath.EvalSymlinks(filepath.Join(v.cfg.Project, link))
	if err != nil || !within(v.cfg.Project, target) {
		return nil
	}
	rel, err := filepath.Rel(v.cfg.Project, target)
	if err != nil {
		return err
	}
	if rel = filepath.ToSlash(rel); isHidden(v.hidden, rel) {
		return nil
	}
	return unsupported(v.Mode, fmt.Sprintf("hide %q too, or use mode overlay", rel), "%q is to be hidden, and is a symlink to %q, which is not", link, rel)
}

// guard mounts protected paths read-only.
func (v *View) guard(ctx context.Context) error {
	matches, err := findMatches(ctx, v.cfg.Project, v.cfg.Protect, v.cfg.UID)
	if err != nil {
		return err
	}
	for _, m := range matches {
		switch {
		case isHidden(v.hidden, m.path):
		case m.typ&fs.ModeSymlink != 0:
			v.lower("%q is a symlink, which can't be mounted read-only: the agent can replace it", m.path)
		default:
			protected, err := v.bound(m.path, true)
			if err != nil {
				return err
			}
			v.Mounts = append(v.Mounts, protected)
		}
	}
	v.lower("the agent writes to the project itself: protected paths that exist are read-only, those that it creates are only reported")
	return nil
}

// pin gives each directory above a mount a mount of its own, for a mount point can't be renamed. Else the agent would
// move .git away and write another, or a directory with a hidden file to a place where nothing hides it afterwards.
func (v *View) pin() error {
	mounted := make(map[string]bool)
	for _, m := range v.Mounts {
		mounted[m.Path] = true
	}
	for _, m := range slices.Clone(v.Mounts[1:]) {
		for dir := path.Dir(m.Path); dir != "." && !mounted[dir]; dir = path.Dir(dir) {
			mounted[dir] = true
			above, err := v.bound(dir, false)
			if err != nil {
				return err
			}
			v.Mounts = append(v.Mounts, above)
		}
	}
	return nil
}

// bound is the mount of a path of the project.
func (v *View) bound(p string, readOnly bool) (Mount, error) {
	source, err := v.cfg.Engine.path(filepath.Join(v.cfg.Project, filepath.FromSlash(p)))
	return Mount{Type: MountBind, Source: source, Path: p, ReadOnly: readOnly, NonRecursive: true}, err
}
