package workspace

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// Set-up without Hide, and reading three changes back, must not depend on the size of the project.
func BenchmarkPrepareAndExtract(b *testing.B) {
	for _, files := range []int{100, 100_000} {
		project := largeProject(b, files)
		cfg := Config{
			Project: project, Mode: policy.ModeOverlay, UID: os.Geteuid(), GID: os.Getegid(), Hide: matcherOf(b),
			Engine: Engine{Local: true, SharesPIDs: true},
		}
		b.Run(fmt.Sprintf("prepare/files=%d", files), func(b *testing.B) {
			for b.Loop() {
				cfg.StateDir = b.TempDir()
				v, err := Prepare(b.Context(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				if err := v.Discard(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("extract/files=%d", files), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				cfg.StateDir = b.TempDir()
				v, err := Prepare(b.Context(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				populate(b, filepath.Join(v.upper(), "pkg00", "node_modules", "dir0000"), "file00.js=changed", "new=new", "file01.js@file00.js")
				b.StartTimer()
				cs, err := v.Extract(b.Context(), Sources{Xattrs: fakeXattrs{}})
				if err != nil || len(cs.Changes) != 3 {
					b.Fatal(describe(cs), err)
				}
			}
		})
	}
}
