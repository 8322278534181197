package engine

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

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
