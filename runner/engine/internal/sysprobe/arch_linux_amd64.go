package main

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// int80 makes a system call by the 32-bit entry of the kernel, with i386 numbers; a 64-bit program
// can do that at any time. It returns what the kernel does: a negative errno, or the result.
//
//go:noescape
func int80(nr, a1, a2, a3, a4, a5 uint32) int32

// x32Bit marks a call of the x32 ABI. The profile leaves that architecture out, and libseccomp
// kills callers of architectures that are left out.
const x32Bit = 0x40000000

// archCalls are the calls that only x86 has, and the ways round the filter by the two other
// entries of an x86 kernel.
func archCalls() []attempt {
	var all []attempt
	for _, c := range []call{
		{"create_module", unix.SYS_CREATE_MODULE, [6]uintptr{bad}},
		{"query_module", unix.SYS_QUERY_MODULE, [6]uintptr{bad}},
		{"get_kernel_syms", unix.SYS_GET_KERNEL_SYMS, [6]uintptr{}},
		{"_sysctl", unix.SYS__SYSCTL, [6]uintptr{bad}},
		{"sysfs", unix.SYS_SYSFS, [6]uintptr{99}},
		{"ustat", unix.SYS_USTAT, [6]uintptr{bad, bad}},
		{"uselib", unix.SYS_USELIB, [6]uintptr{bad}},
		{"iopl", unix.SYS_IOPL, [6]uintptr{99}},
		{"ioperm", unix.SYS_IOPERM, [6]uintptr{bad, 1}},
		{"modify_ldt", unix.SYS_MODIFY_LDT, [6]uintptr{}},
	} {
		all = append(all, c.attempt())
	}
	all = append(all,
		attempt{"x32 getpid", []string{"SIGSYS"}, func() (string, error) { return viaX32(unix.SYS_GETPID, 0) }},
		attempt{"x32 mount", []string{"SIGSYS"}, func() (string, error) { return viaX32(unix.SYS_MOUNT, bad) }},
		attempt{"socketcall", []string{"ENOSYS"}, func() (string, error) { return viaInt80(102, 99) }},
		attempt{"int80 socketcall connect", []string{"ENOSYS"}, func() (string, error) { return viaInt80(102, 3, 0) }},
		attempt{"int80 getpid", []string{"ok"}, func() (string, error) { return viaInt80(20) }},
		attempt{"int80 clone NEWUSER", []string{"EPERM"}, cloneByInt80},
	)
	for _, s := range []struct {
		name        string
		family, typ uint32
	}{
		{"int80 socketcall AF_VSOCK", unix.AF_VSOCK, unix.SOCK_STREAM},
		{"int80 socketcall AF_PACKET", unix.AF_PACKET, unix.SOCK_RAW},
		{"int80 socketcall AF_UNIX", unix.AF_UNIX, unix.SOCK_STREAM},
	} {
		all = append(all, attempt{s.name, []string{"ENOSYS"}, func() (string, error) { return socketcall(s.family, s.typ, 0) }})
	}
	for _, c := range calls32() {
		want := []string{c.strict}
		if c.strict == "EPERM" && c.args[0] >= firstYoung {
			want = append(want, "ENOSYS")
		}
		all = append(all, attempt{c.name, want, func() (string, error) { return viaInt80(c.args...) }})
	}
	for i, a := range all {
		if a.name == "socketcall" || strings.HasPrefix(a.name, "int80 ") || slices.ContainsFunc(calls32(), func(c call32) bool { return c.name == a.name }) {
			all[i].strict = append(a.strict, unix.SignalName(noEntry))
		}
	}
	return all
}

type call32 struct {
	name   string
	strict string
	args   []uint32 // the i386 number, and the arguments
}

