package workspace

import (
	"errors"
	"fmt"
	"io/fs"
)

// do carries out one step. The way back is found from what is on disk, so there is nothing to note.
func (a *applier) do(s *step, stage string) error {
	p, slot := string(s.Path), slotPath(stage, s.Slot)
	var err error
	switch s.Op {
	case opChmod:
		err = a.tree.chmodDir(p, goMode(s.Mode))
	case opPut:
		err = a.tree.move(slot, p)
	case opRemove:
		err = a.displace(s, p, slot+oldSuffix)
	case opReplace:
		err = a.replace(s, p, slot)
	}
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
		err = fmt.Errorf("%w (%w)", ErrConflict, err)
		a.res.Conflicts = append(a.res.Conflicts, Refusal{p, "changed on the host while it was applied"})
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", s.Op, p, err)
	}
	return nil
}

// replace lets the new node and the old one change places. Only what was displaced is looked at, since
// it can't be changed by name any more: a check before would say nothing about the moment of the change.
func (a *applier) replace(s *step, p, slot string) error {
	err := errors.ErrUnsupported
	if !a.cfg.noSwap {
		err = a.tree.swap(slot, p)
	}
	if err == nil {
		return a.verifyDisplaced(s, slot)
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := a.displace(s, p, slot+oldSuffix); err != nil {
		return err
	}
	if err := a.at("between"); err != nil {
		return err
	}
	return a.tree.move(slot, p)
}

func (a *applier) displace(s *step, p, to string) error {
	if err := a.tree.move(p, to); err != nil {
		return err
	}
	return a.verifyDisplaced(s, to)
}

// verifyDisplaced makes sure that nothing is lost which the check did not see.
func (a *applier) verifyDisplaced(s *step, at string) error {
	info, err := a.tree.lstat(at)
	if err != nil {
		return err
	}
	if got := idOf(info); got != s.OldID {
		return fmt.Errorf("%w: it is another file than was checked", fs.ErrExist)
	}
	if !info.IsDir() {
		return nil
	}
	names, err := a.tree.names(at)
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("%w: something was put into the directory", fs.ErrExist)
	}
	return err
}
