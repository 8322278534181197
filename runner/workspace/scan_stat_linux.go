package workspace

import (
	"syscall"
	"time"
)

// changedAt is the time of the last change of a file's inode.
func changedAt(st *syscall.Stat_t) time.Time { return time.Unix(st.Ctim.Unix()) }
