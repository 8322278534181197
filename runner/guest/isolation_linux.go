package guest

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// tryIsolation does, with the agent's rights, what the agent must not be able to do. Nothing is changed by an attempt
// that succeeds.
func tryIsolation() link.Isolation {
	return link.Isolation{
		Reach:       reach(1, "1"),
		Exposed:     writable(kernelFiles()),
		StrictCalls: strictCalls(),
		Control:     controlProbes(),
		AgentOOM:    oomScore("self"),
		GuestOOM:    oomScore("1"),
	}
}

// reach tries the ways from this process to another, whose name in /proc is given too (kill(2), and ptrace(2) for the files).
func reach(pid int, name string) []string {
	open := []string{}
	if unix.Kill(pid, 0) == nil {
		open = append(open, "signal")
	}
	dir := "/proc/" + name + "/"
	for _, link := range []string{"exe", "cwd", "root", "fd/0", "fd/1", "ns/net"} {
		if _, err := os.Readlink(dir + link); err == nil {
			open = append(open, dir+link)
		}
	}
	for _, file := range []string{"mem", "maps", "environ", "auxv"} {
		if canOpen(dir+file, unix.O_RDONLY) {
			open = append(open, dir+file)
		}
	}
	return open
}

// kernelFiles are files through which root changes the host's kernel, whatever its capabilities are.
func kernelFiles() []string {
	return []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger",
		"/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled",
		"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/memory/release_agent",
	}
}

// writable are those of the files that can be opened for writing.
func writable(files []string) []string {
	found := []string{}
	for _, path := range files {
		if canOpen(path, unix.O_WRONLY) {
			found = append(found, path)
		}
	}
	return found
}

// controlProbes makes the same attempts where they have to work: at this process itself, which everybody may reach; at files of /proc
// that everybody may write to; and with a call that reads what the denied one writes.
func controlProbes() []string {
	worked := []string{}
	self := reach(os.Getpid(), "self")
	if slices.Contains(self, "signal") && slices.Contains(self, "/proc/self/exe") && slices.Contains(self, "/proc/self/maps") {
		worked = append(worked, link.ControlReach)
	}
	if len(writable([]string{"/proc/self/timerslack_ns", "/proc/self/comm"})) > 0 {
		worked = append(worked, link.ControlExposed)
	}
	const nowhere = -1
	if _, err := unix.IoctlGetWinsize(nowhere, unix.TIOCGWINSZ); errors.Is(err, unix.EBADF) {
		worked = append(worked, link.ControlStrictCalls)
	}
	return worked
}

func canOpen(path string, flag int) bool {
	fd, err := unix.Open(path, flag|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// strictCalls types into a terminal that is not there. The kernel would answer EBADF; so do the filters of the engines,
// which let every ioctl through.
func strictCalls() bool {
	const nowhere = -1
	return errors.Is(unix.IoctlSetPointerInt(nowhere, unix.TIOCSTI, 0), unix.EPERM)
}

// oomScore is a process' oom_score_adj, -1000 (the kernel never kills it) if it can't be read.
func oomScore(pid string) int {
	b, err := os.ReadFile("/proc/" + pid + "/oom_score_adj")
	if err != nil {
		return -1000
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1000
	}
	return n
}

// dumpable tells whether this process may be traced by processes of its own user (PR_GET_DUMPABLE in prctl(2)).
func dumpable() bool {
	n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return err != nil || n != 0
}
