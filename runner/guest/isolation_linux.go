package guest

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// tryIsolation does, with the agent's rights, what the agent must not be able to do. Nothing is changed by an attempt
// that succeeds.
func tryIsolation() link.Isolation {
	return link.Isolation{
		Reach:       reachGuest(),
		Exposed:     exposed(),
		StrictCalls: strictCalls(),
		AgentOOM:    oomScore("self"),
		GuestOOM:    oomScore("1"),
	}
}

// reachGuest tries the ways from one process to another (kill(2), and ptrace(2) for the files).
func reachGuest() []string {
	open := []string{}
	if unix.Kill(1, 0) == nil {
		open = append(open, "signal")
	}
	for _, name := range []string{"exe", "cwd", "root", "fd/0", "fd/1", "ns/net"} {
		if _, err := os.Readlink("/proc/1/" + name); err == nil {
			open = append(open, "/proc/1/"+name)
		}
	}
	for _, name := range []string{"mem", "maps", "environ", "auxv"} {
		if canOpen("/proc/1/"+name, unix.O_RDONLY) {
			open = append(open, "/proc/1/"+name)
		}
	}
	return open
}

// exposed tries files through which root changes the host's kernel, whatever its capabilities are.
func exposed() []string {
	found := []string{}
	for _, path := range []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger",
		"/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled",
		"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/memory/release_agent",
	} {
		if canOpen(path, unix.O_WRONLY) {
			found = append(found, path)
		}
	}
	return found
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
