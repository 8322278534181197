package ovl

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Empty removes the files in dir, for a helper that runs as root for a runner which does not. It is meant for the
// directory work/work of an overlay that is not mounted any more: the kernel makes it root's with no permissions, and
// leaves its spare whiteout there. A directory in it is an error, for nothing is to be removed that somebody else made.
func Empty(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &os.PathError{Op: "empty", Path: dir, Err: errors.New("not a directory")}
	}
	// As its owner, which takes no capability.
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil && err != io.EOF {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			return fmt.Errorf("empty %s: %q is a directory", dir, e.Name())
		}
		if err := root.Remove(e.Name()); err != nil {
			return err
		}
	}
	return nil
}
