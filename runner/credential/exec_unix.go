//go:build !windows

package credential

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the command into a process group of its own, which is killed as a whole: the program may be a script.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
