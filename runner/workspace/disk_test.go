package workspace

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiskGuard(t *testing.T) {
	upper := t.TempDir()
	if err := os.MkdirAll(filepath.Join(upper, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(upper, "a", "b", "file"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		guard diskGuard
		want  string // in the reason; "" for none
	}{
		{"all is well", diskGuard{limit: 64 << 20, upper: upper, watched: []watched{{dir: upper, reserve: 1, inodeReserve: 1}}}, ""},
		{"too much written", diskGuard{limit: 1 << 19, upper: upper}, "more than the 512KiB of disk"},
		{"the disk is full", diskGuard{limit: 64 << 20, watched: []watched{{dir: upper, reserve: math.MaxInt64}}}, "less than the reserve"},
		{"no inodes", diskGuard{limit: 64 << 20, watched: []watched{{dir: upper, inodeReserve: math.MaxInt64}}}, "more files"},
		{"the directory is gone", diskGuard{limit: 64 << 20, watched: []watched{{dir: filepath.Join(t.TempDir(), "absent"), reserve: math.MaxInt64}}}, ""},
	} {
		err := tt.guard.look(t.Context())
		var full *DiskError
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (!errors.As(err, &full) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

func TestDiskReserve(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct{ size, want int64 }{{10 * gib, gib}, {100 * gib, 2 * gib}, {4000 * gib, 5 * gib}, {gib, gib}} {
		if got := reserveOf(tt.size); got != tt.want {
			t.Errorf("reserveOf(%d) = %d, want %d", tt.size, got, tt.want)
		}
	}
}

// A sparse file takes no disk, whatever its size says.
func TestDiskCountsBlocks(t *testing.T) {
	upper := t.TempDir()
	f, err := os.Create(filepath.Join(upper, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<40), f.Close()); err != nil {
		t.Fatal(err)
	}
	g := diskGuard{limit: 1 << 20, upper: upper}
	if got := g.used(t.Context()); got > 1<<20 {
		t.Errorf("a sparse file counts %d bytes", got)
	}
}
