package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// hostConflict is why one change can't be applied.
type hostConflict string

func (e hostConflict) Error() string { return string(e) }

func conflictf(format string, args ...any) error { return hostConflict(fmt.Sprintf(format, args...)) }

// checkAll compares the host with what each change starts from. It leaves in todo what is to be done.
func (a *applier) checkAll(ctx context.Context) error {
	var todo []*Change
	for _, c := range a.todo {
		if err := ctx.Err(); err != nil {
			return err
		}
		done, err := a.check(c)
		var conflict hostConflict
		switch {
		case errors.As(err, &conflict):
			a.res.Conflicts = append(a.res.Conflicts, Refusal{c.Path, err.Error()})
		case err != nil:
			return fmt.Errorf("apply %q: %w", c.Path, err)
		case done:
			a.res.Already = append(a.res.Already, c.Path)
		default:
			todo = append(todo, c)
		}
	}
	a.todo = todo
	if err := a.checkDirs(); err != nil {
		return err
	}
	slices.SortFunc(a.res.Conflicts, byPath)
	slices.SortFunc(a.res.Skipped, byPath)
	if n := len(a.res.Conflicts); n > 0 {
		return fmt.Errorf("%d of the changes: %w", n, ErrConflict)
	}
	return nil
}

// check reports whether the host already has a change. The error is a hostConflict when it can't get it.
func (a *applier) check(c *Change) (done bool, err error) {
	if err := nativePath(c.Path); err != nil {
		return false, err
	}
	now, err := a.hostNode(c.Path)
	if err != nil {
		return false, err
	}
	from := now
	if c.From != "" {
		if from, err = a.hostNode(c.From); err != nil {
			return false, err
		}
	}
	if isApplied(c, now) && (c.From == "" || from == nil) {
		return true, nil
	}
	if c.HostChanged {
		return false, conflictf("changed on the host while the agent worked")
	}
	if c.Kind == Added || c.Kind == Renamed {
		if now != nil {
			return false, a.inTheWay(c, now)
		}
	}
	if c.Old != nil {
		return false, compareOld(c, from)
	}
	return false, nil
}

// nativePath refuses what this system can't hold under that name.
func nativePath(p string) error {
	if runtime.GOOS == "windows" && (strings.ContainsAny(p, `\:`) || !filepath.IsLocal(filepath.FromSlash(p))) {
		return conflictf("Windows can't have a file of that name")
	}
	return nil
}

// hostNode is the host's present state. A way that leads through something else than directories is a conflict,
// unless the selection makes a directory there, or made one into something else.
func (a *applier) hostNode(p string) (*Node, error) {
	info, err := a.tree.lstat(p) // before the content is read: an edit meanwhile then shows as another time
	a.seen[p] = info
	var n *Node
	if err == nil {
		n, err = a.tree.node(p)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if !errors.Is(err, errNotDir) {
		return n, err
	}
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if c := a.selected(d); c != nil && c.Kind == Modified && c.Old.Type != c.New.Type {
			return nil, nil
		}
	}
	return nil, conflictf("a directory on its way is a symlink or a file on the host")
}

func (a *applier) selected(p string) *Change {
	i, ok := slices.BinarySearchFunc(a.sel.take, p, func(c *Change, p string) int { return strings.Compare(c.Path, p) })
	if !ok {
		return nil
	}
	return a.sel.take[i]
}

// isApplied compares the host with what apply would leave there.
func isApplied(c *Change, now *Node) bool {
	if c.New == nil || now == nil {
		return (c.New == nil) == (now == nil)
	}
	if now.Type != Dir || c.New.Type != Dir {
		return sameNode(now, &Node{Type: c.New.Type, Mode: fileMode(c.New), SHA256: c.New.SHA256, Target: c.New.Target})
	}
	// Two who made the same directory agree, whatever its mode.
	return c.Kind == Added || sameMode(now.Mode.Perm(), c.New.Mode.Perm())
}

// fileMode is the mode that a file gets on the host.
func fileMode(n *Node) fs.FileMode { return n.Mode & fs.ModePerm }

