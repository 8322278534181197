package engine

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/docker/docker/api/types/mount"
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
	f := filling{engine: e, run: run, image: img, volume: g.Volume, patience: fillTimeout}
	if g.Dir, err = f.fill(ctx, files); err != nil {
		return Guest{}, fmt.Errorf("deliver the guest: %w", err)
	}
	b, err := json.Marshal(g)
	if err != nil {
		return Guest{}, err
	}
	return g, writeCache(record, b)
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
