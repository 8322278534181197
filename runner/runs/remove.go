package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Remove deletes the run and everything in its directory, whatever modes the agent
// gave it, and follows no link. A run that is in use gives ErrRunning. The run is
// gone from List at once; if deleting fails on the way, Sweep continues.
func (r *Run) Remove() error {
	gone := gonePrefix + string(r.ID)
	err := r.store.locked(exclusive, func() error {
		if r.lock == nil {
			if err := r.take(); err != nil {
				return err
			}
		}
		// Windows does not rename a directory with an open file; nobody else can take the lock now.
		if err := r.Close(); err != nil {
			return err
		}
		return r.store.root.Rename(string(r.ID), gone)
	})
	if err != nil {
		return fmt.Errorf("remove run %s: %w", r.ID, err)
	}
	return r.store.removeGone(gone)
}

// removeGone deletes what a run left, and names the path and the mend when it can't:
// an engine that runs as root may have left files of its own.
func (s *Store) removeGone(name string) error {
	err := removeTree(s.root, name)
	if err == nil {
		return nil
	}
	path := filepath.Join(s.path, name)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("remove %s: %w (remove it as root)", path, err)
	}
	return fmt.Errorf("remove %s: %w", path, err)
}

// Sweep deletes the rests of removals that did not come to their end, and returns their names.
func (s *Store) Sweep() ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("sweep %s: %w", s.path, err)
	}
	var removed []string
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), gonePrefix) {
			continue
		}
		if err := s.removeGone(e.Name()); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, e.Name())
	}
	return removed, errors.Join(errs...)
}

// PruneConfig says which runs are too old. Only runs that ended are ever pruned:
// recover the others first, so that they leave a result behind them in their place.
type PruneConfig struct {
	Now time.Time
	// Keep is how long a run is kept from its start; required.
	Keep func(*Run) (time.Duration, error)
	// DryRun removes nothing.
	DryRun bool
}

// Prune removes the runs that are older than they are to be kept, and returns their ids, the oldest first. It
// goes on after a run that can't be removed.
func (s *Store) Prune(cfg PruneConfig) ([]ID, error) {
	list, err := s.List(0)
	if err != nil {
		return nil, err
	}
	slices.Reverse(list)
	removed := []ID{}
	var errs []error
	for _, r := range list {
		if !r.finished() {
			continue
		}
		keep, err := cfg.Keep(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if cfg.Now.Sub(r.ID.Time()) <= keep {
			continue
		}
		if !cfg.DryRun {
			err = r.Remove()
		}
		switch {
		case errors.Is(err, ErrRunning), errors.Is(err, ErrNotFound): // in use, or somebody was faster
		case err != nil:
			errs = append(errs, err)
		default:
			removed = append(removed, r.ID)
		}
	}
	return removed, errors.Join(errs...)
}

// Size is the size of the run's files in bytes, as far as they can be seen.
func (r *Run) Size() int64 {
	var total int64
	_ = fs.WalkDir(r.store.root.FS(), string(r.ID), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a directory that the agent closed: what it hides is not counted
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}

// removeTree deletes name below root. The plain way fails for directories without
// permission bits (overlay keeps the agent's modes) and for trees deeper than there
// are file descriptors; then the tree is taken apart.
func removeTree(root *os.Root, name string) error {
	if err := root.RemoveAll(name); err == nil {
		return nil
	}
	tree, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	if err := errors.Join(dismantle(tree), tree.Close()); err != nil {
		return err
	}
	return root.Remove(name)
}

// dismantle empties tree without ever going deeper than two levels: the directories
// in a directory are first moved to the top. What can't be removed is left and reported.
func dismantle(tree *os.Root) error {
	stuck := map[string]error{}
	for next := 0; ; {
		var todo []string
		entries, err := fs.ReadDir(tree.FS(), ".")
		if err != nil {
			return err
		}
		for _, e := range entries {
			if stuck[e.Name()] == nil {
				todo = append(todo, e.Name())
			}
		}
		if len(todo) == 0 {
			return joinStuck(stuck)
		}
		for _, name := range todo {
			if err := dismantleOne(tree, name, &next); err != nil {
				stuck[name] = err
			}
		}
	}
}

// dismantleOne removes an entry of the top, after moving up the directories in it.
func dismantleOne(tree *os.Root, name string, next *int) error {
	if tree.Remove(name) == nil { // a file, or an empty directory whatever its mode
		return nil
	}
	if info, err := tree.Lstat(name); err != nil || !info.IsDir() {
		return errors.Join(err, tree.Remove(name))
	}
	// Only a directory is given to Chmod, which would follow a link.
	if err := tree.Chmod(name, 0o700); err != nil {
		return err
	}
	entries, err := fs.ReadDir(tree.FS(), name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		inner := filepath.Join(name, e.Name())
		err := tree.Remove(inner)
		if err != nil && e.IsDir() {
			err = moveUp(tree, inner, next)
		}
		if err != nil {
			return err
		}
	}
	return tree.Remove(name)
}

func moveUp(tree *os.Root, inner string, next *int) error {
	if err := tree.Chmod(inner, 0o700); err != nil { // a directory is moved only by who may write to it
		return err
	}
	for {
		*next++
		top := ".moved-" + strconv.Itoa(*next)
		if _, err := tree.Lstat(top); errors.Is(err, fs.ErrNotExist) {
			return tree.Rename(inner, top)
		}
	}
}

// joinStuck reports a few of the entries that could not be removed.
func joinStuck(stuck map[string]error) error {
	var errs []error
	for _, err := range stuck {
		if errs = append(errs, err); len(errs) == 3 {
			break
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d entries remain: %w", len(stuck), errors.Join(errs...))
}
