//go:build docker

package runner

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/engine"
)

const (
	// noFilter is a sandbox without a system call filter.
	noFilter = "no filter"
	// guestOpen is one whose guest does not hide, and has the agent's user ids.
	guestOpen = "guest open"
	// guestOpenNoFilter is both.
	guestOpenNoFilter = "guest open, no filter"
	// leaky is one with things of the host in it, and other protections that have nothing to do with each other left out.
	leaky = "leaky"
	// privileged is one in which nothing protects the host, but for the agent's own process and network namespaces.
	privileged = "privileged"
	// onHost is no sandbox.
	onHost = "outside"
)

func hostSetups(l *lab) []setup {
	devices := hostDevices()
	var sockets []engine.Mount
	if l.socket != "" {
		sockets = append(sockets, engine.Mount{Source: l.socket, Target: "/run/docker.sock"})
	}
	return []setup{
		weak(noFilter, "", nil, engine.Weakened{Unconfined: true}),
		weak(guestOpen, "", []string{"hide", "guard"}, engine.Weakened{}),
		weak(guestOpenNoFilter, "", []string{"hide", "guard"}, engine.Weakened{Unconfined: true}),
		weak(leaky, "", []string{"oom"}, engine.Weakened{
			HostIPC: true, CoreFiles: true, Mounts: []engine.Mount{{Source: l.dir + "/elsewhere", Target: "/elsewhere"}},
		}),
		weak(privileged, "user: root\n", []string{"capabilities", "guard", "hide", "no_new_privs"}, engine.Weakened{
			Capabilities: true, Unconfined: true, NewPrivileges: true, SystemPaths: true, WritableRoot: true, WritableGuest: true,
			Devices: devices, Mounts: sockets,
		}),
	}
}

// hostDevices are device nodes of this host that no sandbox may have.
func hostDevices() []string {
	var have []string
	for _, name := range []string{"/dev/kmsg", "/dev/mem", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/vsock", rootDevice()} {
		if _, err := os.Stat(name); name != "" && err == nil {
			have = append(have, name)
		}
	}
	return have
}

// rootDevice is the block device of the root file system, empty if there is no node of it.
func rootDevice() string {
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		return ""
	}
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return ""
	}
	for _, e := range entries {
		var d unix.Stat_t
		if err := unix.Stat("/dev/"+e.Name(), &d); err == nil && d.Mode&unix.S_IFMT == unix.S_IFBLK && d.Rdev == st.Dev {
			return "/dev/" + e.Name()
		}
	}
	return ""
}

func TestEscapeHost(t *testing.T) {
	l := testLab(t)
	key := hostSegment(t)
	if err := os.MkdirAll(l.dir+"/elsewhere", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.dir+"/elsewhere/secret", []byte("of another run"), 0o644); err != nil {
		t.Fatal(err)
	}
	l.run(t, "host", hostAttackTable(l, key), hostSetups(l))
}

func hostAttackTable(l *lab, ipcKey string) []attack {
	var all []attack
	all = append(all, guestAttacks()...)
	all = append(all, kernelAttacks()...)
	all = append(all, deviceAttacks()...)
	all = append(all, leakAttacks(l, ipcKey)...)
	return append(all, mountAttacks()...)
}

