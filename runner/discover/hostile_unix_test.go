//go:build unix

package discover

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The project is whatever an agent left there.
func TestFindInHostileProjects(t *testing.T) {
	outside := tree(t, "npmrc", "registry=https://outside.example\n")
	plant := map[string]func(name string) error{
		"a link out":       func(name string) error { return os.Symlink(filepath.Join(outside, "npmrc"), name) },
		"a pipe":           func(name string) error { return syscall.Mkfifo(name, 0o644) },
		"a directory":      func(name string) error { return os.Mkdir(name, 0o755) },
		"a large file":     func(name string) error { return os.WriteFile(name, []byte(strings.Repeat("#\n", maxFile)), 0o644) },
		"a link to itself": func(name string) error { return os.Symlink(filepath.Base(name), name) },
	}
	for what, make := range plant {
		dir := t.TempDir()
		if err := make(filepath.Join(dir, ".npmrc")); err != nil {
			t.Fatal(err)
		}
		r := find(t, Config{Bundles: load(t, "npm").UsedBundles(), Project: dir})
		if len(r.Found) > 0 || len(r.Skipped) != 1 || !strings.Contains(r.Skipped[0].Why, "can't be read") || r.Skipped[0].Source != "project: .npmrc" {
			t.Errorf("%s: found %v, skipped %v", what, r.Found, r.Skipped)
		}
	}
	inside := tree(t, "config/npmrc", "registry=https://inside.example\n")
	if err := os.Symlink("config/npmrc", filepath.Join(inside, ".npmrc")); err != nil {
		t.Fatal(err)
	}
	if r := find(t, Config{Bundles: load(t, "npm").UsedBundles(), Project: inside}); len(r.Found) != 1 {
		t.Errorf("a link within the project: %v, %v", r.Found, r.Skipped)
	}
}
