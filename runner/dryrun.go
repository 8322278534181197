package runner

import (
	"context"
	"errors"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// DryRun decides everything that Run would, and leaves nothing behind. The plan says what would run; only what the
// guest measures is missing.
func DryRun(ctx context.Context, cfg Config) (_ *Plan, err error) {
	r := &run{cfg: cfg, dry: true}
	if r.dir, err = cfg.Store.Create(runs.NewID(time.Now())); err != nil {
		return nil, err
	}
	defer func() { err = r.secrets.err(errors.Join(err, r.dir.Close(), r.dir.Remove())) }()
	r.id = string(r.dir.ID)
	r.secrets.known(cfg)
	if r.rec, err = event.NewRecorder(event.Config{Run: r.id}); err != nil {
		return nil, err
	}
	r.refusals = event.NewRefusals(r.rec.Emit)
	if err := r.resolve(ctx); err != nil {
		return nil, err
	}
	defer func() { err = r.leave(ctx, err) }()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	r.secrets.plan(r.plan)
	return r.plan, nil
}
