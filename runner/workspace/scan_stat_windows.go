package workspace

import (
	"io/fs"
	"time"
)

// fileStat is what fs.FileInfo does not say of a file on every system.
type fileStat struct {
	owner    IDs
	dev, ino uint64
	nlink    uint64
	rdev     uint64
	ctime    time.Time
}

// statOf knows nothing of owners and hard links here. The change time falls back to the modification time.
func statOf(info fs.FileInfo) fileStat {
	return fileStat{nlink: 1, ctime: info.ModTime()}
}
