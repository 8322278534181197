package actions

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Zip is a file that goes to the artifact service.
type Zip struct {
	Size   int64  // bytes
	SHA256 string // hex
	file   *os.File
}

// NewZip packs files of a directory, in the order of their names in the list, into a temporary file of another one: the same files
// give the same bytes. Those that don't exist are left out. It is read and written in a stream, whatever the files' size.
func NewZip(dir string, names []string, temp string) (*Zip, error) {
	f, err := os.CreateTemp(temp, "artifact-*.zip")
	if err != nil {
		return nil, fmt.Errorf("pack artifact: %w", err)
	}
	hash := sha256.New()
	w := zip.NewWriter(io.MultiWriter(f, hash))
	for _, name := range names {
		if err = pack(w, dir, name); err != nil {
			break
		}
	}
	z := &Zip{file: f}
	if err = errors.Join(err, w.Close()); err == nil {
		z.Size, err = f.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pack artifact: %w", err), z.Close())
	}
	z.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return z, nil
}

// pack adds one file. It gets no date and no owner: neither belongs to what it says.
func pack(w *zip.Writer, dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	to, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
	if err != nil {
		return err
	}
	n, err := io.Copy(to, io.LimitReader(f, maxArtifact+1))
	if err == nil && n > maxArtifact {
		err = fmt.Errorf("%s has more than %d bytes", name, int64(maxArtifact))
	}
	return err
}

// Close removes the file.
func (z *Zip) Close() error { return errors.Join(z.file.Close(), os.Remove(z.file.Name())) }
