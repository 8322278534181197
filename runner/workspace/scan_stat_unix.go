//go:build linux || darwin

package workspace

import (
	"io/fs"
	"syscall"
)

// statOf returns the zero fileStat for a FileInfo that does not come from the operating system.
func statOf(info fs.FileInfo) fileStat {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileStat{}
	}
	return fileStat{
		owner: IDs{UID: int(st.Uid), GID: int(st.Gid)},
		dev:   uint64(st.Dev), ino: st.Ino, nlink: uint64(st.Nlink), rdev: uint64(st.Rdev),
		ctime: changedAt(st),
	}
}
