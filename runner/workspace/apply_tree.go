package workspace

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// hostTree is the host's project while it is changed. A path is walked from its root name by name, through
// directories that are real ones when they are opened, and what is done is done relative to the last of them:
// whoever swaps a directory for a symlink meanwhile gets an error, never a write elsewhere.
type hostTree struct {
	top  *dirHandle
	last *dirHandle // the directory walked to last, nil for none

	// into opens a directory in another: stepInto, but in tests of what that is good for.
	into func(at *os.Root, name string) (*os.Root, error)
}

// dirHandle is an open directory.
type dirHandle struct {
	path string
	root *os.Root
	file *os.File // the same directory, for the calls that want a descriptor
}

// errNotDir means that something on the way to a path is a symlink, or no directory.
var errNotDir = errors.New("a symlink or a file where a directory should be")

func openTree(dir string) (*hostTree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	top, err := newHandle(".", root)
	if err != nil {
		return nil, err
	}
	return newTree(top), nil
}

func newTree(top *dirHandle) *hostTree { return &hostTree{top: top, into: stepInto} }

func newHandle(p string, root *os.Root) (*dirHandle, error) {
	f, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &dirHandle{path: p, root: root, file: f}, nil
}

func (d *dirHandle) close() error { return errors.Join(d.root.Close(), d.file.Close()) }

// Close releases the tree.
func (t *hostTree) Close() error {
	t.forget()
	return t.top.close()
}

// forget drops the remembered directory: after something that moved directories.
func (t *hostTree) forget() {
	if t.last != nil {
		_ = t.last.close()
		t.last = nil
	}
}

// dir walks to a directory. The handle belongs to the tree, and is good until the next walk.
func (t *hostTree) dir(p string) (*dirHandle, error) {
	if p == "." {
		return t.top, nil
	}
	if t.last != nil && t.last.path == p {
		return t.last, nil
	}
	d, err := t.walk(p)
	if err != nil {
		return nil, err
	}
	t.forget()
	t.last = d
	return d, nil
}

func (t *hostTree) walk(p string) (*dirHandle, error) {
	at := t.top.root
	for name := range strings.SplitSeq(p, "/") {
		next, err := t.into(at, name)
		if at != t.top.root {
			_ = at.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		at = next
	}
	return newHandle(p, at)
}

// stepInto opens a real directory in at. os.Root would follow a symlink that stays inside it, so what was
// opened is compared with what the name is.
func stepInto(at *os.Root, name string) (*os.Root, error) {
	want, err := at.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !want.IsDir() {
		return nil, errNotDir
	}
	next, err := at.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	got, err := next.Stat(".")
	if err == nil && !os.SameFile(want, got) {
		err = errNotDir
	}
	if err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return next, nil
}

// parent walks to the directory of p and gives p's own name in it.
func (t *hostTree) parent(p string) (*dirHandle, string, error) {
	d, err := t.dir(path.Dir(p))
	return d, path.Base(p), err
}

// lstat returns fs.ErrNotExist when p or its directory is not there, errNotDir when the way leads through
// something else than directories.
func (t *hostTree) lstat(p string) (fs.FileInfo, error) {
	if p == "." {
		return t.top.root.Stat(".")
	}
	d, name, err := t.parent(p)
	if err != nil {
		return nil, err
	}
	return d.root.Lstat(name)
}

// open opens a regular file for reading, and never waits for a FIFO.
func (t *hostTree) open(p string) (*os.File, error) {
	d, name, err := t.parent(p)
	if err != nil {
		return nil, err
	}
	want, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !want.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", p)
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|openNonblock, 0)
	if err != nil {
		return nil, err
	}
	got, err := f.Stat()
	if err == nil && !os.SameFile(want, got) {
		err = fmt.Errorf("%s: replaced while it was opened", p)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// node takes the state of a path, nil for one that does not exist.
func (t *hostTree) node(p string) (*Node, error) {
	info, err := t.lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := &Node{Type: Other, Mode: info.Mode() & modeBits}
	switch {
	case info.IsDir():
		n.Type = Dir
	case info.Mode()&fs.ModeSymlink != 0:
		return t.linkNode(p)
	case info.Mode().IsRegular():
		return n, t.fileNode(p, n)
	}
	return n, nil
}

func (t *hostTree) linkNode(p string) (*Node, error) {
	d, name, err := t.parent(p)
	if err != nil {
		return nil, err
	}
	target, err := d.root.Readlink(name)
	return &Node{Type: Symlink, Target: target, Size: int64(len(target)), SHA256: hashString(target)}, err
}

func (t *hostTree) fileNode(p string, n *Node) error {
	f, err := t.open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n.Type = File
	n.Size, err = io.Copy(h, f)
	n.SHA256 = hex.EncodeToString(h.Sum(nil))
	return err
}

// names lists a directory, in no order.
func (t *hostTree) names(p string) ([]string, error) {
	d, err := t.dir(p)
	if err != nil {
		return nil, err
	}
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (t *hostTree) create(p string) (*os.File, error) {
	d, name, err := t.parent(p)
	if err != nil {
		return nil, err
	}
	return d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (t *hostTree) mkdir(p string) error {
	d, name, err := t.parent(p)
	if err != nil {
		return err
	}
	return d.root.Mkdir(name, 0o700)
}

func (t *hostTree) symlink(target, p string) error {
	d, name, err := t.parent(p)
	if err != nil {
		return err
	}
	return d.root.Symlink(target, name)
}

// chmodDir changes a directory through its own handle, so it can't be another one.
func (t *hostTree) chmodDir(p string, mode fs.FileMode) error {
	d, err := t.dir(p)
	if err != nil {
		return err
	}
	return d.file.Chmod(mode)
}

func (t *hostTree) chtimes(p string, modified time.Time) error {
	d, name, err := t.parent(p)
	if err != nil {
		return err
	}
	return d.root.Chtimes(name, time.Time{}, modified)
}

func (t *hostTree) lchown(p string, owner IDs) error {
	d, name, err := t.parent(p)
	if err != nil {
		return err
	}
	return d.root.Lchown(name, owner.UID, owner.GID)
}

// remove deletes a file, a symlink or an empty directory.
func (t *hostTree) remove(p string) error {
	d, name, err := t.parent(p)
	if err != nil {
		return err
	}
	defer t.forget()
	return d.root.Remove(name)
}

// move renames, and returns fs.ErrExist rather than replace something.
func (t *hostTree) move(from, to string) error {
	return t.rename(from, to, renameNoReplace)
}

// swap lets two paths change places in one step, so that neither is ever missing. It returns
// errors.ErrUnsupported where the file system can't.
func (t *hostTree) swap(a, b string) error {
	return t.rename(a, b, renameSwap)
}

type renameKind int

const (
	renameNoReplace renameKind = iota
	renameSwap
)

func (t *hostTree) rename(from, to string, kind renameKind) error {
	fromDir, fromName, err := t.parent(from)
	if err != nil {
		return err
	}
	if fromDir == t.last { // keep it while the other one is walked to
		t.last = nil
		defer func() { _ = fromDir.close() }()
	}
	toDir, toName, err := t.parent(to)
	if err != nil {
		return err
	}
	err = t.renameAt(fromDir, fromName, toDir, toName, kind)
	if err != nil {
		t.forget()
		return fmt.Errorf("move %s to %s: %w", from, to, err)
	}
	if info, err := toDir.root.Lstat(toName); kind == renameSwap || err != nil || info.IsDir() {
		t.forget() // a directory moved: what is remembered may have another path now
	}
	return nil
}
