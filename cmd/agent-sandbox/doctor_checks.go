package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// examination is one doctor's visit. Each step adds to the diagnosis; a step that needs what an earlier one did not
// find says so.
type examination struct {
	*diagnosis
	app     *app
	flags   runFlags
	project string
	policy  *policy.Policy // nil: invalid
	state   *runs.Store    // nil: not usable
	engine  *engine.Engine // nil: none answers
	image   bool
}

// engineTimeout bounds all questions to the engine together.
const engineTimeout = 30 * time.Second

func (x *examination) everything(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	x.checkState()
	x.checkGit(ctx)
	x.checkPolicy()
	x.checkEngine(ctx)
	if x.engine != nil {
		defer x.engine.Close()
	}
	if x.state != nil {
		defer x.state.Close()
	}
	x.checkKernel()
	x.checkImage(ctx)
	x.checkWorkspace(ctx)
	x.checkPlan(ctx)
	x.checkLeftovers(ctx)
}

const (
	leastSpace  = 64 << 20 // bytes that a run needs for its record
	scarceSpace = 2 << 30  // below this much, agents that build something may run out of it
)

func (x *examination) checkState() {
	store, err := x.app.store()
	if err != nil {
		x.add("state", statusFailed, "set XDG_STATE_HOME to a directory that is yours alone", "%v", err)
		return
	}
	x.state = store
	free, err := freeSpace(store.Path())
	const mend = "`agent-sandbox discard RUN` and `doctor --clean` free space"
	switch {
	case err != nil:
		x.add("state", statusNote, "", "%s; its free space is not known: %v", store.Path(), err)
	case free < leastSpace:
		x.add("state", statusFailed, mend, "%s has only %s of free space", store.Path(), engine.ByteSize(free))
	case free < scarceSpace:
		x.add("state", statusNote, mend, "%s has %s of free space", store.Path(), engine.ByteSize(free))
	default:
		x.add("state", statusOK, "", "%s, %s free", store.Path(), engine.ByteSize(free))
	}
}

func (x *examination) checkGit(ctx context.Context) {
	out, err := exec.CommandContext(ctx, "git", "--version").Output()
	if err != nil {
		x.add("git", statusNote, "install git", "there is no git: runs work, but `apply --branch` and `apply --commits` don't, and runs don't record the commit they started from")
		return
	}
	x.add("git", statusOK, "", "%s", strings.TrimSpace(string(out)))
}

