package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

const rootDir = `C:\`

func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.DETACHED_PROCESS}
}

func ownProgram() (string, error) { return os.Executable() }