// sameNode is Equal where the host has modes.
func sameNode(a, b *Node) bool {
	return a.Equal(b) || (runtime.GOOS == "windows" && a.Type == b.Type && a.SHA256 == b.SHA256 && a.Target == b.Target)
}

func sameMode(a, b fs.FileMode) bool { return a == b || runtime.GOOS == "windows" }

// inTheWay says what a new path meets.
func (a *applier) inTheWay(c *Change, now *Node) error {
	names, err := a.tree.names(path.Dir(c.Path))
	if err != nil {
		return err
	}
	if !slices.Contains(names, path.Base(c.Path)) {
		return conflictf("collides with another name on the host's file system, which takes both for the same")
	}
	return conflictf("made on the host meanwhile, as a %s", now.Type.noun())
}

// noun names the type for people.
func (t NodeType) noun() string {
	switch t {
	case Dir:
		return "directory"
	case Other:
		return "special file"
	}
	return string(t)
}

// compareOld says how the host differs from what the run started from.
func compareOld(c *Change, now *Node) error {
	switch {
	case now == nil:
		return conflictf("removed on the host meanwhile")
	case now.Type != c.Old.Type:
		return conflictf("is a %s on the host now, was a %s", now.Type.noun(), c.Old.Type.noun())
	case now.Type == Dir:
		if c.Kind == Mode && !sameMode(now.Mode.Perm(), c.Old.Mode.Perm()) {
			return conflictf("its mode changed on the host meanwhile")
		}
		return nil
	case now.SHA256 != c.Old.SHA256 || now.Target != c.Old.Target:
		return conflictf("changed on the host meanwhile")
	case !sameNode(now, c.Old):
		return conflictf("its mode changed on the host meanwhile")
	}
	return nil
}

// checkDirs looks at the directories: those that new files need must be there, those that go must be empty then.
func (a *applier) checkDirs() error {
	gone, made := map[string]bool{}, map[string]bool{}
	for _, c := range a.todo {
		switch {
		case c.New == nil:
			gone[c.Path] = true
		case c.New.Type == Dir:
			made[c.Path] = true
		}
		if c.From != "" {
			gone[c.From] = true
		}
	}
	kept := map[*Change]bool{}
	for _, c := range slices.Backward(a.todo) { // children before their directory
		if c.Old == nil || c.Old.Type != Dir || (c.New != nil && c.New.Type == Dir) {
			continue
		}
		rest, err := a.leftIn(c.Path, gone)
		if err != nil {
			return err
		}
		switch {
		case rest == "":
		case c.New == nil:
			kept[c] = true
			delete(gone, c.Path)
			a.res.Skipped = append(a.res.Skipped, Refusal{c.Path, "not removed: it still holds " + printable(rest)})
		default:
			a.res.Conflicts = append(a.res.Conflicts, Refusal{c.Path, "can't become a " + c.New.Type.noun() + ": the directory still holds " + printable(rest)})
		}
	}
	a.todo = slices.DeleteFunc(a.todo, func(c *Change) bool { return kept[c] })
	return a.checkParents(gone, made)
}

// leftIn names something that stays in a directory, "" for nothing.
func (a *applier) leftIn(dir string, gone map[string]bool) (string, error) {
	names, err := a.tree.names(dir)
	if err != nil {
		return "", fmt.Errorf("list %q: %w", dir, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if !gone[path.Join(dir, name)] {
			return name, nil
		}
	}
	return "", nil
}

func (a *applier) checkParents(gone, made map[string]bool) error {
	for _, c := range a.todo {
		dir := path.Dir(c.Path)
		if c.New == nil || dir == "." || made[dir] {
			continue
		}
		info, err := a.tree.lstat(dir)
		missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) || gone[dir]
		if err != nil && !missing {
			return err
		}
		if missing || !info.IsDir() {
			a.res.Conflicts = append(a.res.Conflicts, Refusal{c.Path, "its directory is gone from the host"})
		}
	}
	return nil
}
