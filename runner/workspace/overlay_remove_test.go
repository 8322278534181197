package workspace

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRemoveTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "upper")
	populate(t, dir, "a/b/c=x", "a/closed/file=x", "a/closed/dir/file=x", "empty/", "link@/etc", "0=a name that removing uses", "1/2/3=x")
	for _, p := range []string{"a/closed/dir", "a/closed", "empty", "."} {
		if err := os.Chmod(filepath.Join(dir, p), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeTree(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := removeTree(dir); err != nil {
		t.Errorf("of what is gone already: %v", err)
	}
}

// An agent makes this with mkdir and chdir in a loop; no path names the last directory.
func TestRemoveTreeOfAnyDepth(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "upper")
	deepen(t, dir, 5000)
	if err := removeTree(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// deepen makes dir with so many directories in each other, by wrapping: moving what there is into a new one.
func deepen(t *testing.T, dir string, levels int) {
	t.Helper()
	inner := dir + ".inner"
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	for range levels {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(inner, filepath.Join(dir, "d")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir, inner); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(inner, dir); err != nil {
		t.Fatal(err)
	}
}
