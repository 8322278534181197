package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/workspace"
)

// maxTreeChanges bounds what git is given for the tree of a run, after whose agent somebody waits.
const maxTreeChanges = 5000

// resultTree is the id of the git tree that the commit has with the changes, or why nobody knows it. Neither is there for a run that
// changed nothing, or that started from no commit.
func (r *run) resultTree(ctx context.Context, cs *workspace.ChangeSet) (id, why string) {
	switch {
	case cs.Commit == "" || len(cs.Changes) == 0:
		return "", ""
	case r.view.Mode == policy.ModeBind:
		return "", "the agent could write to the repository, whose configuration can start programs"
	case len(cs.Changes) > maxTreeChanges:
		return "", fmt.Sprintf("there are more than %d changes", maxTreeChanges)
	}
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	id, err := workspace.ResultTree(ctx, r.dir.Dir(), cs)
	if err != nil {
		return "", err.Error()
	}
	return id, ""
}

// nameFiles says what the files are that the policy's evidence.outputs names, as the agent left them.
func (r *run) nameFiles(project *os.Root, cs *workspace.ChangeSet) error {
	for _, o := range r.cfg.Policy.Evidence.Outputs {
		e := event.FileNamed{Name: o.Name, Path: o.Path}
		i := slices.IndexFunc(cs.Changes, func(c workspace.Change) bool { return c.Path == o.Path || c.From == o.Path })
		switch {
		case i < 0:
			if err := nameHostFile(project, &e); err != nil {
				return fmt.Errorf("evidence.outputs.%s: %w", o.Name, err)
			}
		case cs.Changes[i].New == nil || cs.Changes[i].Path != o.Path:
			e.Detail = "the agent removed it"
		case cs.Changes[i].New.Type != workspace.File:
			e.Detail = notAFile
		default:
			e.SHA256, e.Bytes = cs.Changes[i].New.SHA256, cs.Changes[i].New.Size
		}
		r.rec.Emit(e)
	}
	return nil
}

const notAFile = "it is no regular file"

// nameHostFile is about a file that the agent did not change.
func nameHostFile(project *os.Root, e *event.FileNamed) error {
	name := filepath.FromSlash(e.Path)
	info, err := project.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Detail = "there is no such file"
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		e.Detail = notAFile
		return nil
	}
	f, err := project.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	e.Bytes, err = io.Copy(sum, f)
	e.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return err
}
