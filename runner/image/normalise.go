package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// normal is an image in the one form that all builds of the same inputs have.
type normal struct {
	config   []byte // JSON
	settings v1.ConfigFile
	manifest []byte
	layers   []layerFile
	tree     *node
	bill     *SBOM
}

// ID is the digest of the configuration: what an engine with the classic image store calls the image.
func (n *normal) ID() string { return digestOf(n.config) }

// Digest is the digest of the manifest: what registries, and engines with containerd's store, call the image.
func (n *normal) Digest() string { return digestOf(n.manifest) }

// shape is what normalise needs to know beside the image.
type shape struct {
	base   []string // sha256 of the layers that are the base's, and stay
	epoch  time.Time
	inputs string
	secret [][]byte // what must not be in the image
}

// normalise rewrites a built image: all that the build put on its base becomes one layer.
func normalise(dir string, s *saved, sh shape) (*normal, error) {
	lower := len(sh.base)
	for i, id := range sh.base {
		if i >= len(s.layers) || s.layers[i].diffID.String() != id {
			return nil, errors.New("the built image is not on top of its base: the base changed during the build\nhint: build again")
		}
	}
	base, err := readTree(s.layers[:lower])
	if err != nil {
		return nil, err
	}
	full := base.copyTree()
	if err := full.apply(s.layers[lower:]); err != nil {
		return nil, err
	}
	c := &cleaner{base: base, full: full, epoch: sh.epoch}
	if err := c.clean(); err != nil {
		return nil, err
	}
	if name, err := c.holds(sh.secret); err != nil || name != "" {
		return nil, errors.Join(err, leaked(name))
	}
	n := &normal{tree: full, layers: slices.Clone(s.layers[:lower])}
	if all := changes(base, full, ""); len(all) > 0 {
		layer, err := writeLayer(filepath.Join(dir, "layer-new"), all, sh.epoch)
		if err != nil {
			return nil, err
		}
		n.layers = append(n.layers, layer)
	}
	if n.bill, err = readSBOM(full); err != nil {
		return nil, err
	}
	return n, n.describe(s.config, sh)
}

func leaked(name string) error {
	if name == "" {
		return nil
	}
	return fmt.Errorf("the certificates of --ca-file are in the image, in /%s: the Dockerfile copied them there\nhint: remove what copies them; during the build they are trusted without", name)
}

// defaultPath is what engines give a process without one. BuildKit writes it into images, the classic builder does not.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// describe makes the configuration and the manifest.
func (n *normal) describe(was v1.ConfigFile, sh shape) error {
	labels := maps.Clone(was.Config.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelInputs], labels[LabelSBOM] = sh.inputs, n.bill.Digest()
	from := was.Config
	config := v1.ConfigFile{
		Architecture: was.Architecture, Variant: was.Variant, OS: was.OS, Created: v1.Time{Time: sh.epoch},
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Cmd: from.Cmd, Entrypoint: from.Entrypoint, Env: from.Env, Healthcheck: from.Healthcheck, Labels: labels,
			OnBuild: from.OnBuild, User: from.User, Volumes: from.Volumes, ExposedPorts: from.ExposedPorts,
			StopSignal: from.StopSignal, Shell: from.Shell,
		},
	}
	if !slices.ContainsFunc(from.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		config.Config.Env = append([]string{defaultPath}, from.Env...)
	}
	if from.WorkingDir != "/" { // which is the default; the builders differ in writing it
		config.Config.WorkingDir = from.WorkingDir
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for i, l := range n.layers {
		by := "agent-sandbox image build"
		if i < len(sh.base) {
			by = "base"
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		config.History = append(config.History, v1.History{Created: v1.Time{Time: sh.epoch}, CreatedBy: by})
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: types.OCIUncompressedLayer, Size: l.size, Digest: l.diffID})
	}
	var err error
	n.settings = config
	if n.config, err = json.Marshal(config); err != nil {
		return err
	}
	manifest.Config = descriptor(types.OCIConfigJSON, n.config)
	n.manifest, err = json.Marshal(manifest)
	return err
}

func descriptor(kind types.MediaType, b []byte) v1.Descriptor {
	h, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		panic("image: reading memory failed: " + err.Error())
	}
	return v1.Descriptor{MediaType: kind, Size: int64(len(b)), Digest: h}
}

// write writes the image as an archive that both kinds of engine load: those with the classic store go by manifest.json,
// those with containerd's by index.json, and keep our manifest's digest.
func (n *normal) write(w io.Writer) error {
	index := v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{descriptor(types.OCIManifestSchema1, n.manifest)},
	}
	blob := func(digest string) string { return path.Join("blobs", strings.Replace(digest, ":", "/", 1)) }
	docker := []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{{Config: blob(n.ID())}}
	for _, l := range n.layers {
		docker[0].Layers = append(docker[0].Layers, blob(l.diffID.String()))
	}
	indexJSON, err := json.Marshal(index)
	if err != nil {
		return err
	}
	dockerJSON, err := json.Marshal(docker)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, f := range []extraFile{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", indexJSON},
		{"manifest.json", dockerJSON},
		{blob(n.Digest()), n.manifest},
		{blob(n.ID()), n.config},
	} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.content))}); err != nil {
			return err
		}
		if _, err := t.Write(f.content); err != nil {
			return err
		}
	}
	written := map[string]bool{}
	for _, l := range n.layers {
		name := blob(l.diffID.String())
		if written[name] {
			continue
		}
		written[name] = true
		if err := writeBlob(t, name, l); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeBlob(t *tar.Writer, name string, l layerFile) error {
	f, err := os.Open(l.name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: l.size}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
