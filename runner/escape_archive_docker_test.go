//go:build docker

package runner

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/workspace"
)

// hostileArchive has entries that an engine would never make. Whoever unpacks it by its names makes the file lands, beside the directory that it was to
// be unpacked to or in it.
type hostileArchive struct {
	entries []tar.Header
	lands   string
}

// hostileArchives attack what is in the directory outside, which is beside the one that they are unpacked to.
func hostileArchives(outside string) map[string]hostileArchive {
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	hard := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to, Mode: 0o644}
	}
	link := tar.Header{Name: "workspace/l", Typeflag: tar.TypeSymlink, Linkname: outside}
	return map[string]hostileArchive{
		"../ in a name":            {[]tar.Header{file("workspace/../../outside/evil")}, "outside/evil"},
		"a name outside":           {[]tar.Header{file("evil")}, "inside/evil"},
		"an absolute name":         {[]tar.Header{file(outside + "/evil")}, "outside/evil"},
		"a hard link to outside":   {[]tar.Header{hard("workspace/evil", outside+"/secret")}, "inside/workspace/evil"},
		"a hard link by ../":       {[]tar.Header{hard("workspace/evil", "workspace/../../outside/secret")}, "inside/workspace/evil"},
		"a file below a symlink":   {[]tar.Header{link, file("workspace/l/evil")}, "outside/evil"},
		"the same name twice":      {[]tar.Header{file("workspace/a"), file("workspace/a")}, "inside/workspace/a"},
		"a file of unknown type":   {[]tar.Header{{Name: "workspace/evil", Typeflag: 'Z'}}, "inside/workspace/evil"},
		"a name with a dot":        {[]tar.Header{file("workspace/./evil")}, "inside/workspace/evil"},
		"a name that ends nowhere": {[]tar.Header{file("workspace//evil")}, "inside/workspace/evil"},
	}
}

// TestEscapeHostileArchive: an archive that an engine would never make can't name anything outside.
func TestEscapeHostileArchive(t *testing.T) {
	l := testLab(t)
	for name := range hostileArchives("") {
		l.entry(t, "workspace", "an archive with "+name, "names are checked; contents go to the blob store alone", func(t *testing.T, _ func(string)) {
			base := t.TempDir()
			outside, inside := filepath.Join(base, "outside"), filepath.Join(base, "inside")
			secret := filepath.Join(outside, "secret")
			if err := errors.Join(os.Mkdir(outside, 0o755), os.MkdirAll(inside+"/workspace", 0o755), os.WriteFile(secret, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
			evil := hostileArchives(outside)[name]
			before := stateOf(t, base)
			if cs, err := extractArchive(t, evil.entries); err == nil {
				t.Errorf("extracted %+v", cs.Changes)
			}
			if diff := cmp.Diff(before, stateOf(t, base)); diff != "" {
				t.Errorf("written outside:\n%s", diff)
			}
			good := tar.Header{Name: "workspace/good", Typeflag: tar.TypeReg, Mode: 0o644}
			if cs, err := extractArchive(t, []tar.Header{good}); err != nil || cs.Find("good") == nil {
				t.Errorf("the control: %+v, %v", cs, err)
			}
			for _, h := range evil.entries {
				unpackAsNamed(t, inside, h)
			}
			if info, err := os.Stat(filepath.Join(base, evil.lands)); err != nil || evil.entries[0].Typeflag == tar.TypeLink && !isFile(t, info, secret) {
				t.Errorf("unpacked by its names: %v: the entry proves nothing", err)
			}
		})
	}
}

// isFile tells whether info is of the file that has the name.
func isFile(t *testing.T, info fs.FileInfo, name string) bool {
	t.Helper()
	other, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(info, other)
}

// unpackAsNamed is what programs do that believe an archive: names are paths, also those of links, and absolute ones stay so.
func unpackAsNamed(t *testing.T, dir string, h tar.Header) {
	t.Helper()
	at := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	var err error
	switch name, device := at(h.Name), int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))); h.Typeflag {
	case tar.TypeSymlink:
		err = os.Symlink(h.Linkname, name)
	case tar.TypeLink:
		err = os.Link(at(h.Linkname), name)
	case tar.TypeChar:
		err = unix.Mknod(name, unix.S_IFCHR|0o666, device)
	case tar.TypeBlock:
		err = unix.Mknod(name, unix.S_IFBLK|0o666, device)
	case tar.TypeFifo:
		err = unix.Mkfifo(name, 0o666)
	default:
		err = os.WriteFile(name, nil, 0o644)
	}
	if err != nil {
		t.Errorf("unpack %q: %v", h.Name, err)
	}
}

// TestEscapeArchivedDevice: an archive may have a device node in it, which no agent can make; it stays one on paper.
func TestEscapeArchivedDevice(t *testing.T) {
	l := testLab(t)
	l.entry(t, "workspace", "a device node in the change set", "recorded, never applied", func(t *testing.T, _ func(string)) {
		for kind, made := range map[byte]fs.FileMode{tar.TypeChar: fs.ModeDevice | fs.ModeCharDevice, tar.TypeBlock: fs.ModeDevice, tar.TypeFifo: fs.ModeNamedPipe, tar.TypeReg: 0} {
			h := tar.Header{Name: "workspace/node", Typeflag: kind, Mode: 0o666, Devmajor: 1, Devminor: 11}
			cs, err := extractArchive(t, []tar.Header{h})
			if err != nil {
				t.Fatal(err)
			}
			want := workspace.Other
			if kind == tar.TypeReg { // the control
				want = workspace.File
			}
			if got := cs.Find("node").New.Type; got != want {
				t.Errorf("entry of type %q: %q, want %q", kind, got, want)
			}
			h.Name = "node"
			dir := t.TempDir()
			unpackAsNamed(t, dir, h)
			if info, err := os.Lstat(filepath.Join(dir, "node")); err != nil || info.Mode().Type() != made {
				t.Errorf("unpacked as it is, type %q is %v, %v: the entry proves nothing", kind, info, err)
			}
		}
	})
}

func extractArchive(t *testing.T, entries []tar.Header) (*workspace.ChangeSet, error) {
	t.Helper()
	v, err := workspace.Prepare(t.Context(), workspace.Config{
		Project: t.TempDir(), StateDir: t.TempDir(), Mode: policy.ModeCopy, UID: 1000, GID: 1000, Hide: policy.NewPatternSet(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Pack(t.Context(), io.Discard); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range append([]tar.Header{{Name: "workspace/", Typeflag: tar.TypeDir, Mode: 0o755}}, entries...) {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return v.Extract(t.Context(), workspace.Sources{Tar: &b})
}
