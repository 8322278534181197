package image

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// writeLayer writes changes as a layer, uncompressed: what a compressor makes of the same bytes changes with its version,
// and with it the digest. Entries are in order and have one time, and no names of users.
func writeLayer(file string, all []change, at time.Time) (_ layerFile, err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return layerFile{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	b := bufio.NewWriterSize(f, 1<<20)
	c := &countWriter{w: io.MultiWriter(b, h)}
	w := layerWriter{tar: tar.NewWriter(c), at: at, first: map[*node]string{}}
	for _, ch := range all {
		if err := w.write(ch); err != nil {
			return layerFile{}, fmt.Errorf("write %s: %w", ch.name, err)
		}
	}
	if err := errors.Join(w.tar.Close(), b.Flush()); err != nil {
		return layerFile{}, err
	}
	return layerFile{name: file, diffID: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}, size: c.n}, nil
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

type layerWriter struct {
	tar   *tar.Writer
	at    time.Time
	first map[*node]string // the first path of what hard links share
}

func (w *layerWriter) write(ch change) error {
	n := ch.node
	if n == nil {
		dir, base := path.Split(ch.name)
		return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dir + whiteout + base, ModTime: w.at, Format: tar.FormatPAX})
	}
	h := &tar.Header{
		Typeflag: n.kind, Name: ch.name, Mode: n.mode, Uid: n.uid, Gid: n.gid, ModTime: w.at, Format: tar.FormatPAX,
		Linkname: n.link, Devmajor: n.major, Devminor: n.minor,
	}
	if len(n.xattrs) > 0 {
		h.PAXRecords = map[string]string{}
		for name := range maps.Keys(n.xattrs) {
			h.PAXRecords[xattrRecord+name] = n.xattrs[name]
		}
	}
	if first, ok := w.first[n]; ok && n.kind != tar.TypeDir {
		h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, first, nil
		return w.tar.WriteHeader(h)
	}
	w.first[n] = ch.name
	switch n.kind {
	case tar.TypeDir:
		h.Name += "/"
	case tar.TypeReg:
		h.Size = n.size
		return w.file(h, n)
	}
	return w.tar.WriteHeader(h)
}

func (w *layerWriter) file(h *tar.Header, n *node) error {
	r, err := n.open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w.tar, r)
	return err
}
