package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/workspace"
)

// workspaceConfig says how the agent shall see the project.
func (r *run) workspaceConfig() workspace.Config {
	w := r.cfg.Policy.Workspace
	f := r.engine.Facts()
	return workspace.Config{
		Project: r.cfg.Project, StateDir: r.dir.Dir(), Mode: w.Mode,
		UID: r.ids.UID, GID: r.ids.GID,
		Hide:   policy.NewPatternSet(w.Hide),
		Search: r.search,
		Limits: workspace.Limits{Bytes: int64(r.cfg.Policy.Resources.Disk)},
		Protect: rejected(func(path string) policy.Tier {
			tier, _ := r.tier(path)
			return tier
		}),
		Engine: workspace.Engine{
			Local: f.Local, Paths: r.paths, Apart: r.apart, UserNS: f.UserNS,
			SharesPIDs: f.Local && workspace.SharesPIDs(engine.SocketPath(r.engine.Host())),
		},
	}
}

// tier classifies a path. The rules are compiled for the first one only: that takes longer than reading back a run
// that changed nothing.
func (r *run) tier(path string) (policy.Tier, string) {
	r.compile.Do(func() { r.protector = r.cfg.Policy.Workspace.Protector() })
	return r.protector.Tier(path)
}

// rejected matches the paths of the tier reject.
type rejected func(path string) policy.Tier

func (f rejected) Match(path string, _ bool) bool { return f(path) == policy.TierReject }

func (f rejected) MatchEntry(path string, dir bool) bool { return f.Match(path, dir) }

// collect reads back what the agent changed, and hangs up. Cancelling ctx does not stop it: the agent's work is
// worth the seconds.
func (r *run) collect(ctx context.Context, box *sandbox) (err error) {
	ctx = context.WithoutCancel(ctx)
	finished := r.rec.Phase(event.Extract)
	defer finished()
	var from workspace.Sources
	if r.view.Mode == policy.ModeCopy {
		// The guest keeps the container, and so the copy, until we hang up.
		tar, err := box.container.CopyOut(ctx, WorkspaceTarget+"/.")
		if err != nil {
			return errors.Join(err, r.clean(ctx, box))
		}
		defer tar.Close()
		from.Tar = tar
		cs, err := r.view.Extract(ctx, from)
		return errors.Join(r.keep(ctx, cs, err), r.clean(ctx, box))
	}
	// Reading the upper layer needs nothing of the container, for whose removal the engine takes its time. Nobody writes
	// any more: the guest has seen the last process end.
	from.Xattrs, from.Keep = r.xattrs(), true
	var gone errgroup.Group
	gone.Go(func() error { return r.clean(ctx, box) })
	cs, err := r.view.Extract(ctx, from)
	return errors.Join(r.keep(ctx, cs, r.full(ctx, err, cs)), gone.Wait())
}

func (r *run) clean(ctx context.Context, box *sandbox) error {
	defer r.rec.Phase(event.Clean)()
	return box.close(ctx)
}

// keep classifies and saves the change set. One that is over the limits is kept for people to look at, and the run
// has failed.
func (r *run) keep(ctx context.Context, cs *workspace.ChangeSet, extractErr error) error {
	if cs == nil {
		return extractErr
	}
	cs.Run = r.id
	cs.Commit, cs.Head = r.head.commit, r.head.ref
	gate := workspace.Gate{Protected: r.tier, Project: r.cfg.Project}
	if err := gate.Classify(cs); err != nil {
		return errors.Join(extractErr, err)
	}
	root, err := os.OpenRoot(r.cfg.Project)
	if err != nil {
		return errors.Join(extractErr, err)
	}
	defer root.Close()
	blobs := r.view.Blobs(cs)
	patchErr := workspace.SavePatch(ctx, r.dir.Dir(), cs, patchConfig(root, blobs, cs))
	// Without a patch, for which the disk may have had no room, there is still all that `apply` takes.
	if err := r.save(cs, extractErr == nil); err != nil {
		return errors.Join(extractErr, r.full(ctx, errors.Join(patchErr, err), cs))
	}
	if patchErr != nil {
		return errors.Join(extractErr, r.full(ctx, patchErr, cs))
	}
	if err := errors.Join(r.nameFiles(root, cs), r.report(ctx, cs, blobs)); err != nil {
		return errors.Join(extractErr, err)
	}
	r.reported = true
	return extractErr
}

