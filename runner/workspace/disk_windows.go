package workspace

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

func spaceOf(dir string) (space, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return space{}, err
	}
	var free, size uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, &size, nil); err != nil {
		return space{}, &os.PathError{Op: "GetDiskFreeSpaceEx", Path: dir, Err: err}
	}
	return space{size: int64(size), free: int64(free)}, nil
}

func allocated(info fs.FileInfo) int64 { return info.Size() }
