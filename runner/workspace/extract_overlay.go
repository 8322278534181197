package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/workspace/ovl"
)

// CanReadXattrs reports whether this process can read the attributes of an overlay whose upper directory is in
// stateDir, so that Sources.Xattrs may stay nil.
func CanReadXattrs(stateDir string) bool { return ovl.CanRead(stateDir) }

func (v *View) extractOverlay(ctx context.Context, xattrs XattrReader) ([]Change, error) {
	attrs, err := v.overlayAttrs(ctx, xattrs)
	if err != nil {
		return nil, err
	}
	project, err := os.OpenRoot(v.cfg.Project)
	if err != nil {
		return nil, err
	}
	defer project.Close()
	state, err := os.OpenRoot(v.cfg.StateDir)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	v.recent, v.taken = new(recent), &taken{modes: map[string]fs.FileMode{}}
	w := &layers{view: v, delta: newDelta(v), lower: project, host: newHost(project), state: state, attrs: attrs, taken: v.taken}
	return w.extract(ctx)
}

func (v *View) overlayAttrs(ctx context.Context, xattrs XattrReader) (map[string]ovl.Attrs, error) {
	if xattrs != nil {
		return xattrs.Xattrs(ctx, v.upper())
	}
	// Without the right to see them every directory looks as if it had no attributes, and renames
	// and removals would be missing from the change set without a word.
	if !CanReadXattrs(v.cfg.StateDir) {
		return nil, &UnsupportedError{Mode: policy.ModeOverlay, Reason: "the attributes of the upper directory can't be read without CAP_SYS_ADMIN"}
	}
	return ovl.Read(v.upper())
}

// layers compares an overlay with its lower layer. A path in upper/ is always the path that the agent saw; the lower
// directory that shows through may have another one, after a rename.
// https://docs.kernel.org/filesystems/overlayfs.html
type layers struct {
	view  *View
	delta *delta
	lower *os.Root // the project
	host  *host    // the same, to look at paths
	state *os.Root // with upper/ and blobs/ in it
	attrs map[string]ovl.Attrs

	taken *taken
}

// final is what the agent had at a path.
type final struct {
	info    fs.FileInfo // nil when there was nothing
	inUpper bool        // upper/ has it
	lower   string      // the project's path of the file, or of the directory that shows through; "" when none does
}

func (w *layers) extract(ctx context.Context) ([]Change, error) {
	root, err := w.state.Lstat("upper")
	if err != nil {
		return nil, err
	}
	// What was found until a limit was met is worth showing, so that error waits.
	over := w.visit(ctx, ".", final{info: root, inUpper: true, lower: "."})
	var limit *LimitError
	if over != nil && !errors.As(over, &limit) {
		return nil, over
	}
	if err := w.digest(ctx); err != nil {
		if !errors.As(err, &limit) {
			return nil, err
		}
		over = errors.Join(over, err)
	}
	w.delta.settle()
	changes := w.delta.changes()
	if err := w.keep(changes); err != nil {
		return nil, err
	}
	w.taken.complete = over == nil
	return changes, over
}

// visit compares one path and what is below it. It goes no deeper where the project shows through unchanged.
func (w *layers) visit(ctx context.Context, p string, f final) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	was, err := w.original(p)
	if err != nil {
		return err
	}
	if err := w.record(p, was, f); err != nil {
		return err
	}
	wasDir := was != nil && was.IsDir()
	if f.info == nil || !f.info.IsDir() {
		if !wasDir {
			return nil
		}
		f = final{} // everything that was below is gone
	}
	children, err := w.children(p, f)
	if err != nil {
		return err
	}
	if wasDir && (f.lower != p || !f.inUpper) {
		if children, err = w.andGone(p, children); err != nil {
			return err
		}
	}
	for _, c := range children {
		if err := w.visit(ctx, join(p, c.name), c.final); err != nil {
			return err
		}
	}
	return nil
}

// original is what the project has at p, as far as the agent could see it; nil for nothing.
func (w *layers) original(p string) (fs.FileInfo, error) {
	if w.delta.isHidden(p) {
		return nil, nil
	}
	return w.lowerInfo(p)
}

// lowerInfo looks into the project. Whiteouts in it, left by somebody else's overlay, hide a file here too.
func (w *layers) lowerInfo(p string) (fs.FileInfo, error) {
	info, err := w.host.info(p)
	if err != nil || info == nil || isWhiteout(info) {
		return nil, err
	}
	return info, nil
}

func isWhiteout(info fs.FileInfo) bool {
	return info.Mode()&fs.ModeCharDevice != 0 && statOf(info).rdev == 0
}

