package workspace

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/policy"
)

// BenchmarkExtractMany reads back 50,000 new files, as after the agent's exit: contents, patch and change set.
func BenchmarkExtractMany(b *testing.B) {
	const dirs, files = 500, 100
	cfg := Config{
		Project: b.TempDir(), Mode: policy.ModeOverlay, UID: os.Geteuid(), GID: os.Getegid(), Hide: matcherOf(b), Engine: Engine{Local: true, SharesPIDs: true},
	}
	var cpu time.Duration
	for b.Loop() {
		b.StopTimer()
		cfg.StateDir = b.TempDir()
		v, err := Prepare(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		for d := range dirs {
			dir := filepath.Join(v.upper(), fmt.Sprintf("d%d", d))
			if err := os.Mkdir(dir, 0o755); err != nil {
				b.Fatal(err)
			}
			for f := range files {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", f)), fmt.Appendf(nil, "line %d %d\n", d, f), 0o644); err != nil {
					b.Fatal(err)
				}
			}
		}
		began := cpuTime(b)
		b.StartTimer()
		cs, err := v.Extract(b.Context(), Sources{Xattrs: fakeXattrs{}, Keep: true})
		if err != nil || len(cs.Changes) != dirs*(files+1) {
			b.Fatal(len(cs.Changes), err)
		}
		if err := SavePatch(b.Context(), cfg.StateDir, cs, PatchConfig{Blobs: v.Blobs(cs)}); err != nil {
			b.Fatal(err)
		}
		if err := cs.Save(cfg.StateDir); err != nil {
			b.Fatal(err)
		}
		cpu += cpuTime(b) - began
	}
	b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
}

// cpuTime is what this process took of all processors, which a busy machine does not alter much.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
