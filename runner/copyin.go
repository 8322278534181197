package runner

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
)

// copyIn puts the project into a container that has not been started, if the agent is to work on a copy.
func (r *run) copyIn(ctx context.Context, c *engine.Container) error {
	if r.view.Mode != policy.ModeCopy {
		return nil
	}
	if !r.engine.Facts().Local {
		r.lower("disk", "nothing watches the disk of the engine's host, where the copy of the project grows", "use a local engine")
	}
	known := len(r.view.Lowered)
	in, out := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := r.view.Pack(ctx, out)
		packed <- errors.Join(err, out.CloseWithError(err))
	}()
	err := c.CopyIn(ctx, WorkspaceTarget, in)
	// Whatever the engine made of it, the packer must not wait for a reader.
	if err := errors.Join(err, in.CloseWithError(errNotTaken)); err != nil {
		<-packed
		return fmt.Errorf("copy the project: %w", err)
	}
	if err := <-packed; err != nil {
		return err
	}
	for _, why := range r.view.Lowered[known:] {
		r.lower("workspace", why, "")
	}
	return nil
}

// claim are the directories that the guest has to give to the agent, since the engine makes them for root: that of the copy, and caches.
func (r *run) claim() []string {
	all := cacheTargets(r.caches)
	if r.view.Mode == policy.ModeCopy {
		all = append(all, WorkspaceTarget)
	}
	return all
}

var errNotTaken = errors.New("the engine did not take all of the project")
