package guest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDefaultSignals: in a process of its own, since the dispositions belong to all of it.
func TestDefaultSignals(t *testing.T) {
	const child = "DEFAULT_SIGNALS_CHILD"
	if os.Getenv(child) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestDefaultSignals$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	// 32 is the C library's own, and what one CI system leaves ignored; 64 is the last.
	for _, sig := range []uintptr{uintptr(unix.SIGHUP), uintptr(unix.SIGPIPE), 32, 64} {
		if err := rtSigaction(sig, &sigaction{handler: signalIgnored}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := ignoredSignals(t), "8000000080001001"; got != want {
		t.Fatalf("the control: SigIgn is %s, want %s", got, want)
	}
	if err := defaultSignals(); err != nil {
		t.Fatal(err)
	}
	if got, want := ignoredSignals(t), strings.Repeat("0", 16); got != want {
		t.Errorf("SigIgn is %s, want %s", got, want)
	}
}

func ignoredSignals(t *testing.T) string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "SigIgn:\t")
	mask, _, _ := strings.Cut(rest, "\n")
	return mask
}
