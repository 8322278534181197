package credential

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps the console's signals away from the command; its end is brought about by killing it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
