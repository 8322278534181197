package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// RecoverConfig names a run that is over, and of whose changes nobody has read all.
type RecoverConfig struct {
	Version string // of this program
	Dir     *runs.Run
	// Engine is the run's. Nil: none answers, and so nobody knows whether the agent has ended.
	Engine *engine.Engine
	Sealer Sealer

	attrs workspace.XattrReader // in tests: in the place of one that takes root's rights
}

// Unread tells whether a run has changes that only Recover can read.
func Unread(dir *runs.Run) bool {
	_, err := os.Lstat(dir.Path(runs.RecoveryFile))
	return err == nil
}

// Recover ends what a dead run has in the engine, and reads what its agent changed, as the runner would have: the same code, with the same gate
// and the same protections. The record says that it was not the runner. What can't be read stays where it is, and the error says why. Changes that
// did not outlive the run are a warning in its record.
func Recover(ctx context.Context, cfg RecoverConfig) (event.Summary, error) {
	if err := cfg.Dir.Lock(); err != nil {
		return event.Summary{}, err
	}
	defer cfg.Dir.Close()
	cfg.Sealer.Seal(ctx, cfg.Dir)
	var r *run
	s, err := cfg.Dir.Amend(func(s *event.Summary) (err error) {
		if r, err = cfg.read(ctx); err != nil {
			return err
		}
		how := event.Recovered{Time: time.Now().UTC().Truncate(time.Millisecond), Version: cfg.Version}
		if s.Manifest != nil {
			how.Manifest = s.Manifest.SHA256
		}
		s.Recover(r.rec.Summary(), how)
		return nil
	})
	if err != nil {
		return s, err
	}
	s.Manifest = cfg.Dir.Sealed()
	return s, r.dropRecovery()
}

// read reads the changes, and gives the run with what is to be said of them.
func (cfg RecoverConfig) read(ctx context.Context) (*run, error) {
	k, err := readRecovery(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := cfg.quiet(ctx, k); err != nil {
		return nil, err
	}
	r := &run{
		id: string(cfg.Dir.ID), dir: cfg.Dir, engine: cfg.Engine, image: k.Image, ids: workspace.IDs{UID: k.UID, GID: k.GID},
		head: head{commit: k.Commit, ref: k.Head}, plan: &Plan{}, began: true, dead: true, attrs: cfg.attrs,
		cfg: Config{Version: cfg.Version, Project: string(k.View.Project), Policy: k.policy()},
	}
	r.plan.Agent.UID, r.plan.Agent.GID = k.UID, k.GID
	if r.rec, err = event.NewRecorder(event.Config{Run: r.id}); err != nil {
		return nil, err
	}
	r.view, err = workspace.Restore(k.View, cfg.Dir.Dir())
	if errors.Is(err, workspace.ErrNotKept) {
		r.warn(fmt.Sprintf("the changes of this run can't be recovered: %v", notKept(k)))
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w\nhint: have the project in its place again and repeat this; the files that the agent wrote stay in %s, and "+
			"`agent-sandbox discard %s` removes them", err, cfg.Dir.Path("upper"), r.id)
	}
	if k.Secrets {
		r.warn("nobody looked for the run's credentials in its changes: who recovered them does not know them")
	}
	err = r.helper(ctx)
	if err == nil {
		err = r.reread(ctx)
	}
	return r, errors.Join(err, r.discardView(ctx))
}

// notKept says what became of the changes.
func notKept(k recovery) string {
	switch k.View.Mode {
	case "copy":
		return "the agent worked on a copy in its container, which ended with the runner"
	case "bind":
		return "the agent worked on the project itself, which has them"
	}
	return "there are none: the project was read-only"
}

// quiet sees to it that nobody writes any more.
func (cfg RecoverConfig) quiet(ctx context.Context, k recovery) error {
	if cfg.Engine == nil {
		return errors.New("no engine answers, and so the agent may still run\nhint: start the engine that the run used, and repeat this")
	}
	if id := cfg.Engine.Facts().ID; id != k.Engine {
		return fmt.Errorf("the run used another engine (%s, this one is %s), in which the agent may still run\nhint: name that engine with DOCKER_HOST, and repeat this", k.Engine, id)
	}
	_, err := cfg.Engine.Sweep(ctx, string(cfg.Dir.ID))
	return err
}

// helper prepares for what only root may do, in a container of our own program.
func (r *run) helper(ctx context.Context) error {
	if r.attrs != nil || os.Geteuid() == 0 && workspace.CanReadXattrs(r.dir.Dir()) {
		return nil
	}
	if err := r.locate(ctx); err != nil {
		return err
	}
	return r.deliver(ctx, true) // the volume that the run had may have been removed since
}

// reread is what collect does for a run that has its own end. What a runner saved before it died is not read again.
func (r *run) reread(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	cs, err := workspace.Load(r.dir.Dir())
	if err == nil {
		return r.keep(ctx, cs, nil)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := r.view.Reopen(); err != nil {
		return err
	}
	cs, err = r.view.Extract(ctx, workspace.Sources{Xattrs: r.xattrs(), Keep: true})
	return r.keep(ctx, cs, r.full(ctx, err, cs))
}
