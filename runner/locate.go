package runner

import (
	"context"
	"errors"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
)

// locate finds out where an engine that is not on this host has the project and the run's state: it may be the one in whose container
// this is. Where it has not, the reason is for whoever asks for a mode of the workspace that needs it.
func (r *run) locate(ctx context.Context) error {
	mode := r.cfg.Policy.Workspace.Mode
	if r.engine.Facts().Local || mode == policy.ModeCopy {
		return nil
	}
	dirs := []string{r.cfg.Project}
	if mode == policy.ModeOverlay || mode == policy.ModeAuto {
		dirs = append(dirs, r.dir.Dir())
	}
	defer r.watcher.creating()()
	paths, err := r.engine.Locate(ctx, r.id, dirs...)
	if apart, ok := errors.AsType[*engine.ApartError](err); ok {
		r.paths, r.apart = nil, apart.Reason
		return nil
	}
	if err == nil {
		r.paths = paths
	}
	return err
}

// enginePath is where the engine has a directory of the run. It is asked only about what a view has been made of.
func (r *run) enginePath(dir string) string {
	if r.paths != nil {
		if there, ok := r.paths.Of(dir); ok {
			return there
		}
	}
	return dir
}
