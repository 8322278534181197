package main

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespaces tries every kind of namespace, by clone (as a child process of this program) and by
// unshare. clone cannot make a time namespace: its flag is part of the exit signal there.
func namespaces() []attempt {
	var all []attempt
	for _, n := range []struct {
		name string
		flag uintptr
	}{
		{"NEWNS", unix.CLONE_NEWNS},
		{"NEWCGROUP", unix.CLONE_NEWCGROUP},
		{"NEWUTS", unix.CLONE_NEWUTS},
		{"NEWIPC", unix.CLONE_NEWIPC},
		{"NEWUSER", unix.CLONE_NEWUSER},
		{"NEWPID", unix.CLONE_NEWPID},
		{"NEWNET", unix.CLONE_NEWNET},
		{"NEWTIME", unix.CLONE_NEWTIME},
	} {
		all = append(all, call{"unshare " + n.name, unix.SYS_UNSHARE, [6]uintptr{n.flag}}.attempt())
		if n.flag != unix.CLONE_NEWTIME {
			all = append(all, attempt{"clone " + n.name, []string{"EPERM"}, func() (string, error) { return startInNamespace(n.flag) }})
		}
	}
	// A user namespace gives the capabilities that the other flags need: asked for together, as
	// exploits do, and with bits that the kernel ignores set above the flags.
	both := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNET)
	all = append(all, attempt{"clone NEWUSER|NEWNET", []string{"EPERM"}, func() (string, error) { return startInNamespace(both) }})
	high := uintptr(1)<<40 | unix.CLONE_NEWUSER
	return append(all, attempt{"clone NEWUSER, high bits set", []string{"EPERM"}, func() (string, error) { return startInNamespace(high) }})
}

func startInNamespace(flags uintptr) (string, error) {
	cmd := exec.Command("/proc/self/exe", "list")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	// It may fail later, for instance to find /proc; it was in the namespace by then.
	_ = cmd.Wait()
	return "a process in a new namespace", nil
}
