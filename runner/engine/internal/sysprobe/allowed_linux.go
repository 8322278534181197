package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// allowed are calls that tools cannot do without; they show that a denial is of the call, and not of everything.
func allowed() []attempt {
	ok := []string{"ok"}
	return []attempt{
		{"fork and exec", ok, func() (string, error) { return "", exec.Command("/proc/self/exe", "list").Run() }},
		{"ptrace own child", ok, traceChild},
		{"memfd_create", ok, func() (string, error) {
			_, err := unix.MemfdCreate("sysprobe", unix.MFD_CLOEXEC)
			return "", err
		}},
		{"personality, ask", ok, func() (string, error) {
			return "", errnoErr(syscall.Syscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0))
		}},
		{"personality, no address randomisation", []string{"EPERM"}, func() (string, error) {
			const addrNoRandomize = 0x40000
			return "", errnoErr(syscall.Syscall(unix.SYS_PERSONALITY, addrNoRandomize, 0, 0))
		}},
		{"landlock version", ok, func() (string, error) {
			const version = 1
			v, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
			if errno != 0 {
				return "", errno
			}
			return fmt.Sprint("ABI ", v), nil
		}},
		{"a seccomp filter of its own", ok, ownFilter},
		{"process_vm_readv of itself", []string{"EFAULT"}, func() (string, error) {
			// One vector at an invalid address: the answer of a kernel that takes the call.
			return "", errnoErr(syscall.Syscall6(unix.SYS_PROCESS_VM_READV, uintptr(os.Getpid()), bad, 1, bad, 1, 0))
		}},
	}
}

// traceChild starts a child under ptrace, as debuggers do, and lets it end.
func traceChild() (string, error) {
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", "list")
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	// The first stop is the one after exec.
	if _, err := syscall.Wait4(cmd.Process.Pid, nil, 0, nil); err != nil {
		return "", err
	}
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(cmd.Process.Pid, &regs); err != nil {
		return "", err
	}
	return "", cmd.Process.Kill()
}

// ownFilter installs a filter that allows everything, as a nested sandbox would install a stricter one.
func ownFilter() (string, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return "", err
	}
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	return "", installFilter(&unix.SockFprog{Len: 1, Filter: &allow})
}
