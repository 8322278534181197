package image

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// node is one file, directory or other thing of an image. Hard links share one. A node that is in a tree is not changed
// any more, but for a directory's entries: what is altered gets a new one.
type node struct {
	kind         byte // the typeflag of tar
	mode         int64
	uid, gid     int
	size         int64
	modTime      time.Time
	link         string // what a symbolic link says
	major, minor int64
	xattrs       map[string]string
	sum          [sha256.Size]byte

	content []byte // in place of what is at
	at      place

	kids map[string]*node // of a directory
}

// place is where a file's content is.
type place struct {
	file   string
	offset int64
}

func newDir() *node {
	return &node{kind: tar.TypeDir, mode: 0o755, kids: map[string]*node{}}
}

func (n *node) isDir() bool { return n != nil && n.kind == tar.TypeDir }

// same tells whether two nodes are alike but for their times and what is in them if they are directories.
func (n *node) same(o *node) bool {
	return n == o || n.kind == o.kind && n.mode == o.mode && n.uid == o.uid && n.gid == o.gid && n.size == o.size &&
		n.link == o.link && n.major == o.major && n.minor == o.minor && n.sum == o.sum && maps.Equal(n.xattrs, o.xattrs)
}

// open reads a file's content.
func (n *node) open() (io.ReadCloser, error) {
	if n.content != nil {
		return io.NopCloser(strings.NewReader(string(n.content))), nil
	}
	f, err := os.Open(n.at.file)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, n.at.offset, n.size), f}, nil
}

// read returns a file's content if it has at most limit bytes.
func (n *node) read(limit int64) ([]byte, error) {
	if n.size > limit {
		return nil, fmt.Errorf("a file has more than %d bytes", limit)
	}
	r, err := n.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// withContent is the node with another content.
func (n *node) withContent(b []byte) *node {
	c := *n
	c.content, c.size, c.sum = b, int64(len(b)), sha256.Sum256(b)
	return &c
}

// copyTree copies the directories; everything else is shared.
func (n *node) copyTree() *node {
	if !n.isDir() {
		return n
	}
	c := *n
	c.kids = make(map[string]*node, len(n.kids))
	for name, kid := range n.kids {
		c.kids[name] = kid.copyTree()
	}
	return &c
}

// names are the names in a directory, sorted.
func (n *node) names() []string { return slices.Sorted(maps.Keys(n.kids)) }

// lookup finds what is at a path, nil if there is nothing.
func (n *node) lookup(name string) *node {
	for part := range strings.SplitSeq(name, "/") {
		if !n.isDir() {
			return nil
		}
		n = n.kids[part]
	}
	return n
}

// in is lookup, where nothing means n itself.
func (n *node) in(dir string) *node {
	if dir == "" {
		return n
	}
	return n.lookup(dir)
}

// parent is the directory that a path is in; missing ones are made.
func (n *node) parent(name string) *node {
	dir, _ := path.Split(name)
	for part := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		if part == "" {
			continue
		}
		if !n.kids[part].isDir() {
			n.kids[part] = newDir()
		}
		n = n.kids[part]
	}
	return n
}

