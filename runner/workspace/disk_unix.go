//go:build !windows

package workspace

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func spaceOf(dir string) (space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return space{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	block := int64(st.Bsize)
	return space{
		size: int64(st.Blocks) * block, free: int64(st.Bavail) * block,
		inodeCount: int64(st.Files), inodesFree: int64(st.Ffree),
	}, nil
}

// allocated is what a file takes of the disk: a sparse one less than its size. The unit of Blocks is 512 bytes,
// whatever the file system's is (stat(2)).
func allocated(info fs.FileInfo) int64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.Size()
	}
	return int64(st.Blocks) * 512
}
