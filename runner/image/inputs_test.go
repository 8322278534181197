package image

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

type files map[string]string

func writeFiles(t *testing.T, dir string, list files) {
	t.Helper()
	for name, text := range list {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readInputs(t *testing.T, dir string, args map[string]string) *Inputs {
	t.Helper()
	in, err := ReadInputs(Source{
		File: filepath.Join(dir, "Dockerfile"), Args: args,
		Hidden: func(name string, _ bool) bool { return filepath.Base(name) == ".env" },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	return in
}

func sample() files {
	return files{
		"Dockerfile": "FROM a:1\nCOPY src *.txt /x/\n", "src/a": "a", "src/deep/b": "b", "note.txt": "n", "README": "not copied",
		"src/.env": "SECRET=1", ".dockerignore": "src/out\n", "src/out/o": "ignored", ".git/config": "x",
	}
}

// TestInputsContext: what is sent is what the Dockerfile copies, without secrets, and the same whatever the checkout.
func TestInputsContext(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, sample())
	in := readInputs(t, dir, nil)
	var archive bytes.Buffer
	at := time.Unix(1e9, 0)
	if err := in.writeContext(&archive, at, in.built.source, nil); err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(&archive); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(at) || h.Uid != 0 {
			t.Errorf("%s has the time %s and the owner %d", h.Name, h.ModTime, h.Uid)
		}
		names = append(names, h.Name)
	}
	want := []string{dockerfileName, "note.txt", "src/", "src/a", "src/deep/", "src/deep/b"}
	if !slices.Equal(names, want) {
		t.Errorf("the context has %q, want %q", names, want)
	}
}

func TestInputsDigest(t *testing.T) {
	digest := func(args map[string]string, change func(dir string)) string {
		dir := t.TempDir()
		writeFiles(t, dir, sample())
		change(dir)
		return readInputs(t, dir, args).Digest()
	}
	same := digest(nil, func(string) {})
	for name, tt := range map[string]struct {
		args   map[string]string
		change func(dir string)
		differ bool
	}{
		"another time":      {nil, func(dir string) { _ = os.Chtimes(filepath.Join(dir, "src/a"), time.Time{}, time.Unix(7, 0)) }, false},
		"another umask":     {nil, func(dir string) { _ = os.Chmod(filepath.Join(dir, "src/a"), 0o600) }, false},
		"what isn't copied": {nil, func(dir string) { writeFiles(t, dir, files{"README": "other"}) }, false},
		"a secret":          {nil, func(dir string) { writeFiles(t, dir, files{"src/.env": "other"}) }, false},
		"content":           {nil, func(dir string) { writeFiles(t, dir, files{"src/a": "b"}) }, true},
		"executable":        {nil, func(dir string) { _ = os.Chmod(filepath.Join(dir, "src/a"), 0o755) }, true},
		"a new file":        {nil, func(dir string) { writeFiles(t, dir, files{"src/new": ""}) }, true},
		"the Dockerfile":    {nil, func(dir string) { writeFiles(t, dir, files{"Dockerfile": "FROM a:1\nCOPY src *.txt /y/\n"}) }, true},
		"an argument":       {map[string]string{"A": "1"}, func(string) {}, true},
		"a link for the file": {nil, func(dir string) {
			_ = os.Remove(filepath.Join(dir, "src/a"))
			_ = os.Symlink("deep/b", filepath.Join(dir, "src/a"))
		}, true},
	} {
		if got := digest(tt.args, tt.change); (got != same) != tt.differ {
			t.Errorf("%s: the digest differs %v, want %v", name, got != same, tt.differ)
		}
	}
}

// TestInputsChange: a file that changes between hashing and sending is not sent under the old digest.
func TestInputsChange(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, sample())
	in := readInputs(t, dir, nil)
	writeFiles(t, dir, files{"src/a": "b"})
	if err := in.writeContext(io.Discard, time.Unix(0, 0), nil, nil); err == nil {
		t.Error("a file that changed was sent")
	}
}

// TestInputsOutside: a link that leads out of the context is sent as a link, never as what it leads to.
func TestInputsOutside(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, files{"Dockerfile": "FROM a:1\nCOPY . /x\n"})
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	for _, f := range readInputs(t, dir, nil).Files {
		if f.Path == "out" && (f.Link != "/etc/passwd" || f.SHA256 != "") {
			t.Errorf("the link is %+v", f)
		}
	}
}
