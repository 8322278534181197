package runner

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
)

func TestSourceRepository(t *testing.T) {
	for _, tt := range []struct {
		remote string
		want   event.SourceRepository
		ok     bool
	}{
		{"https://user:token@github.com/acme/shop.git", event.SourceRepository{Name: "acme/shop", URL: "https://github.com/acme/shop.git"}, true},
		{"https://github.com/acme/shop?token=x#y", event.SourceRepository{Name: "acme/shop", URL: "https://github.com/acme/shop"}, true},
		{"git@github.com:acme/shop.git", event.SourceRepository{Name: "acme/shop", URL: "github.com:acme/shop.git"}, true},
		{"ssh://git@example.org:22/a/b/c", event.SourceRepository{URL: "ssh://example.org:22/a/b/c"}, true},
		{"/home/dev/secret-project", event.SourceRepository{}, false},
		{`C:\Users\dev\shop`, event.SourceRepository{}, false},
		{"file:///home/dev/shop", event.SourceRepository{}, false},
		{"", event.SourceRepository{}, false},
	} {
		if got, ok := sourceRepository(tt.remote); got != tt.want || ok != tt.ok {
			t.Errorf("sourceRepository(%q) = %+v, %v, want %+v, %v", tt.remote, got, ok, tt.want, tt.ok)
		}
	}
}

// TestSourceState: a project that differs from its commit is told from another that differs otherwise.
func TestSourceState(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(dir, "none"))
	if s := SourceState(t.Context(), dir); s.Commit != "" || s.Dirty != nil {
		t.Errorf("no repository: %+v", s)
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "-q", "-b", "first")
	if h := readHead(t.Context(), dir); h != (head{ref: "refs/heads/first"}) {
		t.Errorf("before the first commit: %+v", h)
	}
	write("a file", "one")
	git("add", ".")
	git("commit", "-qm", "one")
	clean := SourceState(t.Context(), dir)
	if clean.Commit == "" || clean.Dirty == nil || *clean.Dirty || clean.DirtySHA256 != "" {
		t.Errorf("clean: %+v", clean)
	}
	seen := map[string]bool{}
	for _, change := range []func(){
		func() { write("a file", "two") },
		func() { write("a file", "three") },
		func() { write("new\nname", "x") },
		func() { write("new\nname", "y") },
		func() { _ = os.Remove(filepath.Join(dir, "a file")) },
		func() { _ = os.Symlink("/etc/passwd", filepath.Join(dir, "a file")) },
	} {
		change()
		s := SourceState(t.Context(), dir)
		if s.Dirty == nil || !*s.Dirty || s.DirtySHA256 == "" || seen[s.DirtySHA256] || s.DirtyFiles == 0 {
			t.Errorf("dirty: %+v", s)
		}
		seen[s.DirtySHA256] = true
	}
}