// save puts the list of the changes on the disk. Before that nothing of the agent's is removed, so that what has no room can be read again.
func (r *run) save(cs *workspace.ChangeSet, complete bool) error {
	if complete {
		if err := cs.Save(r.dir.Dir()); err != nil {
			return err
		}
		r.saved = true
		return r.view.Settle(cs)
	}
	// Who finds it after a crash could not tell it from all of the changes.
	aside, err := r.asideRecovery()
	if err != nil {
		return err
	}
	if err := cs.Save(r.dir.Dir()); err != nil {
		return errors.Join(err, aside())
	}
	r.saved = true
	return errors.Join(r.view.Settle(cs), r.dropRecovery())
}

func patchConfig(project *os.Root, blobs workspace.Blobs, cs *workspace.ChangeSet) workspace.PatchConfig {
	return workspace.PatchConfig{Old: workspace.HostFiles(project), Blobs: blobs, SHA256: len(cs.Commit) == sha256HexLen}
}

const sha256HexLen = 64

// maxProtectedEvents bounds the events for protected paths; the change set has all of them.
const maxProtectedEvents = 1000

// report makes the events of a change set.
func (r *run) report(ctx context.Context, cs *workspace.ChangeSet, blobs workspace.Blobs) error {
	reported := 0
	for _, c := range cs.Changes {
		if c.Tier == workspace.NoTier || reported == maxProtectedEvents {
			continue
		}
		reported++
		r.rec.Emit(event.ProtectedTouched{Path: c.Path, Tier: string(c.Tier), Reason: c.Reason})
	}
	if err := r.searchChanges(cs, blobs); err != nil {
		return err
	}
	digest, err := fileDigest(r.dir.Path(workspace.ChangesFile))
	if err != nil {
		return fmt.Errorf("digest of the changes: %w", err)
	}
	patch, err := fileDigest(r.dir.Path(workspace.PatchFile))
	if err != nil {
		return fmt.Errorf("digest of the patch: %w", err)
	}
	n := cs.Counts()
	e := event.ChangesExtracted{
		Added: n.Added, Modified: n.Modified, Deleted: n.Deleted, Renamed: n.Renamed, Mode: n.Mode,
		Git: n.Git, Reject: n.Reject, Warn: n.Warn, Bytes: newBytes(cs), Digest: digest, Patch: patch,
	}
	e.Tree, e.TreeDetail = r.resultTree(ctx, cs)
	r.rec.Emit(e)
	return nil
}

// newBytes is the size of all new contents.
func newBytes(cs *workspace.ChangeSet) (sum int64) {
	for _, c := range cs.Changes {
		if c.New != nil && c.New.Type == workspace.File {
			sum += c.New.Size
		}
	}
	return sum
}

// viewMount is a mount of the view, as the engine takes it.
func viewMount(m workspace.Mount) engine.Mount {
	target := WorkspaceTarget
	if m.Path != "" {
		target += "/" + m.Path
	}
	return engine.Mount{
		Source: m.Source, Target: target, Volume: m.Type == workspace.MountVolume, Tmpfs: m.Type == workspace.MountTmpfs,
		ReadOnly: m.ReadOnly, Options: m.Options, NoCopy: m.NoCopy, NonRecursive: m.NonRecursive,
	}
}

// policyMounts are the further paths of the host that the policy shows.
func (r *run) policyMounts() ([]engine.Mount, error) {
	var mounts []engine.Mount
	if len(r.cfg.Policy.Mounts) > 0 && !r.engine.Facts().Local {
		return nil, &RefusedError{"the policy has mounts, and the engine does not see this host's files", "use a local engine, or remove `mounts`"}
	}
	for i, m := range r.cfg.Policy.Mounts {
		source, err := r.hostPath(m.Source)
		if err == nil {
			err = policy.CheckMountSource(source) // a link may lead to what the file could not have named
		}
		if err != nil {
			return nil, &RefusedError{
				Reason: fmt.Sprintf("%s: mounts[%d].source: %v", r.cfg.Policy.Place(fmt.Sprintf("mounts[%d]", i)), i, err),
				Hint:   "name a path that exists on this host",
			}
		}
		mounts = append(mounts, engine.Mount{Source: source, Target: m.Target, ReadOnly: m.ReadOnly})
		if !m.ReadOnly {
			r.lower("mounts", fmt.Sprintf("the policy lets the agent write to %s on the host", m.Source), "set `readonly: true`")
		}
	}
	// Docker mounts in this order: what lies inside something else must come after it.
	slices.SortFunc(mounts, func(a, b engine.Mount) int { return len(a.Target) - len(b.Target) })
	return mounts, nil
}