// guestAttacks are on process 1, which holds the link to the runner.
func guestAttacks() []attack {
	const by = "another user's and undumpable guest"
	all := []attack{
		{name: "signalling the guest", op: "signal", args: []string{"1"}, refused: refusals("EPERM"), by: by, control: "control: a signal to a child", off: guestOpen},
		{name: "signalling the guest by pidfd", op: "pidfd_signal", args: []string{"1"}, refused: refusals("EPERM"), by: by, control: "control: a signal to a child", off: guestOpen},
		{name: "tracing the guest", op: "trace", args: []string{"1"}, refused: refusals("EPERM"), by: by, control: "control: own child", off: guestOpen},
		{name: "reading the guest's memory", op: "vm_readv", args: []string{"1"}, refused: refusals("EPERM"), by: by, control: "control: own child", off: guestOpen, leaks: refusals("ok", "EFAULT")},
		{name: "writing the guest's memory", op: "vm_writev", args: []string{"1"}, refused: refusals("EPERM"), by: by, control: "control: own child", off: guestOpen, leaks: refusals("EFAULT")},
		{name: "the guest's limits", op: "prlimit", args: []string{"1"}, refused: refusals("EPERM"), by: by, off: guestOpen},
		{name: "taking the guest's descriptors", op: "pidfd_getfd", args: []string{"1"}, refused: refusals("EPERM"), by: by + ", seccomp", off: guestOpenNoFilter},
		{name: "comparing with the guest (kcmp)", op: "kcmp", args: []string{"1"}, refused: refusals("EPERM"), by: by + ", seccomp", off: guestOpenNoFilter},
		{name: "joining the guest's namespaces", op: "setns", args: []string{"/proc/1/ns/net"}, refused: refusals("EACCES", "EPERM"), by: by + ", seccomp", off: privileged},
	}
	for _, name := range []string{"environ", "auxv", "maps", "mem"} {
		all = append(all, attack{
			name: "reading /proc/1/" + name, op: "open", args: []string{"/proc/1/" + name, "r"}, refused: refusals("EACCES", "EPERM"),
			by: by, control: "control: a proc file", off: guestOpen,
		})
	}
	for _, name := range []string{"root", "cwd", "exe", "fd/0"} {
		all = append(all, attack{
			name: "following /proc/1/" + name, op: "readlink", args: []string{"/proc/1/" + name}, refused: refusals("EACCES", "EPERM"),
			by: by, control: "control: a proc file", off: guestOpen,
		})
	}
	return append(all,
		attack{
			name: "writing to the guest's memory file", op: "open", args: []string{"/proc/1/mem", "w"}, refused: refusals("EACCES", "EPERM"),
			by: by, off: guestOpen,
		},
		attack{
			name: "writing frames to the guest's output", op: "open", args: []string{"/proc/1/fd/1", "w"}, refused: refusals("EACCES", "EPERM"),
			by: by, control: "control: write", off: privileged,
		},
		attack{
			name: "overwriting the guest by its own file (as CVE-2019-5736)", op: "open", args: []string{"/proc/1/exe", "w"},
			refused: refusals("EACCES", "EPERM", "ETXTBSY"), by: by + ", read-only volume", off: privileged, leaks: refusals("ETXTBSY"),
		},
		attack{
			name: "planting a file beside the guest", op: "write", args: []string{"/.agent-sandbox/planted", "x"}, refused: refusals("EROFS", "EACCES"),
			by: "read-only volume", control: "control: write", off: privileged,
		},
		attack{
			name: "writing over the image's programs", op: "write", args: []string{"/usr/bin/planted", "x"}, refused: refusals("EROFS", "EACCES"),
			by: "read-only root", control: "control: write", off: privileged,
		},
		attack{
			name: "a new line in /etc/passwd", op: "append", args: []string{"/etc/passwd", ""}, refused: refusals("EROFS", "EACCES"),
			by: "read-only mount", control: "control: write", off: onHost,
		},
	)
}

// kernelAttacks are on what the host's kernel shares with every container.
func kernelAttacks() []attack {
	const by = "read-only /proc/sys, an ordinary user"
	all := []attack{
		{name: "another core_pattern", op: "open", args: []string{"/proc/sys/kernel/core_pattern", "w"}, refused: refusals("EACCES", "EROFS"), by: by, control: "control: write", off: privileged},
		{name: "another module loader", op: "open", args: []string{"/proc/sys/kernel/modprobe", "w"}, refused: refusals("EACCES", "EROFS", "ENOENT"), by: by, off: privileged, leaks: refusals("ok", "ENOENT")},
		{name: "the host's memory policy", op: "open", args: []string{"/proc/sys/vm/overcommit_memory", "w"}, refused: refusals("EACCES", "EROFS"), by: by, off: privileged},
		{name: "writing to /sys", op: "open", args: []string{"/sys/kernel/mm/transparent_hugepage/enabled", "w"}, refused: refusals("EACCES", "EROFS", "ENOENT"), by: "read-only /sys", off: onHost, leaks: refusals("ok", "ENOENT")},
		{name: "interrupts of the host", op: "open", args: []string{"/proc/irq/default_smp_affinity", "w"}, refused: refusals("EACCES", "EROFS", "ENOENT", "EIO"), by: by, off: privileged, leaks: refusals("ok", "ENOENT")},
		{name: "the kernel's log", op: "syslog", refused: refusals("EPERM"), by: "no capabilities, seccomp", off: privileged},
		{name: "the kernel's addresses", op: "kernel_bases", refused: refusals("EPERM"), by: "no CAP_SYSLOG", off: privileged},
		{name: "the host's name", op: "sethostname", refused: refusals("EPERM"), by: "no capabilities, seccomp", off: privileged},
		{name: "real-time priority", op: "renice", refused: refusals("EACCES", "EPERM"), by: "no capabilities", off: privileged},
		{name: "root's user id", op: "setuid", refused: refusals("EPERM"), by: "no capabilities", off: privileged, userOnly: true},
		{name: "root's groups", op: "setgroups", refused: refusals("EPERM"), by: "no capabilities", off: privileged},
		{name: "root of the host's file system by inode number (shocker)", op: "by_handle", args: []string{"/etc/hostname"}, refused: refusals("EPERM"), by: "no capabilities, seccomp", control: "control: a file", off: privileged},
		{name: "a key ring", op: "new_keyring", refused: refusals("EPERM", "ENOSYS"), by: "seccomp", off: noFilter, leaks: refusals("ok", "ENOSYS")},
		{name: "a user namespace", op: "clone_user", refused: refusals("EPERM"), by: "seccomp", off: noFilter},
	}
	// The control groups, whose release_agent is a program of the host's (CVE-2022-0492).
	for _, path := range []string{"/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/devices/devices.allow", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory.max"} {
		all = append(all, attack{
			name: "writing to " + path, op: "open", args: []string{path, "w"}, refused: refusals("EACCES", "EROFS", "ENOENT"), by: "read-only control groups", off: onHost,
			skip: missingHere(path),
		})
	}
	return all
}

