package workspace

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/org/agent-sandbox/policy"
)

// Saved is what another process needs of a view to read it back: whoever finds a run whose runner died.
type Saved struct {
	Mode    policy.WorkspaceMode `json:"mode"`
	Project []byte               `json:"project"` // as bytes: a path need not be UTF-8
	Hidden  [][]byte             `json:"hidden"`
	Started time.Time            `json:"started"`
	Limits  Limits               `json:"limits"`
}

// Saved is to be called once Hide has returned: without what was hidden from the agent nobody could tell it from what the agent removed.
func (v *View) Saved() Saved {
	s := Saved{Mode: v.Mode, Project: []byte(v.cfg.Project), Hidden: [][]byte{}, Started: v.started.Round(0), Limits: v.cfg.Limits}
	for _, p := range v.hidden {
		s.Hidden = append(s.Hidden, []byte(p))
	}
	return s
}

// ErrNotKept tells of a view of which nothing outlives its run.
var ErrNotKept = errors.New("nothing of it outlives the run")

// Restore gives the view of a run whose runner died, to be extracted from the layers in its directory. Nobody may write there any more. A view
// that keeps no layers gives ErrNotKept, wrapped.
func Restore(s Saved, stateDir string) (*View, error) {
	if s.Mode != policy.ModeOverlay {
		return nil, fmt.Errorf("workspace mode %s: %w", s.Mode, ErrNotKept)
	}
	project, err := realDir(string(s.Project))
	if err == nil {
		stateDir, err = realDir(stateDir)
	}
	if err != nil {
		return nil, fmt.Errorf("restore workspace: %w", err)
	}
	v := &View{Mode: s.Mode, started: s.Started, cfg: Config{Project: project, StateDir: stateDir, Mode: s.Mode, Limits: s.Limits.withDefaults()}}
	for _, p := range s.Hidden {
		v.hidden = append(v.hidden, string(p))
	}
	if !slices.IsSortedFunc(s.Hidden, bytes.Compare) {
		return nil, errors.New("restore workspace: the hidden paths are not sorted")
	}
	return v, nil
}

// Reopen has upper/ in its place again, if an extraction that did not come to its end had taken it.
func (v *View) Reopen() error { return v.giveBack() }

// Preserve closes the view and leaves upper/ as the agent did, instead of Discard: an extraction whose change set could not be saved is taken
// back, so that another can be made.
func (v *View) Preserve() error {
	err := v.Close()
	if v.Mode != policy.ModeOverlay {
		return err
	}
	return errors.Join(err, v.giveBack())
}

func (v *View) giveBack() error {
	blobs := filepath.Join(v.cfg.StateDir, upperBlobs)
	if _, err := os.Lstat(v.upper()); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(blobs, v.upper()); err != nil {
			return fmt.Errorf("give the agent's files back: %w", err)
		}
	}
	t := v.taken
	if v.taken = nil; t == nil {
		return nil
	}
	root, err := os.OpenRoot(v.upper())
	if err != nil {
		return err
	}
	defer root.Close()
	var paths []string
	for p := range t.modes {
		paths = append(paths, p)
	}
	slices.SortFunc(paths, func(a, b string) int { return len(b) - len(a) }) // what is below a directory before it is closed again
	for _, p := range paths {
		// No link can be here: a symlink's mode keeps nobody from reading it.
		err = errors.Join(err, root.Chmod(p, t.modes[p]))
	}
	return err
}
