//go:build !linux && !darwin

package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path"
)

const openNonblock = 0

// renameAt moves through os.Root, which can't leave the project. There is no swap here.
func (t *hostTree) renameAt(fromDir *dirHandle, from string, toDir *dirHandle, to string, kind renameKind) error {
	if kind == renameSwap {
		return errors.ErrUnsupported
	}
	if _, err := toDir.root.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fs.ErrExist)
	}
	oldPath, newPath := path.Join(fromDir.path, from), path.Join(toDir.path, to)
	// An open handle keeps Windows from renaming what is below it.
	t.forget()
	return t.top.root.Rename(oldPath, newPath)
}

func lockDir(*os.File) error { return nil }
