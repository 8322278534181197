package workspace

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// stagePrefix starts the name of the directory in the project's root in which new contents wait and old ones
// are kept until all is done. It has to be on the same file system as what it replaces.
const stagePrefix = ".agent-sandbox-apply-"

func newStageName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return stagePrefix + hex.EncodeToString(b[:])
}

func validStageName(s string) bool {
	hexPart, ok := strings.CutPrefix(s, stagePrefix)
	return ok && len(hexPart) == 16 && isHex(hexPart)
}

// carryOut stages everything, then does it, step by step with a way back.
func (a *applier) carryOut(ctx context.Context) error {
	j := &journal{Version: journalVersion, Target: []byte(a.cfg.Target), Stage: newStageName(), Phase: phaseStaging}
	u := &undoer{tree: a.tree, journal: j, runDir: a.cfg.RunDir}
	err := a.stageAndCommit(ctx, u)
	if errors.Is(err, errDied) {
		return err // a test's kill: nobody is left to clean up
	}
	if err == nil {
		return u.finish()
	}
	if _, undoErr := u.rollBack(); undoErr != nil {
		return fmt.Errorf("%w\nand putting everything back failed: %w", err, undoErr)
	}
	return err
}

// errDied is what a test's fault returns to stand for kill -9.
var errDied = errors.New("died")

func (a *applier) at(step string) error {
	if a.cfg.fault == nil {
		return nil
	}
	return a.cfg.fault(step)
}

func (a *applier) stageAndCommit(ctx context.Context, u *undoer) error {
	j := u.journal
	if err := j.save(u.runDir); err != nil {
		return err
	}
	if err := a.at("journal written"); err != nil {
		return err
	}
	if err := a.tree.mkdir(j.Stage); err != nil {
		return err
	}
	if err := a.stageAll(ctx, j); err != nil {
		return err
	}
	j.Phase = phaseCommitting
	if err := errors.Join(a.at("staged"), j.save(u.runDir)); err != nil {
		return err
	}
	for i := range j.Steps {
		if err := a.at(fmt.Sprintf("step %d %s", i, j.Steps[i].Op)); err != nil {
			return err
		}
		if err := a.do(&j.Steps[i], j.Stage); err != nil {
			return err
		}
	}
	if err := a.at("all done"); err != nil {
		return err
	}
	j.Phase = phaseCommitted
	return errors.Join(j.save(u.runDir), a.at("committed"))
}

// stageAll makes the new nodes and the list of steps: make directories writable, take away (children first),
// put in place (parents first), give directories their modes (children first).
func (a *applier) stageAll(ctx context.Context, j *journal) error {
	a.planOpen(j)
	a.planRemovals(j)
	var modes []step
	for _, c := range a.todo {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.New == nil {
			continue
		}
		if err := a.at("stage " + c.Path); err != nil {
			return err
		}
		mode, err := a.stageOne(j, c)
		if err != nil {
			return fmt.Errorf("stage %q: %w", c.Path, err)
		}
		if mode != nil {
			modes = append(modes, *mode)
		}
	}
	slices.Reverse(modes)
	j.Steps = append(j.Steps, modes...)
	return nil
}

// planOpen lets the owner into directories that the change set closes or removes, while it works in them.
func (a *applier) planOpen(j *journal) {
	for _, c := range a.todo {
		if c.Old == nil || c.Old.Type != Dir {
			continue
		}
		info := a.seen[c.Path]
		if info == nil || !info.IsDir() || info.Mode()&0o700 == 0o700 {
			continue
		}
		j.Steps = append(j.Steps, step{Op: opChmod, Path: []byte(c.Path), OldMode: unixMode(info.Mode()), Mode: unixMode(info.Mode() | 0o700)})
	}
}

func (a *applier) planRemovals(j *journal) {
	var paths []string
	for _, c := range a.todo {
		if c.New == nil {
			paths = append(paths, c.Path)
		}
		if c.From != "" {
			paths = append(paths, c.From)
		}
	}
	slices.Sort(paths)
	for _, p := range slices.Backward(paths) {
		if info := a.seen[p]; info != nil { // or the source of a rename that is half there already
			j.Steps = append(j.Steps, step{Op: opRemove, Path: []byte(p), Slot: len(j.Steps), OldID: idOf(info)})
		}
	}
}

