package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Recovered says what became of an apply that was interrupted.
type Recovered struct {
	Target     string // the project
	RolledBack bool   // put back as it was; false: it was complete and only tidied up
	Steps      int    // how many steps were undone
}

// Recover ends an apply of a run that was interrupted by the death of its process: it puts everything back, or
// tidies up when all was done. It returns nil when there is nothing to recover. What somebody changed since stays
// as it is; then the error names it, with the place of the earlier version, and the journal stays.
func Recover(runDir string) (*Recovered, error) {
	j, err := loadJournal(runDir)
	if err != nil || j == nil {
		return nil, err
	}
	tree, err := openTree(string(j.Target))
	if errors.Is(err, fs.ErrNotExist) { // nothing is left to put back
		return &Recovered{Target: string(j.Target), RolledBack: true}, os.Remove(journalPath(runDir))
	}
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	defer tree.Close()
	if err := lockDir(tree.top.file); err != nil {
		return nil, fmt.Errorf("recover %s: %w", j.Target, err)
	}
	return recoverIn(runDir, tree)
}

func recoverIn(runDir string, tree *hostTree) (*Recovered, error) {
	j, err := loadJournal(runDir) // again, under the lock
	if err != nil || j == nil {
		return nil, err
	}
	if err := sameDir(tree, string(j.Target)); err != nil {
		return nil, err
	}
	u := &undoer{tree: tree, journal: j, runDir: runDir}
	r := &Recovered{Target: string(j.Target), RolledBack: j.Phase != phaseCommitted}
	if !r.RolledBack {
		return r, u.finish()
	}
	r.Steps, err = u.rollBack()
	return r, err
}

// sameDir makes sure that a journal is of this very project.
func sameDir(tree *hostTree, target string) error {
	want, err := os.Stat(target)
	if err != nil {
		return err
	}
	got, err := tree.lstat(".")
	if err != nil {
		return err
	}
	if !os.SameFile(want, got) {
		return fmt.Errorf("the interrupted apply was to %s\nhint: apply it there again, or run `agent-sandbox doctor --clean`", target)
	}
	return nil
}

// undoer takes a journal back.
type undoer struct {
	tree    *hostTree
	journal *journal
	runDir  string
}

// rollBack undoes the steps from the last to the first, each as far as it was done, and removes the stage and the
// journal. It can itself be interrupted and done again.
func (u *undoer) rollBack() (undone int, err error) {
	var errs []error
	for i := len(u.journal.Steps) - 1; i >= 0; i-- {
		s := &u.journal.Steps[i]
		did, err := u.undo(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", printable(string(s.Path)), err))
		}
		if did {
			undone++
		}
	}
	if len(errs) > 0 {
		return undone, fmt.Errorf("not all could be put back; earlier versions are in %s: %w", u.journal.Stage, errors.Join(errs...))
	}
	return undone, u.finish()
}

func (u *undoer) undo(s *step) (bool, error) {
	p, slot := string(s.Path), slotPath(u.journal.Stage, s.Slot)
	switch s.Op {
	case opChmod:
		return u.undoChmod(s, p)
	case opPut:
		return u.undoPut(s, p, slot)
	case opRemove:
		return u.putBack(p, slot+oldSuffix)
	default:
		return u.undoReplace(s, p, slot)
	}
}

func (u *undoer) undoChmod(s *step, p string) (bool, error) {
	info, err := u.tree.lstat(p)
	if missing(err) {
		return false, nil // never made, or gone since
	}
	if err != nil || !info.IsDir() || unixMode(info.Mode()) != s.Mode {
		return false, err
	}
	return true, u.tree.chmodDir(p, goMode(s.OldMode))
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir)
}

// id gives the zero nodeID for a path that is not there.
func (u *undoer) id(p string) (nodeID, error) {
	info, err := u.tree.lstat(p)
	if missing(err) {
		return nodeID{}, nil
	}
	if err != nil {
		return nodeID{}, err
	}
	return idOf(info), nil
}

var errChangedSince = errors.New("changed since")

func (u *undoer) undoPut(s *step, p, slot string) (bool, error) {
	staged, err := u.id(slot)
	if err != nil || staged == s.ID {
		return false, err
	}
	now, err := u.id(p)
	if err != nil || now == (nodeID{}) {
		return false, err // somebody removed it: nothing to undo
	}
	if now != s.ID {
		return false, errChangedSince
	}
	if s.ID.Type.IsDir() {
		if names, err := u.tree.names(p); err != nil || len(names) > 0 {
			return false, errors.Join(err, errChangedSince)
		}
	}
	return true, u.tree.move(p, slot)
}

// putBack moves a displaced node to where it was.
func (u *undoer) putBack(p, from string) (bool, error) {
	old, err := u.id(from)
	if err != nil || old == (nodeID{}) {
		return false, err
	}
	err = u.tree.move(from, p)
	if errors.Is(err, fs.ErrExist) {
		err = errChangedSince
	}
	return err == nil, err
}

func (u *undoer) undoReplace(s *step, p, slot string) (bool, error) {
	staged, err := u.id(slot)
	if err != nil {
		return false, err
	}
	now, err := u.id(p)
	if err != nil {
		return false, err
	}
	switch {
	case staged == s.ID: // not put in place; the old one may have been displaced already
		return u.putBack(p, slot+oldSuffix)
	case staged == (nodeID{}): // displaced, then put in place
		if now != s.ID {
			return false, errChangedSince
		}
		if err := u.tree.move(p, slot); err != nil {
			return false, err
		}
		return u.putBack(p, slot+oldSuffix)
	case now != s.ID: // swapped, and something else is there now
		return false, errChangedSince
	}
	return true, u.tree.swap(slot, p)
}

// finish removes the stage with what is left in it, and then the journal.
func (u *undoer) finish() error {
	names, err := u.tree.names(u.journal.Stage)
	if err != nil && !missing(err) {
		return fmt.Errorf("tidy up: %w", err)
	}
	var errs []error
	for _, name := range names {
		if strings.Trim(strings.TrimSuffix(name, oldSuffix), "0123456789") == "" {
			errs = append(errs, u.tree.remove(u.journal.Stage+"/"+name))
		}
	}
	if err == nil {
		errs = append(errs, u.tree.remove(u.journal.Stage))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tidy up: %w", err)
	}
	if err := os.Remove(journalPath(u.runDir)); !errors.Is(err, fs.ErrNotExist) { // a full disk may have kept it from being written
		return err
	}
	return nil
}
