package workspace

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// smallFile is what is read into memory to find out whether it changed; larger files go to the disk first.
const smallFile = 1 << 20

// unpacker reads the workspace's archive. The engine made it from files that the agent made: nothing is written but to the
// blob store, under names that we choose, so no name or link in it can lead anywhere.
type unpacker struct {
	before index
	limits Limits
	blobs  Blobs
	prefix string // of every name: the workspace's own directory
	after  index
	stored map[string]bool // digests that this archive brought
	left   int64           // bytes that may still be read
}

func (v *View) extractCopy(ctx context.Context, archive io.Reader) ([]Change, error) {
	if v.index == nil {
		return nil, errors.New("copy: Pack was not called before the start")
	}
	if archive == nil {
		return nil, errors.New("copy: no archive given")
	}
	u := &unpacker{
		before: v.index, limits: v.cfg.Limits, blobs: OpenBlobs(v.cfg.StateDir),
		after: make(index), stored: make(map[string]bool), left: v.cfg.Limits.Bytes,
	}
	for _, at := range v.index {
		u.left += at.Size
	}
	d := newDelta(v)
	over := u.read(tar.NewReader(contextReader{ctx, archive}))
	var limit *LimitError
	if over != nil && !errors.As(over, &limit) {
		return nil, errors.Join(over, u.sweep(nil))
	}
	// Of an archive that was not read to its end it is unknown what is missing in it.
	unread := func(string) bool { return over != nil }
	over = errors.Join(over, d.compare(v.index, u.after, unread))
	d.settle()
	if err := v.compareHost(ctx, d); err != nil {
		return nil, errors.Join(err, u.sweep(nil))
	}
	changes := d.changes()
	return changes, errors.Join(over, u.sweep(changes))
}

// read takes the archive's entries into after. The first one must be the workspace itself.
func (u *unpacker) read(r *tar.Reader) error {
	first, err := r.Next()
	if err != nil {
		return fmt.Errorf("read archive: %w", noEOF(err))
	}
	if first.Typeflag != tar.TypeDir {
		return fmt.Errorf("read archive: %q comes first and is no directory", first.Name)
	}
	u.prefix = strings.TrimSuffix(first.Name, "/") + "/"
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := u.entry(h, r); err != nil {
			return fmt.Errorf("read archive: %q: %w", h.Name, err)
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	p, err := u.place(h.Name)
	if err != nil {
		return err
	}
	if u.after[p] != nil {
		return errors.New("there twice")
	}
	if dir := path.Dir(p); dir != "." && (u.after[dir] == nil || u.after[dir].Type != Dir) {
		return errors.New("in a directory that the archive does not have")
	}
	if len(u.after) >= len(u.before)+u.limits.Changes {
		return &LimitError{What: "files and directories", Limit: int64(len(u.before) + u.limits.Changes)}
	}
	n, err := u.node(p, h, r)
	if err != nil {
		return err
	}
	u.after[p] = &indexed{Node: *n}
	return nil
}

// place is the path in the project of a name in the archive.
func (u *unpacker) place(name string) (string, error) {
	rel, ok := strings.CutPrefix(name, u.prefix)
	if !ok {
		return "", fmt.Errorf("not below %q", u.prefix)
	}
	rel = strings.TrimSuffix(rel, "/")
	if err := checkPath(rel); err != nil {
		return "", err
	}
	if strings.Count(rel, "/") >= u.limits.Depth {
		return "", &LimitError{What: "directories above each other", Limit: int64(u.limits.Depth)}
	}
	return rel, nil
}

func (u *unpacker) node(p string, h *tar.Header, r io.Reader) (*Node, error) {
	n := &Node{Mode: goMode(uint32(h.Mode & 0o7777))}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		n.Type = File
		return n, u.content(p, n, h.Size, r)
	case tar.TypeDir:
		n.Type = Dir
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPath || strings.Contains(h.Linkname, "\x00") {
			return nil, errors.New("a symlink without a proper target")
		}
		n.Type = Symlink
		n.setTarget(h.Linkname)
	case tar.TypeLink:
		return u.linked(h.Linkname)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		n.Type = Other
	default:
		return nil, fmt.Errorf("entry of unknown type %q", h.Typeflag)
	}
	return n, nil
}

// linked is the file that a hard link names, which must have come before. Nothing outside of the archive can be named so.
func (u *unpacker) linked(name string) (*Node, error) {
	p, err := u.place(name)
	if err != nil {
		return nil, err
	}
	to := u.after[p]
	if to == nil || to.Type == Dir {
		return nil, fmt.Errorf("a hard link to %q, which is not there", name)
	}
	n := to.Node
	return &n, nil
}

// content digests a file, and stores it if the project does not have the same at that path.
func (u *unpacker) content(p string, n *Node, size int64, r io.Reader) error {
	if size > u.left {
		return &LimitError{What: "bytes of new contents", Limit: u.limits.Bytes}
	}
	u.left -= size
	if size <= smallFile {
		data, err := io.ReadAll(r)
		if err != nil {
			return noEOF(err)
		}
		sum := sha256.Sum256(data)
		n.SHA256, n.Size = hex.EncodeToString(sum[:]), int64(len(data))
		if was := u.before[p]; was != nil && was.SHA256 == n.SHA256 {
			return nil
		}
		r = bytes.NewReader(data)
	}
	sum, length, err := u.blobs.Put(r)
	if err != nil {
		return err
	}
	n.SHA256, n.Size = sum, length
	u.stored[sum] = true
	return nil
}

// sweep removes the contents that no change needs: of large files that did not change, and of moved ones.
func (u *unpacker) sweep(changes []Change) error {
	for i := range changes {
		if c := &changes[i]; c.needsBlob() {
			delete(u.stored, c.New.SHA256)
		}
	}
	var errs []error
	for sum := range u.stored {
		errs = append(errs, os.Remove(u.blobs.path(sum)))
	}
	return errors.Join(errs...)
}

// compareHost marks the changes whose path is on the host no longer what was packed.
func (v *View) compareHost(ctx context.Context, d *delta) error {
	root, err := os.OpenRoot(v.cfg.Project)
	if err != nil {
		return err
	}
	defer root.Close()
	at := newHost(root)
	now := make(map[string]*Node)
	var wanted []*source
	for p := range d.entries {
		if d.isHidden(p) {
			continue
		}
		info, err := at.info(p)
		if err != nil {
			return err
		}
		if info != nil {
			now[p] = nodeOf(info)
			wanted = append(wanted, &source{root: root, path: p, nodes: []*Node{now[p]}, of: []*entry{{}}})
		}
	}
	if err := digestAll(ctx, wanted); err != nil {
		return err
	}
	for p, e := range d.entries {
		e.hostChanged = !d.isHidden(p) && !now[p].Equal(e.old)
	}
	return nil
}
