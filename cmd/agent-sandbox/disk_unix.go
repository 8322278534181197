//go:build !windows

package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// freeSpace is how many bytes this user can still write below dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// ownerText says whose the project is, where that is not the agent: then its owner is mapped.
func ownerText(project string, uid int) string {
	var st unix.Stat_t
	if err := unix.Stat(project, &st); err != nil || int(st.Uid) == uid {
		return ""
	}
	return fmt.Sprintf(", through a mapped mount, since it belongs to uid %d", st.Uid)
}
