//go:build !windows

package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

type lockKind int

const (
	exclusive lockKind = unix.LOCK_EX
	shared    lockKind = unix.LOCK_SH
)

// lockFile takes an advisory lock without waiting and reports false when somebody
// else has it. The lock belongs to f: it ends with f.Close and with the process, however that dies.
func lockFile(f *os.File, kind lockKind) (bool, error) {
	err := unix.Flock(int(f.Fd()), int(kind)|unix.LOCK_NB)
	for errors.Is(err, unix.EINTR) {
		err = unix.Flock(int(f.Fd()), int(kind)|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// checkOwner refuses a directory in which somebody else could plant or change runs.
func checkOwner(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("its owner is unknown")
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to uid %d, not to uid %d that runs this", st.Uid, os.Geteuid())
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("mode %#o lets others write to it: chmod go-w it", perm)
	}
	return nil
}

func syncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func diskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

func readOnly(err error) bool { return errors.Is(err, unix.EROFS) }
