//go:build linux || darwin

package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openNonblock keeps an open from waiting when a file was swapped for a FIFO.
const openNonblock = syscall.O_NONBLOCK

func (t *hostTree) renameAt(fromDir *dirHandle, from string, toDir *dirHandle, to string, kind renameKind) error {
	err := renameFlags(int(fromDir.file.Fd()), from, int(toDir.file.Fd()), to, kind)
	unsupported := errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP)
	switch {
	case !unsupported:
		return err
	case kind == renameSwap:
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return moveWithout(fromDir, from, toDir, to)
}

// moveWithout moves without replacing on a file system whose rename can't promise that: a hard link does.
func moveWithout(fromDir *dirHandle, from string, toDir *dirHandle, to string) error {
	err := unix.Linkat(int(fromDir.file.Fd()), from, int(toDir.file.Fd()), to, 0)
	if err == nil {
		return fromDir.root.Remove(from)
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	// A directory, or no hard links either. Only somebody who makes the name right now can lose by it.
	if _, err := toDir.root.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fs.ErrExist)
	}
	return unix.Renameat(int(fromDir.file.Fd()), from, int(toDir.file.Fd()), to)
}

// lockDir takes the project for one apply at a time. It returns errBusy when another one has it. A file
// system without locks gives none: what is displaced is still checked.
func lockDir(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errBusy
	}
	return nil
}
