//go:build docker

package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// probeImage has a shell.
const probeImage = "agent-sandbox:dev"

func probing(t *testing.T) (*Engine, string) {
	t.Helper()
	e, err := Connect(t.Context(), Config{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	img, err := e.Image(t.Context(), probeImage)
	if err != nil {
		t.Fatal(err)
	}
	return e, img.ID
}

// leaveNothing fails when the engine still has something of the run.
func leaveNothing(t *testing.T, e *Engine, run string) {
	t.Helper()
	left, err := e.leftovers(t.Context(), Label+"="+run)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the engine: %v, %v", left, err)
	}
}

// The probe runs what the image says: it must not have anything to do harm with.
func TestProbeHasNothing(t *testing.T) {
	e, image := probing(t)
	const run = "probe-has-nothing"
	script := `
cat /proc/self/status; echo "interfaces $(ls /sys/class/net | tr '\n' ' ')"; touch /tmp/x 2>/dev/null && echo WRITABLE
echo "mounts $(awk '$5 != "/" && $5 !~ "^/(proc|sys|dev)(/|$)" && $5 !~ "^/etc/(hosts|hostname|resolv.conf)$"' /proc/self/mountinfo | wc -l)"; echo "env $ASKED"; id -u`
	out, err := e.Probe(t.Context(), Probe{Run: run, Image: image, Argv: []string{"/bin/sh", "-c", script}, Env: []string{"ASKED=yes"}})
	if err != nil {
		t.Fatal(err)
	}
	got := string(out)
	for _, want := range []string{
		"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "interfaces lo ", "mounts 0", "env yes", "\n65534\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "WRITABLE") {
		t.Error("the probe could write")
	}
	leaveNothing(t, e, run)
}

func TestProbeBounds(t *testing.T) {
	e, image := probing(t)
	ask := func(ctx context.Context, run string, argv ...string) error {
		_, err := e.Probe(ctx, Probe{Run: run, Image: image, Argv: argv})
		leaveNothing(t, e, run)
		return err
	}
	if err := ask(t.Context(), "probe-flood", "/bin/sh", "-c", "yes"); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a flood of output: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := ask(ctx, "probe-hangs", "/bin/sh", "-c", "exec sleep 600"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that does not end: %v", err)
	}
	if err := ask(t.Context(), "probe-absent", "/absent"); !errors.Is(err, ErrNoProgram) {
		t.Errorf("a program that is not there: %v", err)
	}
}
