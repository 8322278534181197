package runs

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

type lockKind uint32

const (
	exclusive lockKind = windows.LOCKFILE_EXCLUSIVE_LOCK
	shared    lockKind = 0
)

// lockFile takes a lock without waiting and reports false when somebody else has it.
// The lock belongs to f: it ends with f.Close and with the process, however that dies.
func lockFile(f *os.File, kind lockKind) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), uint32(kind)|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

// checkOwner: the profile directory's access list protects what is below it, and
// mode bits say nothing here.
func checkOwner(fs.FileInfo) error { return nil }

// syncDir: a directory can't be synced here; NTFS journals the rename.
func syncDir(*os.Root, string) error { return nil }

func diskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

func readOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }
