package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
)

const (
	// GuestMount is where the guest is in every sandbox, read-only.
	GuestMount = "/.agent-sandbox"
	guestPath  = GuestMount + "/guest"
	// guestVolume begins the names of the volumes that hold a guest.
	guestVolume = "agent-sandbox-guest-"
	maxGuest    = 64 << 20 // bytes
	usualGuest  = 6 << 20  // more than the real one has: it is unpacked without a copy
)

//go:embed embedded
var embedded embed.FS

// ErrNoGuest tells that this program was built without the guest.
var ErrNoGuest = errors.New("this build has no guest program for the image's architecture")

// Guest is the guest program and the agent's identity, delivered into an engine: a volume named by its contents, so
// that it is filled once and can't be confused with another version's.
type Guest struct {
	Volume string `json:"volume"`
	// Digest is the hex SHA-256 of the guest program.
	Digest string `json:"digest"`
	// Dir is the volume's directory on the engine's host.
	Dir string `json:"dir"`
}

// Hostname is the name of every sandbox.
const Hostname = "sandbox"

// What programs learn about the network from files. Engines write them only for a container that they give one.
const (
	hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t" + Hostname + "\n"
	// The capture answers whoever is asked. The address is one of the documentation ranges (RFC 5737).
	resolvConf = "nameserver 192.0.2.53\n"
	// Without the capture the guest listens there.
	loopbackConf = "nameserver " + LoopbackResolver + "\n"
)

// mounts are the guest's own directory and the identity and network files in the places where programs look for them.
func (g Guest) mounts(loopback bool) []mount.Mount {
	named := func(name, target string) mount.Mount {
		// Without a propagation: for a source in its own directory the engine insists on choosing.
		return mount.Mount{Type: mount.TypeBind, Source: path.Join(g.Dir, name), Target: "/etc/" + target, ReadOnly: true}
	}
	file := func(name string) mount.Mount { return named(name, name) }
	resolver := "resolv.conf"
	if loopback {
		resolver = "resolv.conf.loopback"
	}
	return []mount.Mount{
		{
			Type: mount.TypeVolume, Source: g.Volume, Target: GuestMount, ReadOnly: true,
			VolumeOptions: &mount.VolumeOptions{NoCopy: true},
		},
		file("passwd"), file("group"), file("hosts"), file("hostname"), named(resolver, "resolv.conf"),
	}
}

// Deliver makes sure that the engine has the guest for img with the identity of an agent with these ids. It is one
// look at a local record when the engine has been used before; refill makes it ignore the record.
func (e *Engine) Deliver(ctx context.Context, run string, img Image, uid, gid int, refill bool) (Guest, error) {
	source, err := guestFor(img.Arch)
	if err != nil {
		return Guest{}, err
	}
	accounts, err := e.accounts(ctx, run, img)
	if err != nil {
		return Guest{}, err
	}
	files := []file{
		{"guest", 0o555, source.digest}, // until it is unpacked
		{"passwd", 0o444, accounts.passwdFor(uid, gid)},
		{"group", 0o444, accounts.groupFor(gid)},
		{"hosts", 0o444, []byte(hosts)},
		{"hostname", 0o444, []byte(Hostname + "\n")},
		{"resolv.conf", 0o444, []byte(resolvConf)},
		{"resolv.conf.loopback", 0o444, []byte(loopbackConf)},
		{filled, 0o444, nil}, // the last: where it is, the others are whole
	}
	// The record goes by the guest as this program carries it: unpacking it costs more than all the rest.
	record := filepath.Join(e.cache, "engines", safeName(e.Facts().ID), digestOf(files)[:16]+".json")
	var g Guest
	if !refill && readCache(record, &g) {
		return g, nil
	}
	if files[0].data, err = source.unpack(); err != nil {
		return Guest{}, err
	}
	g = Guest{Volume: guestVolume + digestOf(files)[:16], Digest: hexSHA256(files[0].data)}
	if g.Dir, err = e.fill(ctx, run, img, g.Volume, files); err != nil {
		return Guest{}, fmt.Errorf("deliver the guest: %w", err)
	}
	b, err := json.Marshal(g)
	if err != nil {
		return Guest{}, err
	}
	return g, writeCache(record, b)
}

// filled is the name of the file that tells that a guest's volume has everything.
const filled = "complete"

