package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// saved is an image out of an engine: its configuration, and its layers uncompressed in files, each of which is what the
// configuration says.
type saved struct {
	config v1.ConfigFile
	layers []layerFile // from the lowest up
}

// layerFile is one layer.
type layerFile struct {
	name   string // of the file on the host
	diffID v1.Hash
	size   int64
}

// Bounds of an image.
const (
	maxImageBytes   = 64 << 30
	maxImageEntries = 10_000 // of the archive: layers and descriptions
	maxDescription  = 8 << 20
	maxLayers       = 1000
)

// unpack takes an archive as `docker save` writes it apart, into files in dir
// (https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format).
func unpack(dir string, r io.Reader) (*saved, error) {
	a := archive{dir: dir, files: map[string]string{}, links: map[string]string{}}
	if err := a.read(r); err != nil {
		return nil, fmt.Errorf("read the image's archive: %w", err)
	}
	s, err := a.image()
	if err != nil {
		return nil, fmt.Errorf("read the image's archive: %w", err)
	}
	return s, nil
}

type archive struct {
	dir   string
	files map[string]string // name in the archive -> file in dir
	links map[string]string
}

func (a *archive) read(r io.Reader) error {
	t := tar.NewReader(bufio.NewReaderSize(r, 1<<20))
	left := int64(maxImageBytes)
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if left -= h.Size; left < 0 || n > maxImageEntries {
			return fmt.Errorf("it has more than %d bytes or %d entries", int64(maxImageBytes), maxImageEntries)
		}
		name := path.Clean("/" + h.Name)
		switch h.Typeflag {
		case tar.TypeSymlink: // a layer that is there twice
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			a.links[name] = path.Clean("/" + h.Linkname)
		case tar.TypeReg:
			file := filepath.Join(a.dir, "entry-"+strconv.Itoa(n))
			if err := writeNew(file, t); err != nil {
				return err
			}
			a.files[name] = file
		}
	}
}

func writeNew(name string, r io.Reader) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, r)
	return err
}

// file is the file in dir that has an entry's content.
func (a *archive) file(name string) (string, error) {
	name = path.Clean("/" + name)
	if to, ok := a.links[name]; ok {
		name = to
	}
	file, ok := a.files[name]
	if !ok {
		return "", fmt.Errorf("it lacks %q", name)
	}
	return file, nil
}

func (a *archive) parse(name string, v any) error {
	file, err := a.file(name)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewDecoder(io.LimitReader(f, maxDescription)).Decode(v)
}

func (a *archive) image() (*saved, error) {
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := a.parse("manifest.json", &manifest); err != nil {
		return nil, err
	}
	if len(manifest) != 1 {
		return nil, fmt.Errorf("it has %d images", len(manifest))
	}
	s := new(saved)
	if err := a.parse(manifest[0].Config, &s.config); err != nil {
		return nil, err
	}
	ids := s.config.RootFS.DiffIDs
	if len(ids) != len(manifest[0].Layers) || len(ids) > maxLayers {
		return nil, fmt.Errorf("it has %d layers, its configuration says %d", len(manifest[0].Layers), len(ids))
	}
	for i, name := range manifest[0].Layers {
		file, err := a.file(name)
		if err != nil {
			return nil, err
		}
		layer, err := plainLayer(file, filepath.Join(a.dir, "layer-"+strconv.Itoa(i)))
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		if layer.diffID != ids[i] {
			return nil, fmt.Errorf("layer %d is %s, the image's configuration says %s", i, layer.diffID, ids[i])
		}
		s.layers = append(s.layers, layer)
	}
	return s, nil
}

// plainLayer hashes a layer. One that is compressed is unpacked into the file named plain first.
func plainLayer(file, plain string) (layerFile, error) {
	f, err := os.Open(file)
	if err != nil {
		return layerFile{}, err
	}
	defer f.Close()
	b := bufio.NewReaderSize(f, 1<<20)
	magic, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return layerFile{}, err
	}
	h := sha256.New()
	out := layerFile{name: file}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		out.name = plain
		z, err := gzip.NewReader(b)
		if err != nil {
			return layerFile{}, err
		}
		limited := &io.LimitedReader{R: z, N: maxImageBytes}
		if err := writeNew(plain, io.TeeReader(limited, h)); err != nil {
			return layerFile{}, err
		}
		out.size = maxImageBytes - limited.N
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return layerFile{}, errors.New("it is compressed with zstd, which is not supported\nhint: use a base image with gzip or plain layers")
	default:
		if out.size, err = io.Copy(h, b); err != nil {
			return layerFile{}, err
		}
	}
	out.diffID = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	return out, nil
}
