package rotate

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes a lock without waiting, and reports false when somebody else has it. It ends with f.
func lockFile(f *os.File) (bool, error) {
	const whole = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err := windows.LockFileEx(windows.Handle(f.Fd()), whole, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

// sync: a directory can't be synced here; NTFS journals the rename.
func (b *Book) sync() error { return nil }
