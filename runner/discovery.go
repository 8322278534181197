package runner

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/org/agent-sandbox/runner/discover"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/runs"
)

// Discover finds the hosts that these bundles would have in a run of cfg.
func Discover(ctx context.Context, cfg Config, bundles []string) (_ discover.Result, err error) {
	r := &run{cfg: cfg, id: string(runs.NewID(time.Now()))}
	if r.engine, err = engine.Connect(ctx, cfg.Engine); err != nil {
		return discover.Result{}, err
	}
	defer func() { err = errors.Join(err, r.engine.Close()) }()
	if r.image, err = r.engine.Image(ctx, cfg.Image); err != nil {
		return discover.Result{}, err
	}
	return r.discover(ctx, bundles)
}

// discover finds the hosts of bundles. The engine is connected and the image is known.
func (r *run) discover(ctx context.Context, bundles []string) (discover.Result, error) {
	return discover.Find(ctx, discover.Config{
		Bundles: bundles, Project: r.cfg.Project, Subdir: r.cfg.Subdir, LookupEnv: r.policyEnv,
		Image: r.image.ID, Probe: r.probe, CacheDir: filepath.Join(filepath.Dir(r.cfg.Store.Path()), "discovered"),
	})
}

// probe asks the image.
func (r *run) probe(ctx context.Context, argv []string) ([]byte, error) {
	done := r.watcher.creating()
	defer done()
	out, err := r.engine.Probe(ctx, engine.Probe{Run: r.id, Image: r.image.ID, Argv: argv})
	if errors.Is(err, engine.ErrNoProgram) {
		err = errors.Join(discover.ErrNoShell, err)
	}
	return out, err
}

// policyEnv finds a variable that the policy gives the agent.
func (r *run) policyEnv(name string) (string, bool) {
	for _, v := range r.cfg.Policy.Env {
		switch {
		case v.Name != name:
		case v.FromHost:
			return r.cfg.LookupEnv(name)
		default:
			return v.Value, true
		}
	}
	return "", false
}