func (x *examination) checkPolicy() {
	project, _, err := x.app.project(x.flags.workspace)
	if err != nil {
		x.add("project", statusFailed, "name a directory with --workspace", "%v", err)
		return
	}
	x.project = project
	p, err := x.app.policy(x.flags.policy, project)
	if err != nil {
		x.add("policy", statusFailed, "`agent-sandbox policy check` lists every problem", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	if problems := policy.Unsupported(p, features()); len(problems) > 0 {
		x.add("policy", statusFailed, "remove the section, or use a version that can", "%s", strings.ReplaceAll(problems.Error(), "\n", "; "))
		return
	}
	x.policy = p
	x.add("policy", statusOK, "", "%s for %s", policyName(p.Name()), project)
}

// The oldest engine that will do: one before 20.10.10 does not know errnoRet in a seccomp profile, and starts nothing
// with ours.
const (
	oldestAPI    = "1.41"
	oldestEngine = "20.10.10"
)

func (x *examination) checkEngine(ctx context.Context) {
	cfg, err := x.app.engineConfig()
	if err == nil {
		x.engine, err = engine.Connect(ctx, cfg)
	}
	if err != nil {
		mend := "start Docker, or set DOCKER_HOST or the docker context to an engine that runs"
		if errors.Is(err, engine.ErrForbidden) {
			mend = forbiddenMend
		}
		text, hint, hinted := strings.Cut(err.Error(), "\nhint: ")
		if hinted {
			mend = hint
		}
		x.add("engine", statusFailed, mend, "%s", text)
		return
	}
	f := x.engine.Facts()
	x.Engine, x.Host = &f, x.engine.Host()
	place := "local"
	if !f.Local {
		place = "not on this host's file system"
	}
	detail := fmt.Sprintf("%s, API %s, %s, at %s (%s)", f.Version, f.API, f.Runtime, x.Host, place)
	// Other engines that speak the API, such as Podman, count their versions in their own way.
	good := atLeast(f.API, oldestAPI) && (!strings.HasPrefix(f.Version, "20.10.") || atLeast(f.Version, oldestEngine))
	x.require("engine", good, detail, detail+": it is too old", "use Docker "+oldestEngine+" or newer")
}

// atLeast compares versions such as "1.41" and "20.10.24+dfsg1". What can't be read is not old.
func atLeast(version, oldest string) bool {
	numbers := strings.FieldsFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	for i, part := range strings.Split(oldest, ".") {
		if i >= len(numbers) {
			return true
		}
		have, err := strconv.Atoi(numbers[i])
		want, _ := strconv.Atoi(part)
		if err != nil || have != want {
			return err != nil || have > want
		}
	}
	return true
}

// checkKernel is about what the engine says of its kernel. What the sandbox really gets is measured in each run.
func (x *examination) checkKernel() {
	if x.engine == nil {
		x.skip("an engine", "kernel", "seccomp", "limits", "users")
		return
	}
	f := x.engine.Facts()
	x.add("kernel", statusOK, "", "Linux %s, %s, cgroup version %s", f.Kernel, f.Arch, f.Cgroup)
	x.require("seccomp", f.Seccomp, "system calls can be filtered", "the kernel has no seccomp filter", "use a kernel with CONFIG_SECCOMP_FILTER")
	x.require("limits", f.MemoryLimit && f.PIDsLimit && f.CPULimit, "memory, processes and CPU time can be limited",
		fmt.Sprintf("not everything can be limited: memory %v, processes %v, CPU time %v", f.MemoryLimit, f.PIDsLimit, f.CPULimit),
		"enable the memory, pids and cpu control groups; on a rootless engine delegate them to the user")
	if f.UserNS {
		x.add("users", statusNote, "", "the engine maps users (rootless or userns-remap): projects are copied in and out")
	} else {
		x.add("users", statusOK, "", "the engine does not map users")
	}
	if f.IPv6 {
		x.add("ipv6", statusOK, "", "dials to IPv6 addresses are captured and recorded too")
	} else {
		x.add("ipv6", statusNote, "", "no IPv6 that we know of: such dials fail in the sandbox without a record")
	}
}

func (x *examination) skip(what string, names ...string) {
	for _, name := range names {
		x.add(name, statusSkipped, "", "can't be looked at without %s", what)
	}
}

func (x *examination) checkImage(ctx context.Context) {
	if x.engine == nil || x.policy == nil {
		x.skip("an engine and a valid policy", "image")
		return
	}
	reference, err := imageOf(x.flags, x.policy, x.project)
	if err != nil {
		x.add("image", statusFailed, "", "%v", err)
		return
	}
	image, err := x.engine.Image(ctx, reference)
	if err != nil {
		x.add("image", statusFailed, imageHint(reference), "%v", err)
		return
	}
	x.image = true
	x.add("image", statusOK, "", "%s, %s, %s", reference, shortID(image.ID), engine.ByteSize(image.Size))
}

// imageHint is how to get an image that the engine lacks: a run never pulls.
func imageHint(reference string) string {
	if strings.HasPrefix(reference, "agent-sandbox-build:") {
		return "`agent-sandbox image build` builds it; `run` does so by itself"
	}
	if reference == defaultImage && strings.HasSuffix(defaultImage, ":dev") {
		return "`make image` builds it; or name another image in the policy or with --image"
	}
	return fmt.Sprintf("`docker pull %s`, or build it; or name another image in the policy or with --image", reference)
}

func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

// checkWorkspace sets a view of the project up and drops it again.
func (x *examination) checkWorkspace(ctx context.Context) {
	if x.engine == nil || x.policy == nil || x.state == nil {
		x.skip("an engine, a valid policy and a state directory", "workspace")
		return
	}
	detail, mend, err := x.tryView(ctx)
	var no *workspace.UnsupportedError
	switch {
	case errors.As(err, &no):
		x.add("workspace", statusFailed, no.Hint, "mode %s is not possible: %s", no.Mode, no.Reason)
	case err != nil:
		x.add("workspace", statusFailed, "", "%v", err)
	case mend != "":
		x.add("workspace", statusLowered, mend, "%s", detail)
	default:
		x.add("workspace", statusOK, "", "%s", detail)
	}
}

// tryView tells how the agent would see the project, and as whom.
func (x *examination) tryView(ctx context.Context) (detail, mend string, err error) {
	r, err := x.state.Create(runs.NewID(time.Now()))
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, r.Close(), r.Remove()) }()
	ids, err := workspace.AgentIDs(x.project, workspace.DefaultIDs())
	if err != nil {
		return "", "", err
	}
	if x.policy.User == policy.UserRoot {
		ids = workspace.IDs{}
	}
	mode := x.policy.Workspace.Mode
	if mode == policy.ModeBind {
		return fmt.Sprintf("bind: the project itself, read-write, as uid %d", ids.UID), "", nil
	}
	f := x.engine.Facts()
	v, err := workspace.Prepare(ctx, workspace.Config{
		Project: x.project, StateDir: r.Dir(), Mode: mode, UID: ids.UID, GID: ids.GID,
		Hide: policy.NewPatternSet(x.policy.Workspace.Hide),
		Engine: workspace.Engine{
			Local: f.Local, UserNS: f.UserNS,
			SharesPIDs: f.Local && workspace.SharesPIDs(engine.SocketPath(x.Host)),
		},
	})
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, v.Discard()) }()
	detail = fmt.Sprintf("%s, as uid %d", v.Mode, ids.UID)
	if v.Mode == policy.ModeOverlay {
		detail += ownerText(x.project, ids.UID)
		if !workspace.CanReadXattrs(v.Upper()) {
			detail += "; its attributes are read by a helper container, since only root can"
		}
	}
	if len(v.Lowered) > 0 {
		return detail + ": " + strings.Join(v.Lowered, "; "), "put the project and the state on a local disk, and use a local engine", nil
	}
	return detail, "", nil
}