// walk calls f with every path below n, parents first, in order.
func (n *node) walk(prefix string, f func(name string, n *node) error) error {
	for _, name := range n.names() {
		full, kid := path.Join(prefix, name), n.kids[name]
		if err := f(full, kid); err != nil {
			return err
		}
		if kid.isDir() {
			if err := kid.walk(full, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// What a layer says about the layers below it
// (https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts).
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// Bounds of a tree.
const (
	maxEntries = 5_000_000 // of a layer
	maxPath    = 4096
)

// readTree is what a container of these layers sees.
func readTree(layers []layerFile) (*node, error) {
	root := newDir()
	return root, root.apply(layers)
}

func (n *node) apply(layers []layerFile) error {
	for _, l := range layers {
		if err := n.applyLayer(l); err != nil {
			return fmt.Errorf("layer %s: %w", l.diffID, err)
		}
	}
	return nil
}

// entry is one entry of a layer that is not about those below.
type entry struct {
	name string
	node *node
	hard string // a hard link's target
}

// applyLayer puts a layer on top of a tree. What the layer removes is of the layers below, whatever its order.
func (n *node) applyLayer(l layerFile) error {
	var entries []entry
	err := eachEntry(l.name, func(h *tar.Header, at int64, r io.Reader) error {
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		dir, base := path.Split(name)
		dir = strings.TrimSuffix(dir, "/")
		switch {
		case len(name) > maxPath:
			return fmt.Errorf("a path has more than %d bytes", maxPath)
		case base == opaque:
			if at := n.in(dir); at.isDir() {
				clear(at.kids)
			}
			return nil
		case strings.HasPrefix(base, whiteout):
			if at := n.in(dir); at.isDir() {
				delete(at.kids, strings.TrimPrefix(base, whiteout))
			}
			return nil
		}
		e, err := newEntry(name, h, place{l.name, at}, r)
		entries = append(entries, e)
		return err
	})
	for _, e := range entries {
		if err == nil {
			err = n.put(e)
		}
	}
	return err
}

func (n *node) put(e entry) error {
	if e.name == "" {
		n.mode, n.uid, n.gid, n.xattrs, n.modTime = e.node.mode, e.node.uid, e.node.gid, e.node.xattrs, e.node.modTime
		return nil
	}
	if e.hard != "" {
		target := n.lookup(e.hard)
		if target == nil || target.isDir() {
			return fmt.Errorf("%q is a link to %q, which is no file", e.name, e.hard)
		}
		e.node = target
	}
	kids := n.parent(e.name).kids
	base := path.Base(e.name)
	if old := kids[base]; old.isDir() && e.node.isDir() {
		e.node.kids = old.kids
	}
	kids[base] = e.node
	return nil
}

func newEntry(name string, h *tar.Header, at place, r io.Reader) (entry, error) {
	e := entry{name: name}
	n := &node{
		kind: h.Typeflag, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, modTime: h.ModTime, at: at, xattrs: map[string]string{},
	}
	for key, value := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, xattrRecord); ok {
			n.xattrs[attr] = value
		}
		if strings.HasPrefix(key, "GNU.sparse.") {
			return e, fmt.Errorf("%q is sparse in its archive, which layers are not", name)
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		sum := sha256.New()
		size, err := io.Copy(sum, r)
		if err != nil {
			return e, err
		}
		n.size = size
		copy(n.sum[:], sum.Sum(nil))
	case tar.TypeDir:
		n.kids = map[string]*node{}
	case tar.TypeSymlink:
		n.link, n.mode = h.Linkname, 0o777
	case tar.TypeLink:
		e.hard = strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
	case tar.TypeChar, tar.TypeBlock:
		n.major, n.minor = h.Devmajor, h.Devminor
	case tar.TypeFifo:
	default:
		return e, fmt.Errorf("%q is of the unknown type %q", name, h.Typeflag)
	}
	e.node = n
	return e, nil
}

const xattrRecord = "SCHILY.xattr."

// eachEntry calls f with the entries of a layer and where in the file their content is.
func eachEntry(file string, f func(h *tar.Header, at int64, r io.Reader) error) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	// tar reads headers whole and nothing ahead; that it can't seek makes what it has read the place that it is at.
	c := &counter{r: bufio.NewReaderSize(in, 1<<20)}
	t := tar.NewReader(c)
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if n > maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		if err := f(h, c.n, t); err != nil {
			return err
		}
	}
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// change is a path that differs from what is below; node is nil for one that is gone.
type change struct {
	name string
	node *node
}

// changes are what has to be put on top of base to get full, parents first, in order. Times alone are no change.
func changes(base, full *node, prefix string) []change {
	var all []change
	names := maps.Clone(full.kids)
	if names == nil {
		names = map[string]*node{}
	}
	if base.isDir() {
		for name := range base.kids {
			if _, ok := names[name]; !ok {
				names[name] = nil
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		path := path.Join(prefix, name)
		var below *node
		if base.isDir() {
			below = base.kids[name]
		}
		kid := names[name]
		if below == nil || kid == nil || !kid.same(below) {
			all = append(all, change{path, kid})
		}
		if kid.isDir() {
			all = append(all, changes(below, kid, path)...)
		}
	}
	return all
}
