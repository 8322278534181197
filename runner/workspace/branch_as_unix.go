//go:build unix

package workspace

import (
	"os/exec"
	"syscall"
)

// runAs makes a command run as another user, without any further groups.
func runAs(cmd *exec.Cmd, who IDs) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(who.UID), Gid: uint32(who.GID)}}
}
