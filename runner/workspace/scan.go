package workspace

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// index is a tree at one time, by path. The root itself is not in it.
type index map[string]*indexed

// indexed is one path of an index.
type indexed struct {
	Node
	stamp stamp
}

// stamp changes with every write to a file: nobody but root can set a change time, and bind mode's agent is not root on
// the host's disk.
type stamp struct {
	ino          uint64
	size         int64
	mtime, ctime time.Time
}

func stampOf(info fs.FileInfo) stamp {
	st := statOf(info)
	return stamp{ino: st.ino, size: info.Size(), mtime: info.ModTime(), ctime: st.ctime}
}

// scan is one walk over a project.
type scan struct {
	root   *os.Root
	hidden []string
	limits Limits
	before index // digests of files with the same stamp are taken from here; may be nil

	found  index
	closed []string // directories that could not be read, sorted
	wanted []*source
}

// scanProject lists and digests a project as the agent sees it.
func (v *View) scanProject(ctx context.Context, before index) (*scan, error) {
	root, err := os.OpenRoot(v.cfg.Project)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s := &scan{root: root, hidden: v.hidden, limits: v.cfg.Limits, before: before, found: make(index)}
	if err := s.dir(ctx, "."); err != nil {
		return nil, err
	}
	slices.Sort(s.closed)
	return s, digestAll(ctx, s.wanted)
}

func (s *scan) dir(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(dir) > maxPath || strings.Count(dir, "/") >= s.limits.Depth {
		return &LimitError{What: "directories above each other", Limit: int64(s.limits.Depth)}
	}
	infos, err := readDir(s.root, dir)
	if errors.Is(err, fs.ErrPermission) {
		s.closed = append(s.closed, dir)
		return nil
	}
	if err != nil {
		return ignore(err, fs.ErrNotExist)
	}
	for _, info := range infos {
		path := join(dir, info.Name())
		if isHidden(s.hidden, path) {
			continue
		}
		if err := s.add(path, info); err != nil {
			return err
		}
		if info.IsDir() {
			if err := s.dir(ctx, path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scan) add(path string, info fs.FileInfo) error {
	if len(s.found) >= len(s.before)+s.limits.Changes {
		return &LimitError{What: "files and directories", Limit: int64(s.limits.Changes)}
	}
	at := &indexed{Node: *nodeOf(info), stamp: stampOf(info)}
	s.found[path] = at
	if before := s.before[path]; before != nil && before.stamp == at.stamp && before.Mode == at.Mode {
		at.Node = before.Node
		return nil
	}
	if at.Type != File && at.Type != Symlink {
		return nil
	}
	if s.before == nil && isObject(path) {
		at.Node = Node{Type: Other, Mode: at.Mode}
		return nil
	}
	s.wanted = append(s.wanted, &source{root: s.root, path: path, nodes: []*Node{&at.Node}, of: []*entry{{}}})
	return nil
}

// isObject knows git's object store: never changed but by adding and removing whole files, never applied, and
// often larger than the rest together. Its files are told apart by their stamps.
func isObject(path string) bool {
	return inGit(path) && strings.Contains("/"+path, "/.git/objects/")
}

// unread reports whether path lies in a directory that could not be read.
func (s *scan) unread(path string) bool {
	for _, dir := range s.closed {
		if dir == "." || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}
