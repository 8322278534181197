package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

func TestFindMatches(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	populate(t, outside, "far.pem=s")
	populate(t, dir, ".env=s", "a/.env=s", "a/b/c/k.pem=s", "a/pem=1", "keys/k.pem=s", "keys/deep/k.pem=s", ".git/x.pem=1", "node_modules/x/y/z.pem=1", "show.pem=1", "l.pem@a")
	if err := os.Symlink(outside, filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	got, err := findMatches(t.Context(), dir, matcherOf(t, ".env", "*.pem", "keys/", "!show.pem"), os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{".env", ".git/x.pem", "a/.env", "a/b/c/k.pem", "keys", "l.pem", "node_modules/x/y/z.pem"}
	if diff := cmp.Diff(want, paths(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFindMatchesEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := findMatches(ctx, t.TempDir(), matcherOf(t), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// What can't be looked through may hold what is to be hidden: fine only if the agent can't read it either.
func TestFindMatchesInClosedDirectories(t *testing.T) {
	if os.Geteuid() == 0 || runtime.GOOS == "windows" {
		t.Skip("no directory is closed to this user")
	}
	dir := t.TempDir()
	populate(t, dir, "closed/.env=s")
	if err := os.Chmod(filepath.Join(dir, "closed"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "closed"), 0o700) })
	if _, err := findMatches(t.Context(), dir, matcherOf(t, ".env"), os.Geteuid()); err != nil {
		t.Errorf("agent of the same user: %v", err)
	}
	if _, err := findMatches(t.Context(), dir, matcherOf(t, ".env"), 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("agent of another user: got %v, want fs.ErrPermission", err)
	}
}

// largeProject has so many files in directories of a hundred.
func largeProject(tb testing.TB, files int) string {
	tb.Helper()
	dir := tb.TempDir()
	for i := range files / 100 {
		d := filepath.Join(dir, fmt.Sprintf("pkg%02d", i%50), "node_modules", fmt.Sprintf("dir%04d", i))
		if err := os.MkdirAll(d, 0o755); err != nil {
			tb.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("file%02d.js", j)), nil, 0o644); err != nil {
				tb.Fatal(err)
			}
		}
	}
	populate(tb, dir, ".env=s", "pkg00/node_modules/deep.pem=s")
	return dir
}

func BenchmarkFindMatches(b *testing.B) {
	for _, files := range []int{100, 100_000} {
		dir := largeProject(b, files)
		hide := policy.NewPatternSet(policy.DefaultHide())
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				got, err := findMatches(b.Context(), dir, hide, os.Geteuid())
				if err != nil || len(got) != 2 {
					b.Fatal(got, err)
				}
			}
		})
	}
}
