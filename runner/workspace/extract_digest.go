package workspace

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// source is a file or symlink to read for the nodes that are in want of its digest.
type source struct {
	root   *os.Root
	path   string
	ours   bool    // in the run's state: permissions may be changed to read it
	recent *recent // takes what was read; nil for none
	nodes  []*Node
	of     []*entry // of each node

	sum  string // what reading gave
	size int64
	link string
	err  error
}

// digest fills in the digests and symlink targets of all entries.
func (w *layers) digest(ctx context.Context) error {
	var all []*source
	lower := make(map[string]*source) // so that a renamed file is read once
	fromProject := func(path string, n *Node, e *entry) {
		s := lower[path]
		if s == nil {
			s = &source{root: w.lower, path: path}
			lower[path] = s
			all = append(all, s)
		}
		s.want(n, e)
	}
	for path, e := range w.delta.entries {
		if e.old != nil {
			fromProject(path, e.old, e)
		}
		if e.new != nil && e.origin != "" {
			fromProject(e.origin, e.new, e)
		} else if e.new != nil {
			s := &source{root: w.state, path: "upper/" + path, ours: true, recent: w.view.recent}
			if e.new.Mode&0o400 == 0 { // reading it will take its mode away
				w.taken.modes[path] = e.new.Mode
			}
			s.want(e.new, e)
			all = append(all, s)
		}
	}
	return digestAll(ctx, all)
}

func (s *source) want(n *Node, e *entry) {
	s.nodes, s.of = append(s.nodes, n), append(s.of, e)
}

// digestAll reads in parallel, and then fills in the nodes, which may share entries.
func digestAll(ctx context.Context, all []*source) error {
	toRead := slices.DeleteFunc(slices.Clone(all), func(s *source) bool { return s.nodes[0].Type != File && s.nodes[0].Type != Symlink })
	slices.SortFunc(toRead, func(a, b *source) int { return cmp.Compare(a.path, b.path) })
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	buffers := make(chan []byte, runtime.GOMAXPROCS(0))
	for range cap(buffers) {
		buffers <- make([]byte, 128<<10)
	}
	for group := range neighbours(toRead, func(s *source) (*os.Root, string) { return s.root, path.Dir(s.path) }) {
		g.Go(func() error {
			buf := <-buffers
			defer func() { buffers <- buf }()
			return readGroup(ctx, group, buf)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, s := range all {
		if err := s.fill(); err != nil {
			return err
		}
	}
	return nil
}

// maxGroup is how many files of one directory are taken at once: enough to open it once for many, and few enough to share a large one.
const maxGroup = 256

// neighbours cuts a sorted list into parts of one directory each.
func neighbours[T any](list []T, of func(T) (*os.Root, string)) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for start, end := 0, 1; start < len(list); start, end = end, end+1 {
			root, dir := of(list[start])
			for ; end < len(list) && end-start < maxGroup; end++ {
				if r, d := of(list[end]); r != root || d != dir {
					break
				}
			}
			if !yield(list[start:end]) {
				return
			}
		}
	}
}

// readGroup reads files of one directory, which is opened once: each path is walked step by step, so that no link leads out of the root.
func readGroup(ctx context.Context, group []*source, buf []byte) error {
	dir, err := group[0].root.OpenRoot(path.Dir(group[0].path))
	if err != nil {
		return failAll(group, err)
	}
	defer dir.Close()
	files, err := newOpener(dir)
	if err != nil {
		return failAll(group, err)
	}
	defer files.close()
	for _, s := range group {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Base(s.path)
		if s.nodes[0].Type == Symlink {
			s.link, s.err = dir.Readlink(name)
			continue
		}
		s.err = s.read(ctx, files, name, buf)
		if s.ours && errors.Is(s.err, fs.ErrPermission) {
			if s.err = dir.Chmod(name, 0o600); s.err == nil {
				s.err = s.read(ctx, files, name, buf)
			}
		}
	}
	return nil
}

// failAll leaves it to fill whether that is an error.
func failAll(group []*source, err error) error {
	for _, s := range group {
		s.err = err
	}
	return nil
}

// read takes the digest and the length of a regular file.
func (s *source) read(ctx context.Context, files opener, name string, buf []byte) error {
	f, err := files.open(name)
	if err != nil {
		return err
	}
	defer f.close()
	n, err := io.ReadFull(f, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF { // all of it, as of nearly every file
		sum := sha256.Sum256(buf[:n])
		s.sum, s.size = hex.EncodeToString(sum[:]), int64(n)
		s.recent.add(s.sum, buf[:n])
		return nil
	}
	if err != nil {
		return err
	}
	h := sha256.New()
	h.Write(buf)
	rest, err := io.CopyBuffer(onlyWriter{h}, contextReader{ctx, f}, buf)
	s.sum, s.size = hex.EncodeToString(h.Sum(nil)), int64(n)+rest
	return err
}

// fill completes the nodes. A file of the host that can't be read, or is another since it was listed, has no
// digest to hold a patch or an apply to: it is recorded and not applied.
func (s *source) fill() error {
	if s.err != nil && s.ours {
		return s.err
	}
	for i, n := range s.nodes {
		switch {
		case s.err != nil:
			*n = Node{Type: Other, Mode: n.Mode}
			s.of[i].reject = "the host's file can't be read"
		case n.Type == Symlink:
			n.setTarget(s.link)
		case n.Type == File:
			n.SHA256, n.Size = s.sum, s.size
		}
	}
	return nil
}

var errNotRegular = errors.New("not a regular file any more")

// openRegular never waits for the other end of a FIFO.
func openRegular(root *os.Root, path string) (*os.File, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "read", Path: path, Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

type onlyWriter struct{ io.Writer }

// contextReader ends at a cancelled context, so that a huge file does not hold up an interrupt.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
