package runner

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/workspace"
)

// resolve connects to the engine, and has somebody watch over what the run makes there. After it, leave must be called.
func (r *run) resolve(ctx context.Context) (err error) {
	defer r.rec.Phase(event.Resolve)()
	if r.ids, err = r.agentIDs(); err != nil {
		return err
	}
	r.beginSearch(ctx)
	var beside errgroup.Group
	beside.Go(r.watch)
	beside.Go(func() error { return r.prepareEgress(ctx) })
	r.engine, err = engine.Resume(ctx, r.cfg.Engine)
	if err = errors.Join(err, beside.Wait()); err != nil { // nothing has been made
		r.search.Close()
		r.watcher.dismiss()
		return errors.Join(err, r.closeGateway(), r.engine.Close())
	}
	return nil
}

// beginSearch looks for what is to be hidden. Nothing else takes as long as the project is large, so it begins first.
func (r *run) beginSearch(ctx context.Context) {
	switch w := r.cfg.Policy.Workspace; w.Mode {
	case policy.ModeBind, policy.ModeReadonly: // these look for more, later
	default:
		r.search = workspace.BeginSearch(ctx, r.cfg.Project, policy.NewPatternSet(w.Hide), r.ids.UID)
	}
}

// watch starts the run's watcher.
func (r *run) watch() error {
	if r.cfg.Watcher == nil {
		return nil
	}
	cmd, err := r.cfg.Watcher()
	if err != nil {
		return fmt.Errorf("start watcher: %w", err)
	}
	r.watcher, err = startWatcher(cmd, watchOrder{Run: r.id, Engine: r.cfg.Engine})
	return err
}

// leave removes what is left of a run that ended with err. Only a run that came to its own end has surely removed all
// that it made in the engine.
func (r *run) leave(ctx context.Context, err error) error {
	r.search.Close()
	err = errors.Join(err, r.closeGateway(), r.discardView(ctx), r.engine.Close())
	if err != nil || ctx.Err() != nil {
		r.watcher.leave()
	} else {
		r.watcher.dismiss()
	}
	return err
}

// agentIDs chooses the agent's user and group id.
func (r *run) agentIDs() (workspace.IDs, error) {
	if r.cfg.Policy.User == policy.UserRoot {
		r.lower("user", "the policy says user: root: the agent has uid 0, without capabilities", "remove `user: root` from the policy")
		return workspace.IDs{}, nil
	}
	return workspace.AgentIDs(r.cfg.Project, workspace.DefaultIDs())
}

// prepare does all that can be done before there is a container.
func (r *run) prepare(ctx context.Context) error {
	err := r.gather(ctx)
	if errors.Is(err, engine.ErrChanged) {
		// Nothing has been made yet but the view, and that for another engine.
		if err = r.discardView(ctx); err == nil {
			r.view = nil
			err = r.gather(ctx)
		}
	}
	if err != nil {
		return err
	}
	if r.plan.Seccomp.Profile != policy.SeccompStrict {
		r.lower("seccomp", "the policy says seccomp: default: the engine's own filter is in force", "remove `seccomp: default` from the policy")
	}
	for _, why := range r.view.Lowered {
		r.lower("workspace", why, "")
	}
	r.warnOfGit()
	r.plan.Workspace = WorkspacePlan{Mode: r.view.Mode, Target: WorkspaceTarget}
	r.rec.Emit(r.planned())
	return r.mount()
}

// gather finds the image, makes the plan, delivers the guest and sets the view of the workspace up. The parts don't need
// each other, and each waits for something else.
func (r *run) gather(ctx context.Context) error {
	var beside errgroup.Group
	beside.Go(func() error { return r.prepareView(ctx) })
	beside.Go(func() error {
		r.head = readHead(ctx, r.cfg.Project)
		return nil
	})
	imageErr := r.planImage(ctx)
	err := r.engine.Confirm()
	if err == nil {
		err = r.cannot()
	}
	if err == nil && r.fallback == "" {
		err = r.knownUncapturable(r.engine.Facts())
	}
	if err == nil && imageErr == nil {
		imageErr = r.deliver(ctx, false)
	}
	viewErr := beside.Wait()
	if err != nil { // whatever else went wrong may follow from it
		return err
	}
	return errors.Join(imageErr, viewErr)
}

// planImage finds the image and makes the plan.
func (r *run) planImage(ctx context.Context) (err error) {
	if err = r.findImage(ctx); err != nil {
		return err
	}
	if r.gateway == nil {
		if err := r.findHosts(ctx); err != nil {
			return err
		}
	}
	if err := r.planCaches(ctx); err != nil {
		return err
	}
	if r.authority = r.cfg.testAuthority(); r.authority == nil {
		r.authority = r.gateway.Authority()
	}
	r.plan, err = r.makePlan()
	return err
}

// cannot says what the engine lacks for containment. There is no going on without it.
func (r *run) cannot() error {
	f := r.engine.Facts()
	switch {
	case !f.Seccomp:
		return &RefusedError{"the engine's kernel has no seccomp filter", "use an engine on a kernel with CONFIG_SECCOMP_FILTER"}
	case !f.MemoryLimit || !f.PIDsLimit || !f.CPULimit:
		return &RefusedError{
			"the engine can't limit memory, processes or CPU time",
			"enable the memory, pids and cpu control groups on the engine's host; on a rootless engine delegate them to the user",
		}
	}
	return nil
}

// prepareView sets the view of the workspace up.
func (r *run) prepareView(ctx context.Context) (err error) {
	defer r.rec.Phase(event.Workspace)()
	if err := r.locate(ctx); err != nil {
		return err
	}
	r.view, err = workspace.Prepare(ctx, r.workspaceConfig())
	var no *workspace.UnsupportedError
	if errors.As(err, &no) {
		return &RefusedError{"workspace mode " + string(no.Mode) + " is not possible here: " + no.Reason, no.Hint}
	}
	return err
}

// deliver adds the guest to the plan.
func (r *run) deliver(ctx context.Context, refill bool) (err error) {
	defer r.watcher.creating()()
	r.plan.Container.Guest, err = r.engine.Deliver(ctx, r.id, r.image, r.plan.Agent.UID, r.plan.Agent.GID, refill)
	return err
}

// mount adds the mounts to the plan.
func (r *run) mount() error {
	spec := &r.plan.Container
	spec.Claim = len(r.claim()) > 0
	for _, m := range r.view.Mounts {
		spec.Mounts = append(spec.Mounts, viewMount(m))
	}
	more, err := r.policyMounts()
	if err != nil {
		return err
	}
	spec.Mounts = append(spec.Mounts, more...)
	r.mountCaches(spec)
	r.planLane()
	r.plan.Lowered = r.lowered
	return nil
}

// lower puts on record that a protection is less than it should be.
func (r *run) lower(what, why, mend string) {
	l := event.Lowered{What: what, Why: why, Mend: mend}
	r.lowered = append(r.lowered, l)
	r.rec.Emit(l)
}
