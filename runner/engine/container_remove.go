package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
)

// Removed waits until the engine has removed the container; call it before Start, since a container may be gone
// before the call arrives. The channel yields once.
func (c *Container) Removed(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	status, errs := c.engine.api.ContainerWait(ctx, c.ID, container.WaitConditionRemoved)
	go func() {
		select {
		case <-status:
			done <- nil
		case err := <-errs:
			if errdefs.IsNotFound(err) {
				err = nil
			}
			done <- err
		}
	}()
	return done
}

// Remove kills and removes the container with its anonymous volumes, and returns when it is gone. One that was gone
// before is no error.
func (c *Container) Remove(ctx context.Context) error {
	err := c.engine.api.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsConflict(err) { // the engine is at it already
		err = c.gone(ctx)
	}
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("remove container: %w", err)
}

// gone returns when the container is removed. It asks again and again: an engine (20.10) never answers who asked between
// a removal and its announcement.
func (c *Container) gone(ctx context.Context) error {
	for {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		err := <-c.Removed(asking)
		unanswered := asking.Err() != nil
		cancel()
		if err == nil || !unanswered || ctx.Err() != nil {
			return err
		}
	}
}

// exists tells whether the engine has c.
func (e *Engine) exists(ctx context.Context, c *Container) (bool, error) {
	_, err := e.api.ContainerInspect(ctx, c.ID)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
