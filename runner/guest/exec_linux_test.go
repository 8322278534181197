package guest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestLookPath(t *testing.T) {
	dir := fixture(t, map[string]string{
		"first/tool": "", "second/tool": "", "second/other": "", "third/plain": "", "third/tool": "", "first/here/x": "",
	})
	for _, name := range []string{"first/tool", "second/tool", "second/other", "third/tool"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "first/other")); err != nil {
		t.Fatal(err)
	}
	path := func(dirs ...string) []string {
		for i, d := range dirs {
			dirs[i] = filepath.Join(dir, d)
		}
		return []string{"HOME=/", "PATH=" + strings.Join(dirs, ":")}
	}
	for _, tt := range []struct {
		name string
		env  []string
		want string
		err  error
	}{
		{"tool", path("first", "second"), "first/tool", nil},
		{"tool", path("absent", "second", "first"), "second/tool", nil},
		{"other", path("first", "second"), "second/other", nil}, // a dangling link is passed over
		{"here", path("first", "second"), "", exec.ErrNotFound}, // a directory
		{"plain", path("first", "third"), "", fs.ErrPermission},
		{"nothing", path("first", "second"), "", exec.ErrNotFound},
		{"tool", []string{"PATH="}, "", exec.ErrNotFound},
		{"tool", append(path("first"), "PATH="+filepath.Join(dir, "second")), "second/tool", nil}, // the last one counts, as in an environment
		{"./absent", nil, "./absent", nil},                                                        // not looked for: exec tells
		{"/absent", path("first"), "/absent", nil},
	} {
		got, err := lookPath(tt.name, tt.env)
		if !errors.Is(err, tt.err) {
			t.Errorf("lookPath(%q, %q): error %v, want %v", tt.name, tt.env, err, tt.err)
		}
		if got = strings.TrimPrefix(got, dir+"/"); got != tt.want {
			t.Errorf("lookPath(%q, %q) = %q, want %q", tt.name, tt.env, got, tt.want)
		}
	}
}

// TestLookPathRelative: what is found by a relative directory of PATH is not looked for again.
func TestLookPathRelative(t *testing.T) {
	dir := fixture(t, map[string]string{"tool": "", "sub/tool": ""})
	for _, name := range []string{"tool", "sub/tool"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for path, want := range map[string]string{"": "", ":/nowhere": "./tool", ".": "./tool", "sub": "./sub/tool"} {
		if got, _ := lookPath("tool", []string{"PATH=" + path}); got != want {
			t.Errorf("PATH=%q: %q, want %q", path, got, want)
		}
	}
}
