//go:build !linux

package workspace

import (
	"os"
	"path"
)

// mover moves files from one directory to another.
type mover struct {
	root     *os.Root
	from, to string
}

func moverFrom(root *os.Root, from, to string) (mover, error) { return mover{root, from, to}, nil }

func (m mover) file(name, as string) error {
	return m.root.Rename(path.Join(m.from, name), path.Join(m.to, as))
}

func (mover) close() {}
