package workspace

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// mover moves files from one directory to another. Both are held open: walking to them for each file takes longer than the move.
type mover struct{ from, to *os.File }

// moverFrom opens two directories below root, by no link that leads out of it.
func moverFrom(root *os.Root, from, to string) (m mover, err error) {
	if m.from, err = root.Open(from); err != nil {
		return mover{}, err
	}
	if m.to, err = root.Open(to); err != nil {
		return mover{}, errors.Join(err, m.from.Close())
	}
	return m, nil
}

func (m mover) file(name, as string) error {
	if err := unix.Renameat(int(m.from.Fd()), name, int(m.to.Fd()), as); err != nil {
		return &os.LinkError{Op: "rename", Old: name, New: as, Err: err}
	}
	return nil
}

func (m mover) close() { _, _ = m.from.Close(), m.to.Close() }