// stageOne makes the new node of a change in the stage and plans its move. For a directory it may give a step
// that sets its mode when everything in it is done.
func (a *applier) stageOne(j *journal, c *Change) (*step, error) {
	s := step{Op: opPut, Path: []byte(c.Path), Slot: len(j.Steps)}
	old := a.seen[c.Path]
	if old != nil {
		s.Op, s.OldID = opReplace, idOf(old)
	}
	if old != nil && old.IsDir() && c.New.Type == Dir { // its mode alone
		// By then planOpen has let the owner in, and takes that back itself.
		return &step{Op: opChmod, Path: s.Path, OldMode: unixMode(old.Mode() | 0o700), Mode: unixMode(old.Mode()&^fs.ModePerm | c.New.Mode&fs.ModePerm)}, nil
	}
	owner := a.ownerFor(c.Path, old)
	slot := slotPath(j.Stage, s.Slot)
	if err := a.makeNode(slot, c); err != nil {
		return nil, err
	}
	mode, err := a.settle(slot, c, owner)
	if err != nil {
		return nil, err
	}
	info, err := a.tree.lstat(slot)
	if err != nil {
		return nil, err
	}
	s.ID = idOf(info)
	j.Steps = append(j.Steps, s)
	if c.New.Type == Dir && info.Mode()&modeBits != mode {
		return &step{Op: opChmod, Path: s.Path, OldMode: unixMode(info.Mode()), Mode: unixMode(mode)}, nil
	}
	return nil, nil
}

func (a *applier) makeNode(slot string, c *Change) error {
	switch c.New.Type {
	case Dir:
		return a.tree.mkdir(slot)
	case Symlink:
		return a.tree.symlink(c.New.Target, slot)
	case File:
		return a.makeFile(slot, c)
	}
	return fmt.Errorf("a %s is never applied", c.New.Type)
}

// makeFile writes the new content, hashing it on the way, with its final mode.
func (a *applier) makeFile(slot string, c *Change) error {
	from, modified, err := a.content(c)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := a.tree.create(slot)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Chmod(fileMode(c.New)), to.Close()); err != nil || modified.IsZero() {
		return err
	}
	// Only its name or mode changed: build tools should not take it for new.
	return a.tree.chtimes(slot, modified)
}

// content opens what a file shall hold, and says when it was last modified if only its name or mode changed.
func (a *applier) content(c *Change) (io.ReadCloser, time.Time, error) {
	var modified time.Time
	if c.Old != nil && c.Old.SHA256 == c.New.SHA256 {
		info, err := a.tree.lstat(c.source())
		if err != nil {
			return nil, modified, err
		}
		modified = info.ModTime()
	}
	r, err := openNew(c.Old, c.New, a.blobs, func() (io.ReadCloser, error) { return a.tree.open(c.source()) })
	return r, modified, err
}

// nodeOwner is whose a new node shall be. setgid tells that a directory inherits the group, as mkdir does.
type nodeOwner struct {
	IDs
	setgid bool
}

// ownerFor is the owner of what is replaced, else of the directory above that exists.
func (a *applier) ownerFor(p string, old fs.FileInfo) nodeOwner {
	if old != nil && !old.IsDir() {
		return nodeOwner{IDs: statOf(old).owner}
	}
	for d := path.Dir(p); ; d = path.Dir(d) {
		if info, err := a.tree.lstat(d); err == nil && info.IsDir() {
			return nodeOwner{statOf(info).owner, info.Mode()&fs.ModeSetgid != 0}
		}
		if d == "." {
			return nodeOwner{}
		}
	}
}

// settle gives a staged node its owner, and returns the mode that a directory shall have in the end.
func (a *applier) settle(slot string, c *Change, o nodeOwner) (fs.FileMode, error) {
	mode := c.New.Mode & fs.ModePerm
	if c.New.Type == Dir && o.setgid {
		mode |= fs.ModeSetgid
	}
	switch uid := os.Geteuid(); {
	case uid == 0:
		if err := a.tree.lchown(slot, o.IDs); err != nil {
			return 0, err
		}
	case uid > 0 && (o.setgid || c.Old != nil):
		// The group is kept where this user may; it is no reason to refuse.
		_ = a.tree.lchown(slot, IDs{UID: -1, GID: o.GID})
	}
	return mode, nil
}
