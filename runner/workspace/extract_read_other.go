//go:build !linux

package workspace

import "os"

// opener opens files of one directory.
type opener struct{ dir *os.Root }

func newOpener(dir *os.Root) (opener, error) { return opener{dir}, nil }

func (opener) close() {}

// regular is a regular file.
type regular struct{ *os.File }

func (o opener) open(name string) (regular, error) {
	f, err := openRegular(o.dir, name)
	return regular{f}, err
}

func (r regular) close() { _ = r.Close() }
