package workspace

import "os/exec"

// runAs does nothing: here nobody is root, and no caller asks for another user.
func runAs(*exec.Cmd, IDs) {}
