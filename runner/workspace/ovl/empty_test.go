package ovl

import (
	"os"
	"path/filepath"
	"testing"
)

func TestEmpty(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"#c82a", "#c82b"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o000); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := Empty(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Errorf("not empty: %v", err)
	}
}

func TestEmptyRefuses(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	kept := filepath.Join(elsewhere, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "made"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{link, kept, filepath.Join(dir, "gone"), dir} {
		if err := Empty(d); err == nil {
			t.Errorf("Empty(%q): want an error", d)
		}
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("what a symlink led to: %v", err)
	}
}
