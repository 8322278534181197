package main

import (
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// call is a system call with arguments that a permitted caller would get refused as invalid, so
// that the control run answers EINVAL, EFAULT or EBADF and nothing happens.
type call struct {
	name string
	nr   uintptr
	args [6]uintptr
}

const bad = ^uintptr(0) // no valid pointer, descriptor, flag word or length

// firstYoung is where system call numbers begin that an older libseccomp does not know by name:
// runc then answers ENOSYS, as it does for every number above the highest in the profile.
const firstYoung = 400

func (c call) attempt(strict ...string) attempt {
	if len(strict) == 0 {
		strict = []string{"EPERM"}
		if c.nr >= firstYoung {
			strict = append(strict, "ENOSYS")
		}
	}
	return attempt{c.name, strict, func() (string, error) {
		return "", errnoErr(syscall.Syscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5]))
	}}
}

func errnoErr(_, _ uintptr, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// deniedCalls are the calls that the profile denies by name, and that every architecture has.
func deniedCalls() []attempt {
	all := []attempt{
		call{"clone3", unix.SYS_CLONE3, [6]uintptr{}}.attempt("ENOSYS"),
		call{"statmount", unix.SYS_STATMOUNT, [6]uintptr{bad, bad, 0, bad}}.attempt("ENOSYS"),
		call{"listmount", unix.SYS_LISTMOUNT, [6]uintptr{bad, bad, 0, bad}}.attempt("ENOSYS"),
		call{"memfd_secret", unix.SYS_MEMFD_SECRET, [6]uintptr{0xff}}.attempt("ENOSYS"),
	}
	for _, c := range slices.Concat(kernelInterfaces(), mounts(), administration(), processes()) {
		all = append(all, c.attempt())
	}
	return all
}

func kernelInterfaces() []call {
	return []call{
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{1, bad}},
		{"io_uring_enter", unix.SYS_IO_URING_ENTER, [6]uintptr{bad}},
		{"io_uring_register", unix.SYS_IO_URING_REGISTER, [6]uintptr{bad, 99}},
		{"keyctl", unix.SYS_KEYCTL, [6]uintptr{9999}},
		{"add_key", unix.SYS_ADD_KEY, [6]uintptr{bad, bad, bad, 1}},
		{"request_key", unix.SYS_REQUEST_KEY, [6]uintptr{bad, bad, bad}},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{0xffff}},
		{"bpf", unix.SYS_BPF, [6]uintptr{9999}},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{bad}},
		{"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE, [6]uintptr{0, bad}},
	}
}

func mounts() []call {
	return []call{
		{"mount", unix.SYS_MOUNT, [6]uintptr{bad, bad, bad}},
		{"umount2", unix.SYS_UMOUNT2, [6]uintptr{bad, 0xffff}},
		{"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{bad, bad}},
		{"chroot", unix.SYS_CHROOT, [6]uintptr{bad}},
		{"fsopen", unix.SYS_FSOPEN, [6]uintptr{bad}},
		{"fsconfig", unix.SYS_FSCONFIG, [6]uintptr{bad, 99}},
		{"fsmount", unix.SYS_FSMOUNT, [6]uintptr{bad}},
		{"fspick", unix.SYS_FSPICK, [6]uintptr{bad, bad}},
		{"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{bad, bad, bad, bad}},
		{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{bad, bad}},
		{"open_tree_attr", unix.SYS_OPEN_TREE_ATTR, [6]uintptr{bad, bad, 0, bad}},
		{"mount_setattr", unix.SYS_MOUNT_SETATTR, [6]uintptr{bad, bad}},
		{"setns", unix.SYS_SETNS, [6]uintptr{bad}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{bad, bad}},
		{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, [6]uintptr{bad, bad, bad, bad}},
	}
}

func administration() []call {
	return []call{
		{"init_module", unix.SYS_INIT_MODULE, [6]uintptr{bad, 0, bad}},
		{"finit_module", unix.SYS_FINIT_MODULE, [6]uintptr{bad, bad}},
		{"delete_module", unix.SYS_DELETE_MODULE, [6]uintptr{bad}},
		{"kexec_load", unix.SYS_KEXEC_LOAD, [6]uintptr{0, 99, 0, 0xffff}},
		{"kexec_file_load", unix.SYS_KEXEC_FILE_LOAD, [6]uintptr{bad, bad, 0, 0, 0xffff}},
		{"reboot", unix.SYS_REBOOT, [6]uintptr{0, 0, 0}}, // without the magic numbers
		{"swapon", unix.SYS_SWAPON, [6]uintptr{bad}},
		{"swapoff", unix.SYS_SWAPOFF, [6]uintptr{bad}},
		{"acct", unix.SYS_ACCT, [6]uintptr{bad}}, // a null pointer would end accounting
		{"quotactl", unix.SYS_QUOTACTL, [6]uintptr{bad, bad}},
		{"quotactl_fd", unix.SYS_QUOTACTL_FD, [6]uintptr{bad}},
		{"syslog", unix.SYS_SYSLOG, [6]uintptr{99}},
		{"vhangup", unix.SYS_VHANGUP, [6]uintptr{}},
		{"nfsservctl", unix.SYS_NFSSERVCTL, [6]uintptr{}},
		{"settimeofday", unix.SYS_SETTIMEOFDAY, [6]uintptr{bad, bad}},
		{"clock_settime", unix.SYS_CLOCK_SETTIME, [6]uintptr{99, bad}},
		{"sethostname", unix.SYS_SETHOSTNAME, [6]uintptr{bad, bad}},
		{"setdomainname", unix.SYS_SETDOMAINNAME, [6]uintptr{bad, bad}},
	}
}

func processes() []call {
	return []call{
		{"kcmp", unix.SYS_KCMP, [6]uintptr{1, 1, 99}},
		{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [6]uintptr{bad}},
		{"process_madvise", unix.SYS_PROCESS_MADVISE, [6]uintptr{bad, bad, bad}},
		{"get_mempolicy", unix.SYS_GET_MEMPOLICY, [6]uintptr{0, 0, 0, 0, 99}},
		{"set_mempolicy", unix.SYS_SET_MEMPOLICY, [6]uintptr{99}},
		{"set_mempolicy_home_node", unix.SYS_SET_MEMPOLICY_HOME_NODE, [6]uintptr{1, 1, 1, 1}},
		{"mbind", unix.SYS_MBIND, [6]uintptr{1, 1, 99}},
		{"migrate_pages", unix.SYS_MIGRATE_PAGES, [6]uintptr{0, 64, bad, bad}},
		{"move_pages", unix.SYS_MOVE_PAGES, [6]uintptr{0, 0, 0, 0, 0, 0xff}},
		{"fanotify_init", unix.SYS_FANOTIFY_INIT, [6]uintptr{bad}},
		{"fanotify_mark", unix.SYS_FANOTIFY_MARK, [6]uintptr{bad, 1, 1, bad, bad}},
		{"vmsplice", unix.SYS_VMSPLICE, [6]uintptr{bad, bad, 1, 0xffff}},
		{"lsm_get_self_attr", unix.SYS_LSM_GET_SELF_ATTR, [6]uintptr{0, bad, bad, 0xff}},
		{"lsm_set_self_attr", unix.SYS_LSM_SET_SELF_ATTR, [6]uintptr{0, bad, 0, 0xff}},
		{"lsm_list_modules", unix.SYS_LSM_LIST_MODULES, [6]uintptr{bad, bad, 0xff}},
	}
}