// checkPlan decides everything that a run would, and delivers the guest. That is as far as one can go without a run.
func (x *examination) checkPlan(ctx context.Context) {
	if x.failed() || !x.image {
		x.skip("the above", "guest", "plan")
		return
	}
	cfg, err := x.app.runConfig(ctx, x.flags, []string{"true"})
	if err != nil {
		x.add("plan", statusFailed, "", "%v", err)
		return
	}
	defer cfg.Store.Close()
	plan, err := runner.DryRun(ctx, cfg)
	if err != nil {
		text, hint, _ := strings.Cut(err.Error(), "\nhint: ")
		name := "plan"
		if errors.Is(err, engine.ErrNoGuest) {
			name = "guest"
		}
		x.add(name, statusFailed, hint, "%s", text)
		return
	}
	x.add("guest", statusOK, "", "%s in volume %s", shortID(plan.Container.Guest.Digest), plan.Container.Guest.Volume)
	x.Lowered = append(x.Lowered, plan.Lowered...)
	for _, l := range plan.Lowered {
		x.add("lowered", statusLowered, l.Mend, "%s: %s", l.What, l.Why)
	}
	if len(plan.Lowered) == 0 {
		x.add("plan", statusOK, "", "nothing would be lowered")
	}
}

// checkLeftovers counts what --clean would remove.
func (x *examination) checkLeftovers(ctx context.Context) {
	if x.state == nil {
		return
	}
	w := &cleaner{app: x.app, store: x.state, engine: x.engine}
	found, err := w.find(ctx)
	switch {
	case err != nil:
		x.add("leftovers", statusNote, "", "%v", err)
	case len(found) > 0:
		x.add("leftovers", statusNote, "`agent-sandbox doctor --clean` removes them", "dead runs left %s: %s", plural(len(found), "thing"), found[0].What)
	default:
		x.add("leftovers", statusOK, "", "no dead run left anything")
	}
	if list, err := x.state.List(0); err == nil {
		x.add("runs", statusOK, "", "%d on record", len(list))
	}
}
