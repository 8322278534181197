package workspace

import "time"

// fileStat is what fs.FileInfo does not say of a file on every system.
type fileStat struct {
	owner    IDs
	dev, ino uint64
	nlink    uint64
	rdev     uint64 // of a device node
	ctime    time.Time
}
