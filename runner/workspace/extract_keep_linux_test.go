package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What an agent wrote is found by its digest after the run, where the agent wrote it.
func TestExtractKeepsContents(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20_000) // more than one buffer
	v := overlayOf(t, Config{}, []string{"moved=m", "touched=t", "chmod=c"}, []string{
		"d/a=one", "twice=one", "empty=", "long=" + long, "link@d/a", "moved!", "new=m", "touched=t", "chmod=c",
	})
	if err := os.Chmod(filepath.Join(v.upper(), "chmod"), 0o600); err != nil {
		t.Fatal(err)
	}
	cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, blobs := range []Blobs{v.Blobs(cs), cs.Blobs(v.cfg.StateDir)} { // with what is in memory, and without
		for path, want := range map[string]string{"d/a": "one", "twice": "one", "empty": "", "long": long} {
			sum := cs.Find(path).New.SHA256
			if got := readBlob(t, blobs, sum); got != want || sum != hashString(want) || !blobs.Has(sum) {
				t.Errorf("%s: %d bytes, digest %s", path, len(got), sum)
			}
		}
		for _, unchanged := range []string{"m", "t", "c"} {
			if blobs.Has(hashString(unchanged)) {
				t.Errorf("%q is kept, and the host has it", unchanged)
			}
		}
	}
	left := readTree(t, filepath.Join(v.cfg.StateDir, upperBlobs))
	for _, path := range []string{"new", "touched", "chmod"} {
		if _, found := left[path]; found {
			t.Errorf("%s takes room, and no change needs it", path)
		}
	}
	if _, err := os.Lstat(v.upper()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("upper: %v", err)
	}
}

// Nothing that stays in the run's directory could run as its owner.
func TestExtractDisarms(t *testing.T) {
	v := overlayOf(t, Config{}, nil, []string{"d/setuid=1", "setgid=2", "plain=3"})
	for p, mode := range map[string]os.FileMode{"d/setuid": 0o755 | os.ModeSetuid, "setgid": 0o755 | os.ModeSetgid, "plain": 0o755} {
		if err := os.Chmod(filepath.Join(v.upper(), p), mode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}}); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{"d/setuid": 0o600, "setgid": 0o600, "plain": 0o755} {
		if info, err := os.Stat(filepath.Join(v.cfg.StateDir, upperBlobs, p)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", p, info, err, want)
		}
	}
}

// Over the limits only what the change set has is kept, and the rest does not stay on the disk.
func TestExtractOverTheLimitsKeepsNoMore(t *testing.T) {
	v := overlayOf(t, Config{Limits: Limits{Bytes: 10}}, nil, []string{"a=12345", "b=12345", "c=1", "d=1"})
	cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
	var over *LimitError
	if !errors.As(err, &over) {
		t.Fatalf("got %v, want a *LimitError", err)
	}
	for i := range cs.Changes {
		contentOf(t, v, &cs.Changes[i], nil)
	}
	if _, err := os.Lstat(filepath.Join(v.cfg.StateDir, upperBlobs)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("all of upper is kept: %v", err)
	}
}

// Whatever a change set says, the store follows no link out of itself and waits for nobody.
func TestBlobsOfUpperStayInside(t *testing.T) {
	run, outside := t.TempDir(), t.TempDir()
	upper := filepath.Join(run, upperBlobs)
	populate(t, outside, "secret=s")
	populate(t, upper, "link@"+outside+"/secret", "dir@"+outside, "altered=x")
	if err := unix.Mkfifo(filepath.Join(upper, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"link", "dir/secret", "fifo", "missing", "../../secret"} {
		cs := &ChangeSet{Changes: []Change{{Path: path, Kind: Added, New: &Node{Type: File, SHA256: hashString("s")}}}}
		if blobs := cs.Blobs(run); blobs.Has(hashString("s")) {
			t.Errorf("%s: found", path)
		}
	}
	cs := &ChangeSet{Changes: []Change{{Path: "altered", Kind: Added, New: &Node{Type: File, SHA256: hashString("s")}}}}
	r, err := cs.Blobs(run).Open(hashString("s"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, ErrBlobDamaged) {
		t.Errorf("altered: %v", err)
	}
}

// Contents in memory are bounded; which ones are there makes no difference but time.
func TestRecentIsBounded(t *testing.T) {
	var r recent
	file := make([]byte, maxRecentFile)
	for i := range 2 * maxRecent / maxRecentFile {
		file[0] = byte(i)
		r.add(strings.Repeat("a", i), file)
	}
	r.add("large", make([]byte, maxRecentFile+1))
	if r.bytes != maxRecent || len(r.contents) != maxRecent/maxRecentFile || r.of("large") != nil {
		t.Errorf("%d bytes in %d files", r.bytes, len(r.contents))
	}
	if got := r.of("aa"); got == nil || got[0] != 2 {
		t.Error("what is added is not the caller's buffer any more")
	}
}

// A file that can't be read for its digest must not be taken for an empty one.
func TestOpenerRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	populate(t, dir, "file=abc", "link@file", "d/")
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	files, err := newOpener(root)
	if err != nil {
		t.Fatal(err)
	}
	defer files.close()
	for name, want := range map[string]bool{"file": true, "link": false, "fifo": false, "d": false, "none": false} {
		s := source{path: name}
		err := s.read(t.Context(), files, name, make([]byte, 2)) // less than the file
		if (err == nil) != want || want && (s.size != 3 || s.sum != hashString("abc")) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}
