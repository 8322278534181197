package workspace

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// cloneMount clones the mount that dir is on, without attaching it anywhere: when this process ends, however it
// does, the clone is gone. Only dir itself is in it, not what is mounted below.
func cloneMount(dir string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// idmappedMount is a clone in which ids are swapped.
func idmappedMount(dir string, s idSwap) (*os.File, error) {
	userns, err := swapNamespace(s)
	if err != nil {
		return nil, fmt.Errorf("user namespace for the mapping: %w", err)
	}
	defer userns.Close()
	tree, err := cloneMount(dir)
	if err != nil {
		return nil, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY, Userns_fd: uint64(userns.Fd())}
	if err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		tree.Close()
		return nil, &os.PathError{Op: "mount_setattr", Path: dir, Err: err}
	}
	return tree, nil
}

// swapNamespace makes a user namespace with the swap as its mapping. A namespace needs a process to be made
// in: a child that is traced, and so stops before its first instruction, and is killed there.
func swapNamespace(s idSwap) (*os.File, error) {
	// The tracer of the child is this thread, and it alone may wait for it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := os.StartProcess("/proc/self/exe", []string{"agent-sandbox-idmap"}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: swapMappings(s.a.UID, s.b.UID),
			GidMappings: swapMappings(s.a.GID, s.b.GID),
			Ptrace:      true,
			Pdeathsig:   syscall.SIGKILL,
		},
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = child.Kill() // fails only when it is dead already
		_, _ = child.Wait()
	}()
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
}

// mappedIDs is how many ids the mapping covers: all that fit an int on every platform. Files of an owner
// beyond can be read, and fail to be written with EOVERFLOW.
const mappedIDs = math.MaxInt32

// swapMappings maps a to b, b to a, and every other id to itself.
func swapMappings(a, b int) []syscall.SysProcIDMap {
	if a == b {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: mappedIDs}}
	}
	a, b = min(a, b), max(a, b)
	ranges := []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: 0, Size: a},
		{ContainerID: a, HostID: b, Size: 1},
		{ContainerID: a + 1, HostID: a + 1, Size: b - a - 1},
		{ContainerID: b, HostID: a, Size: 1},
		{ContainerID: b + 1, HostID: b + 1, Size: mappedIDs - b - 1},
	}
	var used []syscall.SysProcIDMap
	for _, r := range ranges {
		if r.Size > 0 {
			used = append(used, r)
		}
	}
	return used
}
