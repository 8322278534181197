// Package runs keeps the directories of runs: one per run, below a root that the
// caller names ($XDG_STATE_HOME/agent-sandbox/runs). It knows which runs live, which
// ended and which died, and what can be removed. It reads no environment, talks to
// no engine, and never follows a link out of its root.
//
// A run directory is mode 0700, its files 0600:
//
//	lock           held (flock) by the process that works on the run, for its whole life
//	plan.json      what was decided
//	events.jsonl   the hash-chained audit log: see package event
//	stdout.log     the task's output, redacted
//	stderr.log
//	changes.json   the change set
//	changes.patch
//	manifest.json  the run's evidence: see package manifest
//	result.json    the event.Summary; its presence means that the run ended
//	recovery.json  what another process needs to read the changes, until they have been read
//
// and whatever the workspace keeps there.
package runs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	lockName   = "lock"
	storeLock  = ".lock"
	gonePrefix = ".gone-"
	busyLimit  = 5 * time.Second
	busyPause  = time.Millisecond
)

// Store is the directory of all runs of a user.
type Store struct {
	path string
	root *os.Root
}

// Open opens the directory at path and makes it, 0700, if it is not there. It
// refuses one that belongs to somebody else or that others can write to: whoever can
// write there chooses what `apply` applies.
func Open(path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, writeError(path, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	if err := secure(root); err != nil {
		return nil, errors.Join(fmt.Errorf("state directory %s: %w", path, err), root.Close())
	}
	return &Store{path: path, root: root}, nil
}

// secure looks at the directory that was opened, not at the path: no time of check to time of use.
func secure(root *os.Root) error {
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	if err := checkOwner(info); err != nil {
		return err
	}
	if info.Mode().Perm() != 0o700 {
		return root.Chmod(".", 0o700)
	}
	return nil
}

// Close releases the directory; runs that came from it must not be used any more.
func (s *Store) Close() error { return s.root.Close() }

// Path is the absolute path of the directory.
func (s *Store) Path() string { return s.path }

// Create makes the directory of a new run and locks it. An id that is taken gives fs.ErrExist.
func (s *Store) Create(id ID) (*Run, error) {
	if _, err := ParseID(string(id)); err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	r := &Run{ID: id, store: s}
	// Without the store's lock a run could be taken for dead between Mkdir and its own lock.
	err := s.locked(exclusive, func() error {
		if err := s.root.Mkdir(string(id), 0o700); err != nil {
			return writeError(r.Dir(), err)
		}
		if err := r.take(); err != nil {
			return errors.Join(err, s.root.RemoveAll(string(id)))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// List gives the runs, the newest first, at most limit of them; 0 means all. What is
// not a run directory is passed over, so that one damaged entry does not hide the others.
func (s *Store) List(limit int) ([]*Run, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list runs in %s: %w", s.path, err)
	}
	var list []*Run
	for _, e := range entries {
		if id, err := ParseID(e.Name()); err == nil && e.IsDir() {
			list = append(list, &Run{ID: id, store: s})
		}
	}
	slices.SortFunc(list, func(a, b *Run) int { return cmp.Compare(b.ID, a.ID) })
	if limit > 0 && len(list) > limit {
		list = list[:limit]
	}
	return list, nil
}

// Resolve finds the run that name means: "last" (the newest), an id, or a prefix of
// one id only. It gives ErrNotFound or an *AmbiguousError.
func (s *Store) Resolve(name string) (*Run, error) {
	list, err := s.List(0)
	if err != nil {
		return nil, err
	}
	if name == "last" && len(list) > 0 {
		return list[0], nil
	}
	found := slices.DeleteFunc(list, func(r *Run) bool { return !strings.HasPrefix(string(r.ID), name) })
	switch {
	case name == "" || len(found) == 0:
		return nil, fmt.Errorf("run %q: %w (`agent-sandbox runs` lists them)", name, ErrNotFound)
	case len(found) == 1:
		return found[0], nil
	}
	ambiguous := &AmbiguousError{Prefix: name, Total: len(found)}
	for _, r := range found[:min(10, len(found))] {
		ambiguous.Candidates = append(ambiguous.Candidates, r.ID)
	}
	return nil, ambiguous
}

// locked calls f with the store's lock: exclusive to take the lock of a run, shared
// to see whether somebody has it. It is held for a few system calls only.
func (s *Store) locked(kind lockKind, f func() error) error {
	path := filepath.Join(s.path, storeLock)
	lock, err := s.root.OpenFile(storeLock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return writeError(path, err)
	}
	defer lock.Close()
	for end := time.Now().Add(busyLimit); ; time.Sleep(busyPause) {
		got, err := lockFile(lock, kind)
		switch {
		case err != nil:
			return fmt.Errorf("lock %s: %w", path, err)
		case got:
			return f()
		case time.Now().After(end):
			return fmt.Errorf("lock %s: %w", path, ErrBusy)
		}
	}
}