// fill writes files to a named volume, unless it has them, through a container that never starts: it works with every
// image and engine. Whoever has the container's name fills: a program that is being written can't be started.
func (e *Engine) fill(ctx context.Context, run string, img Image, name string, files []file) (dir string, err error) {
	labels := map[string]string{Label: run}
	vol, err := e.api.VolumeCreate(ctx, volume.CreateOptions{Name: name, Labels: labels})
	if err != nil {
		return "", err
	}
	c, err := e.filler(ctx, run, img, name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()
	if _, err := e.api.ContainerStatPath(ctx, c.ID, GuestMount+"/"+filled); err == nil {
		return vol.Mountpoint, nil
	}
	archive, w := io.Pipe()
	defer archive.Close() // ends pack, if the engine did not read it all
	go func() { w.CloseWithError(pack(w, files)) }()
	return vol.Mountpoint, c.CopyIn(ctx, GuestMount, archive)
}

// fillTimeout is how long somebody else may take to fill a volume. Who takes longer has died.
const fillTimeout = 10 * time.Second

// filler creates the container that fills a volume, when nobody else does.
func (e *Engine) filler(ctx context.Context, run string, img Image, name string) (*Container, error) {
	mounts := []mount.Mount{{
		Type: mount.TypeVolume, Source: name, Target: GuestMount, VolumeOptions: &mount.VolumeOptions{NoCopy: true},
	}}
	for {
		c, err := e.scratch(ctx, run, img, name, mounts)
		if !errdefs.IsConflict(err) {
			return c, err
		}
		other := &Container{engine: e, ID: name}
		waiting, cancel := context.WithTimeout(ctx, fillTimeout)
		err = <-other.Removed(waiting)
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			if err := other.Remove(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// scratch creates a container that is only there for its files; with a name or without.
func (e *Engine) scratch(ctx context.Context, run string, img Image, name string, mounts []mount.Mount) (*Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := unstoppable(ctx)
	defer cancel()
	resp, err := e.api.ContainerCreate(ctx,
		&container.Config{Image: img.ID, Entrypoint: []string{"/never-started"}, Labels: map[string]string{Label: run}},
		&container.HostConfig{NetworkMode: "none", Mounts: mounts, AutoRemove: true},
		&network.NetworkingConfig{}, nil, name)
	if err != nil {
		return nil, err
	}
	return &Container{engine: e, ID: resp.ID}, nil
}

// guestSource is the guest program as it comes with this one.
type guestSource struct {
	digest []byte // of what this program carries, packed or not
	unpack func() ([]byte, error)
}

// guestFor finds the guest for Linux on arch: the embedded one, or the file "guest" beside this program, where
// `go install ./cmd/...` puts it.
func guestFor(arch string) (guestSource, error) {
	name := "embedded/guest-linux-" + arch + ".gz"
	packed, err := embedded.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		program, err := guestBeside(arch)
		digest := sha256.Sum256(program)
		return guestSource{digest[:], func() ([]byte, error) { return program, nil }}, err
	}
	if err != nil {
		return guestSource{}, err
	}
	defer packed.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, packed); err != nil {
		return guestSource{}, err
	}
	return guestSource{hash.Sum(nil), func() ([]byte, error) { return unpackGuest(name) }}, nil
}

func unpackGuest(name string) ([]byte, error) {
	packed, err := embedded.Open(name)
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, fmt.Errorf("embedded guest: %w", err)
	}
	var program bytes.Buffer
	program.Grow(usualGuest)
	if _, err := program.ReadFrom(io.LimitReader(z, maxGuest)); err != nil {
		return nil, fmt.Errorf("embedded guest: %w", err)
	}
	return program.Bytes(), nil
}

func guestBeside(arch string) ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	name := filepath.Join(filepath.Dir(self), "guest")
	program, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (%s): build with `make build`, or with `CGO_ENABLED=0 go install ./cmd/...`", ErrNoGuest, arch)
	}
	if err != nil {
		return nil, err
	}
	if err := checkStatic(program, arch); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return program, nil
}

// checkStatic refuses a program that would need the image's libraries.
func checkStatic(program []byte, arch string) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("not a Linux program: %w", err)
	}
	defer f.Close()
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != want {
		return fmt.Errorf("built for %s, the image is for %s", f.Machine, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("dynamically linked: build the guest with CGO_ENABLED=0")
		}
	}
	return nil
}

type file struct {
	name string
	mode int64
	data []byte
}

// pack writes files as a tar archive.
func pack(to io.Writer, files []file) error {
	w := tar.NewWriter(to)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := w.Write(f.data); err != nil {
			return err
		}
	}
	return w.Close()
}

// digestOf identifies files by name, mode and content.
func digestOf(files []file) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%s %o %s\n", f.name, f.mode, hexSHA256(f.data))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// safeName makes a file name of an engine's or an image's id.
func safeName(id string) string { return hexSHA256([]byte(id))[:16] }

func writeCache(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("cache: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

func readCache(name string, v any) bool {
	b, err := os.ReadFile(name)
	return err == nil && json.Unmarshal(b, v) == nil
}
