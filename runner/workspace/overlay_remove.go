package workspace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"
)

// removeTree removes a directory that an agent filled. Unlike os.RemoveAll it needs no more descriptors for a tree
// ten thousand levels deep, and it gets through directories without permissions: every directory is moved to the
// top of a trash directory, and emptied there. A directory that is gone already is no error.
func removeTree(dir string) error {
	if err := os.Chmod(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	trash, err := os.MkdirTemp(filepath.Dir(dir), ".trash-")
	if err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(trash, "0")); err != nil {
		return errors.Join(err, os.Remove(trash))
	}
	root, err := os.OpenRoot(trash)
	if err != nil {
		return err
	}
	defer root.Close()
	r := remover{root: root, pending: []string{"0"}, next: 1}
	if err := r.run(); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return os.Remove(trash)
}

type remover struct {
	root *os.Root // holds directories alone, named by numbers

	mu      sync.Mutex // guards what follows
	pending []string
	next    int
}

// another gives a directory that is still to be emptied its name in root.
func (r *remover) another() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := strconv.Itoa(r.next)
	r.next++
	r.pending = append(r.pending, name)
	return name
}

func (r *remover) run() error {
	for len(r.pending) > 0 {
		name := r.pending[len(r.pending)-1]
		r.pending = r.pending[:len(r.pending)-1]
		if err := r.empty(name); err != nil {
			return err
		}
		if err := r.root.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// empty reads the directory until it finds nothing, because a directory that is read while entries are
// removed may pass some over.
func (r *remover) empty(name string) error {
	d, err := r.root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		entries, err := readSome(d)
		if err != nil || len(entries) == 0 {
			return err
		}
		var entered errgroup.Group
		entered.SetLimit(atOnce)
		for _, e := range entries {
			entered.Go(func() error { return r.entry(d, name, e) })
		}
		if err := entered.Wait(); err != nil {
			return err
		}
	}
}

func readSome(d *os.Root) ([]fs.DirEntry, error) {
	f, err := d.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(4096)
	if err == io.EOF {
		return nil, nil
	}
	return entries, err
}

func (r *remover) entry(d *os.Root, dir string, e fs.DirEntry) error {
	// Also right for a directory: rmdir(2) asks for no permission on what it removes, and work/work is root's.
	err := d.Remove(e.Name())
	if err == nil || errors.Is(err, fs.ErrNotExist) || !e.IsDir() {
		return ignore(err, fs.ErrNotExist)
	}
	// To move a directory elsewhere takes write permission on itself, which the agent may have taken away.
	if err := d.Chmod(e.Name(), 0o700); err != nil {
		return err
	}
	return r.root.Rename(dir+"/"+e.Name(), r.another())
}

func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}
