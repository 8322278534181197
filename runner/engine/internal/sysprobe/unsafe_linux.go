package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl takes a request wider than the kernel's 32 bits, which x/sys/unix does not pass on.
func ioctl(fd uintptr, request uint64, arg *[64]byte) error {
	return errnoErr(syscall.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(unsafe.Pointer(arg))))
}

func installFilter(prog *unix.SockFprog) error {
	const setModeFilter = 1
	return errnoErr(syscall.Syscall(unix.SYS_SECCOMP, setModeFilter, 0, uintptr(unsafe.Pointer(prog))))
}
