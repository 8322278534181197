package workspace

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Blobs is the content store of a run: <run directory>/blobs/<sha256>, directory 0700, files 0600. What an agent wrote through an
// overlay is in blobs/upper, where it wrote it: to give each of many files another name takes longer than all else that is done with it.
// What is read is hashed again on the way out, so a blob that was altered never passes for the original.
type Blobs struct {
	dir    string
	upper  map[string]string // by digest, where in blobs/upper a change set says that the content is
	recent *recent           // may be nil
}

// upperBlobs is the upper directory of an overlay, in the store.
const upperBlobs = BlobsDir + "/upper"

// ErrBlobDamaged is returned, wrapped, when a blob's content does not have the digest that it is filed under.
var ErrBlobDamaged = errors.New("blob does not match its digest")

// OpenBlobs gives the store of a run directory, for what was Put there. Nothing is made before the first Put.
func OpenBlobs(runDir string) Blobs {
	return Blobs{dir: filepath.Join(runDir, BlobsDir)}
}

// Blobs gives the store of the run's directory with all the contents that Extract has kept for the change set.
func (cs *ChangeSet) Blobs(runDir string) Blobs {
	b := OpenBlobs(runDir)
	b.upper = make(map[string]string)
	for i := range cs.Changes {
		if c := &cs.Changes[i]; c.needsBlob() {
			b.upper[c.New.SHA256] = c.Path
		}
	}
	return b
}

// Put stores what r gives and returns its SHA-256 (lower-case hex) and length. Content that is already there
// is kept as it is. An error of r leaves nothing behind.
func (b Blobs) Put(r io.Reader) (sum string, size int64, err error) {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return "", 0, err
	}
	f, err := os.CreateTemp(b.dir, ".put-*") // O_EXCL, 0600
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(f.Name())
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(f, h), r)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", 0, fmt.Errorf("store blob: %w", err)
	}
	sum = hex.EncodeToString(h.Sum(nil))
	// Link, unlike rename, never replaces: whoever stored this content first stays.
	if err := os.Link(f.Name(), b.path(sum)); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", 0, fmt.Errorf("store blob %s: %w", sum, err)
	}
	return sum, size, nil
}

// Has reports whether content with this digest is stored.
func (b Blobs) Has(sum string) bool {
	switch {
	case !validSHA256(sum):
		return false
	case b.inMemory(sum) != nil:
		return true
	}
	f, err := b.open(sum)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// Open gives the content with this digest. The last Read returns ErrBlobDamaged instead of io.EOF when the
// content does not match; so read to the end before using any of it.
func (b Blobs) Open(sum string) (io.ReadCloser, error) {
	if !validSHA256(sum) {
		return nil, fmt.Errorf("open blob %q: not a digest", sum)
	}
	if content := b.inMemory(sum); content != nil {
		return io.NopCloser(bytes.NewReader(content)), nil // hashed when it was read
	}
	f, err := b.open(sum)
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return newVerifier(f, sum), nil
}

// inMemory is of what the change set needs alone: what is found must not depend on what there was room for.
func (b Blobs) inMemory(sum string) []byte {
	if _, kept := b.upper[sum]; !kept {
		return nil
	}
	return b.recent.of(sum)
}

// open waits for no FIFO and follows no link out of the store: an agent has laid out blobs/upper.
func (b Blobs) open(sum string) (*os.File, error) {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openRegular(root, sum)
	if path, kept := b.upper[sum]; kept && errors.Is(err, fs.ErrNotExist) {
		return openRegular(root, "upper/"+path)
	}
	return f, err
}

func (b Blobs) path(sum string) string {
	return filepath.Join(b.dir, sum)
}

// openNew opens the content of a change's new file: the blob, or the host's file where only the name or the
// mode changed and so nothing was stored. The last Read fails when it is not what was recorded.
func openNew(before, after *Node, blobs Blobs, host func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	if before == nil || before.Type != File || before.SHA256 != after.SHA256 || blobs.Has(after.SHA256) {
		return blobs.Open(after.SHA256)
	}
	r, err := host()
	if err != nil {
		return nil, err
	}
	return newVerifier(r, after.SHA256), nil
}

// source is the path whose content on the host a change starts from.
func (c *Change) source() string {
	if c.From != "" {
		return c.From
	}
	return c.Path
}

// verifier hands through what it reads and checks the digest at the end.
type verifier struct {
	io.Closer
	r    io.Reader
	h    hash.Hash
	want string
}

func newVerifier(r io.ReadCloser, want string) io.ReadCloser {
	return &verifier{Closer: r, r: r, h: sha256.New(), want: want}
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.h.Write(p[:n])
	if err == io.EOF && hex.EncodeToString(v.h.Sum(nil)) != v.want {
		return n, fmt.Errorf("%s: %w", v.want, ErrBlobDamaged)
	}
	return n, err
}