// record makes an entry for the path, unless it is the root, the same on both sides, or nowhere.
func (w *layers) record(p string, was fs.FileInfo, f final) error {
	sameFile := f.info != nil && !f.inUpper && f.lower == p
	sameDir := f.info != nil && was != nil && f.info.IsDir() && was.IsDir() && f.info.Mode() == was.Mode()
	if p == "." || sameFile || sameDir || (was == nil && f.info == nil) {
		return nil
	}
	e, err := w.delta.at(p)
	if err != nil {
		return err
	}
	if was != nil {
		e.old = nodeOf(was)
		e.hostChanged = !was.IsDir() && changedSince(was, w.view.started)
	}
	if f.info == nil {
		return nil
	}
	e.new = nodeOf(f.info)
	if !f.inUpper {
		e.origin = f.lower
		e.hostChanged = e.hostChanged || !f.info.IsDir() && changedSince(f.info, w.view.started)
	} else if e.new.Type == File {
		w.taken.files = append(w.taken.files, p)
		if err := w.delta.spend(e.new.Size); err != nil {
			delete(w.delta.entries, p)
			return err
		}
	}
	return nil
}

type child struct {
	name string
	final
}

// children lists what the agent saw in a directory, leaving out what the project shows through unchanged.
func (w *layers) children(p string, f final) ([]child, error) {
	var all []child
	names := make(map[string]bool)
	if f.inUpper {
		upper, err := w.upperEntries(p)
		if err != nil {
			return nil, err
		}
		for _, info := range upper {
			c, err := w.upperChild(p, f, info)
			if err != nil {
				return nil, err
			}
			names[c.name] = true
			all = append(all, c)
		}
		if f.lower == p {
			return all, nil
		}
	}
	if f.lower == "" {
		return all, nil
	}
	lower, err := w.lowerEntries(f.lower)
	if err != nil {
		return nil, err
	}
	for _, info := range lower {
		if at := join(f.lower, info.Name()); !names[info.Name()] && !w.delta.isHidden(at) {
			all = append(all, child{info.Name(), final{info: info, lower: at}})
		}
	}
	return all, nil
}

// andGone adds those children of the project's directory that are not in the list: the agent has them no more.
func (w *layers) andGone(p string, children []child) ([]child, error) {
	names := make(map[string]bool, len(children))
	for _, c := range children {
		names[c.name] = true
	}
	lower, err := w.lowerEntries(p)
	if err != nil {
		return nil, err
	}
	for _, info := range lower {
		if !names[info.Name()] {
			children = append(children, child{name: info.Name()})
		}
	}
	return children, nil
}

// upperChild works out what an entry of upper/ stands for.
func (w *layers) upperChild(dir string, f final, info fs.FileInfo) (child, error) {
	name := info.Name()
	p := join(dir, name)
	_, noted := slices.BinarySearch(w.attrs[dir].Whiteouts, name)
	switch {
	case isWhiteout(info), noted && info.Mode().IsRegular():
		return child{name: name}, nil
	case !info.IsDir():
		return child{name, final{info: info, inUpper: true}}, nil
	}
	lower, err := lowerOf(f.lower, name, w.attrs[p])
	if err != nil {
		return child{}, fmt.Errorf("%q: %w", p, err)
	}
	if lower != "" && w.delta.isHidden(lower) {
		lower = ""
	}
	if lower != "" {
		below, err := w.lowerInfo(lower)
		if err != nil {
			return child{}, err
		}
		if below == nil || !below.IsDir() {
			lower = ""
		}
	}
	return child{name, final{info: info, inUpper: true, lower: lower}}, nil
}

// lowerOf is the project's path of the directory that shows through one in upper/, "" for none. parent is
// that of the directory above.
func lowerOf(parent, name string, a ovl.Attrs) (string, error) {
	switch {
	case a.Opaque:
		return "", nil
	case strings.HasPrefix(a.Redirect, "/"):
		return a.Redirect[1:], checkPath(a.Redirect[1:])
	case parent == "" && a.Redirect != "":
		return "", fmt.Errorf("renamed to %q below a directory that the project does not have", a.Redirect)
	case parent == "":
		return "", nil
	case a.Redirect != "":
		if strings.Contains(a.Redirect, "/") {
			return "", fmt.Errorf("redirect %q", a.Redirect)
		}
		return join(parent, a.Redirect), checkPath(a.Redirect)
	}
	return join(parent, name), nil
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// upperEntries lists a directory of upper/. The agent may have taken its own permissions away, which stops a
// runner that isn't root; the mode that it gave was read already, with the parent.
func (w *layers) upperEntries(p string) ([]fs.FileInfo, error) {
	at := path.Join("upper", p)
	if os.Geteuid() != 0 {
		if err := w.taken.open(w.state, at, p); err != nil {
			return nil, err
		}
	}
	return readDir(w.state, at)
}

// lowerEntries lists a directory of the project. One that the runner's user can't read was closed to the agent too.
func (w *layers) lowerEntries(p string) ([]fs.FileInfo, error) {
	infos, err := readDir(w.lower, p)
	if unreachable(err) {
		return nil, nil
	}
	return slices.DeleteFunc(infos, isWhiteout), err
}

func readDir(root *os.Root, dir string) ([]fs.FileInfo, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	infos, err := f.Readdir(-1)
	if err == io.EOF {
		err = nil
	}
	return infos, err
}
