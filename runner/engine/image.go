package engine

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Image is an image as the engine has it.
type Image struct {
	Reference string   `json:"reference"` // what was asked for
	ID        string   `json:"id"`        // sha256 of the image's configuration
	Digests   []string `json:"digests"`   // name@sha256 of the manifests it is known by
	Arch      string   `json:"arch"`
	OS        string   `json:"os"`
	Env       []string `json:"env"`
	Size      int64    `json:"size"` // bytes, uncompressed
	// Volumes are the places that the image wants kept apart from its files; the engine would make volumes of them.
	Volumes []string `json:"volumes,omitempty"`

	Labels  map[string]string `json:"-"`
	Layers  []string          `json:"-"` // sha256 of each layer, uncompressed, from the lowest up
	Created time.Time         `json:"-"` // zero if the image does not say
}

// Digest is the digest of the image's manifest, empty if the engine knows of none.
func (i Image) Digest() string {
	for _, d := range i.Digests {
		if _, digest, ok := strings.Cut(d, "@"); ok {
			return digest
		}
	}
	return ""
}

// ErrNoImage tells that the engine does not have an image.
var ErrNoImage = errors.New("the engine does not have the image")

// Image looks an image up by reference, digest or id. It never pulls.
func (e *Engine) Image(ctx context.Context, reference string) (Image, error) {
	r, err := e.api.ImageInspect(ctx, reference)
	if IsNotFound(err) {
		return Image{}, fmt.Errorf("%w %q", ErrNoImage, reference)
	}
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", reference, err)
	}
	img := Image{
		Reference: reference, ID: r.ID, Digests: r.RepoDigests, Arch: r.Architecture, OS: r.Os, Size: r.Size,
	}
	if r.Config != nil {
		img.Env = r.Config.Env
		img.Volumes = slices.Sorted(maps.Keys(r.Config.Volumes))
		img.Labels = r.Config.Labels
	}
	img.Layers = r.RootFS.Layers
	img.Created, _ = time.Parse(time.RFC3339Nano, r.Created) // an image need not have it
	if img.OS != "linux" {
		return Image{}, fmt.Errorf("image %q is for %s, the sandbox needs Linux", reference, img.OS)
	}
	return img, nil
}

// accounts are an image's user database, empty for an image that has none.
type accounts struct {
	Passwd string `json:"passwd"` // passwd(5)
	Group  string `json:"group"`  // group(5)
	Bash   bool   `json:"bash"`   // /bin/bash exists
}

// maxAccounts bounds what is read of an image's account files, in bytes.
const maxAccounts = 1 << 20

// accounts reads an image's user database through a container that never starts, once per image.
func (e *Engine) accounts(ctx context.Context, run string, img Image) (a accounts, err error) {
	name := filepath.Join(e.cache, "images", safeName(img.ID)+".json")
	if readCache(name, &a) {
		return a, nil
	}
	c, err := e.scratch(ctx, run, img, "", nil)
	if err != nil {
		return a, fmt.Errorf("read the image's accounts: %w", err)
	}
	defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()
	if a.Passwd, err = c.readFile(ctx, "/etc/passwd"); err != nil {
		return a, err
	}
	if a.Group, err = c.readFile(ctx, "/etc/group"); err != nil {
		return a, err
	}
	if _, err := c.engine.api.ContainerStatPath(ctx, c.ID, "/bin/bash"); err == nil {
		a.Bash = true
	}
	b, err := json.Marshal(a)
	if err != nil {
		return a, err
	}
	return a, writeCache(name, b)
}

// readFile returns a file's content, empty if there is none.
func (c *Container) readFile(ctx context.Context, path string) (string, error) {
	r, err := c.CopyOut(ctx, path)
	if IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer r.Close()
	t := tar.NewReader(r)
	h, err := t.Next()
	if err != nil {
		return "", fmt.Errorf("read %s of the image: %w", path, err)
	}
	if h.Typeflag != tar.TypeReg || h.Size > maxAccounts {
		return "", fmt.Errorf("%s of the image is no file of at most %d bytes", path, maxAccounts)
	}
	b, err := io.ReadAll(t)
	return string(b), err
}

// agentName is the agent's user and group name in every sandbox, and Home its home directory.
const (
	agentName = "agent"
	Home      = "/home/agent"
)

// nameOf is the agent's user and group name: root's if the policy made it root.
func nameOf(id int) string {
	if id == 0 {
		return "root"
	}
	return agentName
}

// passwdFor gives the agent an entry: without one Node's os.userInfo, ssh and git fail. What else has its name or
// its id goes.
func (a accounts) passwdFor(uid, gid int) []byte {
	shell := "/bin/sh"
	if a.Bash {
		shell = "/bin/bash"
	}
	name := nameOf(uid)
	entry := fmt.Sprintf("%s:x:%d:%d:%s:%s:%s", name, uid, gid, name, Home, shell)
	return withEntry(a.Passwd, "root:x:0:0:root:/root:/bin/sh", entry)
}

func (a accounts) groupFor(gid int) []byte {
	return withEntry(a.Group, "root:x:0:", fmt.Sprintf("%s:x:%d:", nameOf(gid), gid))
}

// withEntry puts entry first in a passwd or group file, in place of those that share its name or id. An image
// without such a file has root.
func withEntry(text, root, entry string) []byte {
	if text == "" {
		text = root + "\n"
	}
	own := strings.Split(entry, ":")
	lines := []string{entry}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		f := strings.Split(line, ":")
		if len(f) < 3 || f[0] == own[0] || f[2] == own[2] {
			continue
		}
		lines = append(lines, line)
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}
