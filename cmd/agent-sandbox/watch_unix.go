//go:build !windows

package main

import (
	"os"
	"runtime"
	"syscall"
)

const rootDir = "/"

func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// ownProgram is this program, also after an update replaced its file.
func ownProgram() (string, error) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}
