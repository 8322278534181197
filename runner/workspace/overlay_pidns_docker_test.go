//go:build docker

package workspace

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestListenElsewhere listens on a socket, in a process of another pid namespace.
func TestListenElsewhere(t *testing.T) {
	socket := os.Getenv("WORKSPACE_TEST_SOCKET")
	if socket == "" {
		t.Skip("started by TestSharesPIDsWithNoOtherNamespace")
	}
	if _, err := net.Listen("unix", socket); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("\nlistening\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// The descriptor numbers of our /proc would name directories of other processes there.
func TestSharesPIDsWithNoOtherNamespace(t *testing.T) {
	for _, flags := range []uintptr{0, syscall.CLONE_NEWPID} {
		socket := filepath.Join(t.TempDir(), "s")
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestListenElsewhere$")
		cmd.Env = append(os.Environ(), "WORKSPACE_TEST_SOCKET="+socket)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(stdout); lines.Scan() && lines.Text() != "listening"; {
		}
		if got, want := SharesPIDs(socket), flags == 0; got != want {
			t.Errorf("clone flags %#x: SharesPIDs = %t, want %t", flags, got, want)
		}
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}