// missingHere says that the kernel of this host has no such file. The engine's other hosts are like this one.
func missingHere(path string) string {
	if _, err := os.Stat(path); err != nil {
		return "this kernel has no " + path
	}
	return ""
}

func deviceAttacks() []attack {
	const by = "no CAP_MKNOD, device control group, seccomp"
	all := []attack{
		{name: "a device node in the workspace", op: "mknod", args: []string{"/workspace/kmsg", "c", "1", "11"}, refused: refusals("EPERM"), by: by, control: "control: a device", off: privileged, leaks: refusals("ok", "EACCES")},
		{name: "a device node in memory", op: "mknod", args: []string{"/dev/kmsg-too", "c", "1", "11"}, refused: refusals("EPERM"), by: by, control: "control: a device", off: privileged},
		{name: "a whiteout", op: "mknod", args: []string{"/tmp/whiteout", "c", "0", "0"}, refused: refusals("EPERM"), by: "seccomp", off: noFilter, leaks: refusals("EACCES"), strictOnly: true},
	}
	for _, name := range hostDevices() {
		all = append(all, attack{
			name: "opening " + name, op: "open", args: []string{name, "r"}, refused: refusals("ENOENT"), by: "a /dev of its own", control: "control: a device", off: privileged,
			leaks: refusals("ok", "EPERM", "EACCES", "EBUSY", "EBADFD"),
		})
	}
	return all
}

// leakAttacks look for what belongs to the host or to another run.
func leakAttacks(l *lab, ipcKey string) []attack {
	all := []attack{
		{name: "files of another run", op: "open", args: []string{"/elsewhere/secret", "r"}, refused: refusals("ENOENT"), by: "planned mounts alone", control: "control: a file", off: leaky},
		{name: "System V memory of the host", op: "shm", args: []string{ipcKey}, refused: refusals("ENOENT"), by: "an IPC namespace", off: leaky},
		{name: "a process of the host", op: "stat", args: []string{fmt.Sprintf("/proc/%d/status", os.Getpid())}, refused: refusals("ENOENT"), by: "a process namespace", control: "control: a proc file", off: onHost},
		{name: "a core file", op: "crash", args: []string{"/workspace"}, refused: refusals("ENOENT"), by: "limit of 0", control: "control: write", off: leaky, skip: piped()},
	}
	for _, path := range []string{"/run/docker.sock", "/var/run/docker.sock"} {
		a := attack{name: path, op: "unix", args: []string{path}, refused: refusals("ENOENT"), by: "planned mounts alone", control: "control: a unix socket", off: privileged}
		if l.socket == "" {
			a.skip = "the engine runs elsewhere"
		}
		all = append(all, a)
	}
	return all
}

// piped says that core files go to a program here, which no limit keeps from being run (core(5)).
func piped() string {
	b, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || strings.HasPrefix(string(b), "|") {
		return "core_pattern names a program of the host, or can't be read"
	}
	return ""
}

// hostSegment makes a System V segment on the engine's host, and returns its key.
func hostSegment(t *testing.T) string {
	t.Helper()
	const size, create = 4096, unix.IPC_CREAT | unix.IPC_EXCL | 0o666
	for key := 0x5eed; ; key++ {
		id, err := unix.SysvShmGet(key, size, create)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
		return strconv.Itoa(key)
	}
}

// mountAttacks change the view of files, and come last: where they succeed the rest would see another one.
func mountAttacks() []attack {
	var all []attack
	for _, a := range []struct {
		name, op string
		args     []string
	}{
		{"mounting a file system", "mount", []string{"none", "/tmp", "tmpfs"}},
		{"mounting another /proc", "mount", []string{"proc", "/home/agent", "proc"}},
		{"binding one directory to another", "bind", []string{"/workspace", "/run"}},
		{"making the root writable", "remount", []string{"/"}},
		{"uncovering what a mount hides", "umount", []string{"/etc/hosts"}},
		{"another root directory", "chroot", []string{"/workspace"}},
		{"another UTS namespace", "setns", []string{"/proc/self/ns/uts"}},
	} {
		all = append(all, attack{
			name: a.name, op: a.op, args: a.args, refused: refusals("EPERM"), by: "no capabilities, seccomp", off: privileged,
		})
	}
	return all
}
