package guest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guardUID is the guest's real and saved user id once it has dropped its privileges; nothing else runs under it.
// It lies below the ids that systemd and the like hand out and above those of people.
const guardUID = 64999

// dropPrivileges takes every capability from every thread of this process and gives it the agent's identity, except
// for real and saved user id. So the guest may signal the agent (its effective id is a target's real id), and the
// agent may neither signal nor trace the guest, whose real and saved ids are another's (kill(2), ptrace(2)).
//
// It can't be undone. AllThreadsSyscall needs a binary without cgo, which the guest is.
func dropPrivileges(uid, gid int) error {
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := clearBoundingSet(); err != nil {
		return err
	}
	guard := guardUID
	if skip("guard") {
		guard = uid
	}
	if err := syscall.Setresuid(guard, uid, guard); err != nil {
		return fmt.Errorf("setresuid: %w", err)
	}
	if err := clearCapabilities(); err != nil {
		return err
	}
	if skip("no_new_privs") {
		return nil
	}
	if err := allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// clearBoundingSet takes away the capabilities that a program could gain, and those that it would inherit
// (capabilities(7)).
func clearBoundingSet() error {
	if skip("capabilities") {
		return nil
	}
	last, err := lastCapability()
	if err != nil {
		return err
	}
	for c := range last + 1 {
		// All threads have the set that process 1 began with: the engine left four in it, and a call for all threads
		// takes longer than all the rest here.
		if held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && held == 0 {
			continue
		}
		if err := allThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0); err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	if err := allThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	return nil
}

// becomeAgent gives up the guard's ids: from here on this process is the agent.
func becomeAgent(uid, gid int) error {
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("setresuid: %w", err)
	}
	return nil
}

// clearCapabilities empties the permitted, effective and inheritable sets (capset(2)).
func clearCapabilities() error {
	if skip("capabilities") {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

func allThreads(trap, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, a3); errno != 0 {
		return errno
	}
	return nil
}

// lastCapability is the highest capability number that this kernel knows (capabilities(7)).
func lastCapability() (int, error) {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, fmt.Errorf("highest capability: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("highest capability: %w", err)
	}
	return n, nil
}

// hide makes this process untraceable and keeps it from dumping core (PR_SET_DUMPABLE in prctl(2)): /proc/1 then
// belongs to root, whatever this process' ids are.
func hide() error {
	var state uintptr
	if skip("hide") {
		state = 1 // said explicitly: the change of ids alone hides a process as well, unless fs.suid_dumpable is set
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, state, 0, 0, 0); err != nil {
		return fmt.Errorf("dumpable: %w", err)
	}
	return nil
}
