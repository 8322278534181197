package workspace

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

func TestHideMakesWhiteouts(t *testing.T) {
	dir := t.TempDir()
	populate(t, dir, "a/b/.env=s", "a/.env=s", "a/shown=1", ".ssh/id=s")
	when := time.Unix(1_600_000_000, 5)
	for p, mode := range map[string]fs.FileMode{"a/b": 0o750, "a": 0o555, ".": 0o711} {
		if err := os.Chmod(filepath.Join(dir, p), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, p), when, when); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "a"), 0o755) })
	v := prepare(t, Config{
		Project: dir, Mode: policy.ModeOverlay, UID: os.Geteuid(), GID: os.Getegid(), Hide: matcherOf(t, ".env", ".ssh/"),
		Engine: Engine{Local: true, SharesPIDs: true},
	})
	hidden, err := v.Hide(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".ssh", "a/.env", "a/b/.env"}, hidden); diff != "" {
		t.Errorf("hidden (-want +got):\n%s", diff)
	}
	for _, p := range hidden {
		info, err := os.Lstat(filepath.Join(v.upper(), p))
		if err != nil || !isWhiteout(info) {
			t.Errorf("%s: %v, %v, want a whiteout", p, info, err)
		}
	}
	for p, mode := range map[string]fs.FileMode{"a/b": 0o750, "a": 0o555, ".": 0o711} {
		info, err := os.Lstat(filepath.Join(v.upper(), p))
		if err != nil || info.Mode().Perm() != mode || !info.ModTime().Equal(when) {
			t.Errorf("%s: %v, %v, want the mode and time of the project's", p, info, err)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(v.upper(), "a")); len(entries) != 2 {
		t.Errorf("upper/a: %v, want the whiteout and b", entries)
	}
}
