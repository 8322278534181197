//go:build !linux

package workspace

import (
	"io/fs"
	"os"
)

// dirReader reads directories. It is for one goroutine.
type dirReader struct{ root *os.Root }

// read calls visit with the name and the type of each entry of dir, in the directory's order.
func (d *dirReader) read(dir string, visit func(name string, typ fs.FileMode)) error {
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		visit(e.Name(), e.Type())
	}
	return nil
}
