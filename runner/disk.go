package runner

import (
	"context"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/workspace"
)

// guardDisk watches the disks that the agent's files lie on, and yields a reason to end it when they fill up.
func (r *run) guardDisk(ctx context.Context) <-chan error {
	if r.cfg.skipDisk() {
		return nil
	}
	d := workspace.Disk{Limit: int64(r.cfg.Policy.Resources.Disk)}
	if f := r.engine.Facts(); f.Local && (r.view.Mode == policy.ModeCopy || len(r.caches) > 0) {
		d.Also = []string{f.Root}
	}
	return r.view.GuardDisk(ctx, d)
}

// unlessStopping is a channel as long as nothing is stopping the run already.
func unlessStopping[T any](c <-chan T, stopping event.ExitReason) <-chan T {
	if stopping != "" {
		return nil
	}
	return c
}
