package policy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// Small images have no bash: their sh does, and gets the task whole.
func TestShellOf(t *testing.T) {
	for _, have := range []string{"sh", "bash"} {
		bin := t.TempDir()
		for _, name := range []string{"sh", have} {
			at, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("this machine has no %s", name)
			}
			if err := os.Symlink(at, filepath.Join(bin, name)); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
		}
		argv := append(policy.ShellOf(), "-c", `echo "$0 'a  b'"; exit 3`)
		cmd := exec.Command(filepath.Join(bin, argv[0]), argv[1:]...)
		cmd.Env = []string{"PATH=" + bin}
		out, err := cmd.Output()
		if got, want := string(out), have+" 'a  b'\n"; got != want || cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("with %s: %q, %v; want %q and exit status 3", have, got, err, want)
		}
	}
}