func calls32() []call32 {
	const none = ^uint32(0)
	return []call32{
		{"umount", "EPERM", []uint32{22, none}}, // these five exist only in 32 bits
		{"stime", "EPERM", []uint32{25, none}},
		{"clock_settime64", "EPERM", []uint32{404, 99, none}},
		{"vm86", "EPERM", []uint32{166, 99}},
		{"vm86old", "EPERM", []uint32{113, none}},
		{"int80 mount", "EPERM", []uint32{21, none, none, none}},
		{"int80 unshare NEWNET", "EPERM", []uint32{310, unix.CLONE_NEWNET}},
		{"int80 setns", "EPERM", []uint32{346, none}},
		{"int80 keyctl", "EPERM", []uint32{288, 9999}},
		{"int80 bpf", "EPERM", []uint32{357, 9999}},
		{"int80 userfaultfd", "EPERM", []uint32{374, 0xffff}},
		{"int80 open_by_handle_at", "EPERM", []uint32{342, none, none}},
		{"int80 io_uring_setup", "EPERM", []uint32{425, 1, none}},
		{"int80 clone3", "ENOSYS", []uint32{435, 0, 0}},
		{"int80 socket AF_VSOCK", "EAFNOSUPPORT", []uint32{359, unix.AF_VSOCK, unix.SOCK_STREAM}},
		{"int80 socket AF_PACKET", "EAFNOSUPPORT", []uint32{359, unix.AF_PACKET, unix.SOCK_RAW}},
		{"int80 socketpair AF_VSOCK", "EPERM", []uint32{360, unix.AF_VSOCK, unix.SOCK_STREAM}},
		{"int80 socket AF_UNIX", "ok", []uint32{359, unix.AF_UNIX, unix.SOCK_STREAM}},
		{"int80 ioctl TIOCSTI", "EPERM", []uint32{54, none, unix.TIOCSTI}},
		{"int80 ioctl TCGETS", "EBADF", []uint32{54, none, unix.TCGETS}},
	}
}

// noEntry is the answer of a kernel without a 32-bit entry (CONFIG_IA32_EMULATION, or ia32_emulation=off): int 0x80 is a general
// protection fault there. No filter answers so, and no call was made.
const noEntry = unix.SIGSEGV

// enter32 is int80, or killed for noEntry.
func enter32(a [6]uint32) (r int32, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = killed{noEntry}
		}
	}()
	return int80(a[0], a[1], a[2], a[3], a[4], a[5]), nil
}

func viaInt80(args ...uint32) (string, error) {
	var a [6]uint32
	copy(a[:], args)
	r, err := enter32(a)
	if err != nil {
		return "", err
	}
	if r < 0 {
		return "", syscall.Errno(-r)
	}
	return fmt.Sprint("returned ", r), nil
}

// socketcall makes socketcall(SYS_SOCKET, {family, typ, proto}), whose arguments have to lie below 4 GiB.
func socketcall(family, typ, proto uint32) (string, error) {
	const sysSocket = 1
	low, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_32BIT)
	if err != nil {
		return "", fmt.Errorf("map memory below 4 GiB: %v", err)
	}
	for i, v := range []uint32{family, typ, proto} {
		binary.LittleEndian.PutUint32(low[4*i:], v)
	}
	return viaInt80(102, sysSocket, uint32(uintptr(unsafe.Pointer(&low[0]))))
}

// viaX32 makes the call in a process of one thread: the filter kills a thread, and a program of
// several would only hang.
func viaX32(nr, arg uintptr) (string, error) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return "", fmt.Errorf("fork: %v", errno)
	}
	if pid == 0 {
		_, _, errno := syscall.RawSyscall(x32Bit|nr, arg, arg, arg)
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(int(pid), &status, 0, nil); err != nil {
		return "", fmt.Errorf("wait: %v", err)
	}
	switch {
	case status.Signaled():
		return "", killed{status.Signal()}
	case status.ExitStatus() != 0:
		return "", syscall.Errno(status.ExitStatus())
	}
	return "", nil
}

func cloneByInt80() (string, error) {
	r, err := enter32([6]uint32{120, unix.CLONE_NEWUSER | uint32(unix.SIGCHLD)})
	if err != nil {
		return "", err
	}
	if r == 0 { // the child: a copy of one thread of a Go program can do nothing but end
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	if r < 0 {
		return "", syscall.Errno(-r)
	}
	return "a process in a new user namespace", nil
}
