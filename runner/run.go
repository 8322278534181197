// Package runner runs one task in a sandbox, from policy to result: it decides everything in a Plan, puts the sandbox
// up through an engine, refuses to start the agent in one that is not as planned, and leaves a record of the run
// whatever happens. It reads no flags and no environment, and prints nothing.
package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// Config describes a run.
type Config struct {
	Version string // of this program, for the record

	Argv    []string // the task's command; required
	Project string   // directory on the host; required
	Subdir  string   // working directory below the project, slash-separated
	Image   string   // reference or id of an image that the engine has; required

	Proxy egress.Proxy // the company's, for the runner's own dials; zero for none
	CAs   [][]byte     // PEM files of certificate authorities to trust there beside the system's

	Timeout time.Duration // wall-clock limit of the task; 0 for the policy's

	Policy        *policy.Policy // required; policy.Default() if there is no file
	CeilingDigest string         // digest of the organisation's policy, if any

	Engine engine.Config
	Store  *runs.Store // where the record goes; required
	// Handlers get the run's events besides the record.
	Handlers []event.Handler

	// Watcher makes the command of a process that calls Watch with its standard input, apart from this one's terminal
	// and process group: it removes what the run leaves in the engine if this process is killed. Nil for none; then
	// Leftovers of the engine has what is to be removed.
	Watcher func() (*exec.Cmd, error)

	// LookupEnv finds a variable of the caller's environment that the policy names; required.
	LookupEnv func(string) (string, bool)
	// CI: nobody watches the run. What only a person can answer for is refused.
	CI bool

	Stdin          io.Reader // nil: at its end at once
	Stdout, Stderr io.Writer // required

	TTY    bool             // give the agent a terminal: Stdin and Stdout are one, in raw mode
	Term   string           // its TERM
	Size   link.Size        // its size
	Resize <-chan link.Size // its later sizes

	seam
}

// Result is how a run ended.
type Result struct {
	Run      string
	Dir      string // the run's directory
	ExitCode int    // the task's, or 124 for a timeout; 128 + signal when the run was cancelled
	Summary  event.Summary
}

// Exit statuses of the run command that aren't the task's own.
const (
	exitTimeout = 124
	exitFailure = 125
)

// RefusedError says that a run was refused before the agent started: a protection could not be put up, or the policy
// asks for what this version can't do.
type RefusedError struct {
	Reason string
	Hint   string // what mends it
}

func (e *RefusedError) Error() string {
	if e.Hint == "" {
		return e.Reason
	}
	return e.Reason + "\nhint: " + e.Hint
}

// cleanupTimeout bounds what is done after a run has ended or was cancelled.
const cleanupTimeout = 30 * time.Second

// run is one execution.
type run struct {
	cfg      Config
	id       string
	dir      *runs.Run
	rec      *event.Recorder
	refusals *event.Refusals

	engine  *engine.Engine
	gateway *egress.Gateway
	watcher *watcher
	ids     workspace.IDs
	image   engine.Image
	plan    *Plan
	view    *workspace.View
	lowered []event.Lowered
	head    head
	hidden  bool // the view's hidden files have been seen to

	fallback string // why the network is not captured; empty: it is

	// What goes into the plan, and so has to be there before it.
	grants    []credential.Grant
	authority []byte // the run's certificate in PEM; nil: nothing is intercepted
}

// Run runs the task of cfg. An error means that we failed, or refused; Result is the record's either way. Cancelling
// ctx stops the agent: its cause may be a SignalError.
func Run(ctx context.Context, cfg Config) (Result, error) {
	r := &run{cfg: cfg}
	dir, err := cfg.Store.Create(runs.NewID(time.Now()))
	if err != nil {
		return Result{ExitCode: exitFailure}, err
	}
	defer dir.Close()
	r.dir, r.id = dir, string(dir.ID)
	chain, err := dir.Events()
	if err != nil {
		return Result{Run: r.id, ExitCode: exitFailure}, err
	}
	r.rec, err = event.NewRecorder(event.Config{Run: r.id, Handlers: append([]event.Handler{chain}, cfg.Handlers...)})
	if err != nil {
		return Result{Run: r.id, ExitCode: exitFailure}, err
	}
	r.refusals = event.NewRefusals(r.rec.Emit)
	r.rec.Emit(r.started())
	end, err := r.execute(ctx)
	r.refusals.Flush()
	summary := r.rec.Finish(r.finished(end, err))
	err = errors.Join(err, r.rec.Err(), dir.Finish(summary))
	if err != nil && summary.ExitCode == 0 {
		summary.ExitCode = exitFailure
	}
	return Result{Run: r.id, Dir: dir.Dir(), ExitCode: summary.ExitCode, Summary: summary}, err
}

// ending is how the agent's part of a run ended.
type ending struct {
	exit   link.Exit
	reason event.ExitReason
	why    string // for people, where the reason alone does not tell
	signal int    // that cancelled the run
}

// stopped tells whether it was our doing.
func (e ending) stopped() bool {
	return e.reason == event.TimedOut || e.reason == event.CancelledBy || e.reason == event.Killed
}

// finished is the run's last event.
func (r *run) finished(end ending, err error) event.RunFinished {
	var refused *RefusedError
	f := event.RunFinished{ExitCode: end.exit.Code}
	switch {
	case errors.As(err, &refused):
		f.Outcome, f.ExitCode, f.Reason = event.Refused, exitFailure, refused.Reason
	case end.why != "":
		f.Outcome, f.Reason = event.Failure, end.why
	case err != nil && end.reason != event.CancelledBy:
		f.Outcome, f.ExitCode = event.Errored, exitFailure
		// The mend is for whoever called; the record says what happened, in one line.
		f.Reason, _, _ = strings.Cut(err.Error(), "\nhint:")
	case end.reason == event.TimedOut:
		f.Outcome, f.ExitCode, f.Reason = event.Timeout, exitTimeout, "the time limit of "+r.timeout().String()+" was reached"
	case end.reason == event.CancelledBy:
		f.Outcome, f.ExitCode, f.Reason = event.Cancelled, 128+end.signal, "cancelled by "+signalName(end.signal)
	case end.reason == event.OOMKilled:
		f.Outcome, f.Reason = event.OOM, "the memory limit of "+r.cfg.Policy.Resources.Memory.String()+" was reached"
	case end.reason == event.NotStarted:
		f.Outcome, f.Reason = event.Failure, end.exit.Error
	case end.exit.Code != 0:
		f.Outcome = event.Failure
	default:
		f.Outcome = event.Success
	}
	return f
}

// execute runs the phases. Whatever it made is gone when it returns.
func (r *run) execute(ctx context.Context) (end ending, err error) {
	if err := r.resolve(ctx); err != nil {
		return end, cancelledBy(ctx, &end, err)
	}
	defer func() { err = r.leave(ctx, err) }()
	if err := r.prepare(ctx); err != nil {
		return end, cancelledBy(ctx, &end, err)
	}
	box, err := r.launch(ctx)
	if err != nil {
		return end, cancelledBy(ctx, &end, err)
	}
	end, err = box.supervise(ctx)
	r.rec.Emit(exited(end))
	if err != nil {
		return end, errors.Join(err, box.close(ctx))
	}
	err = box.link.drain(ctx, end.stopped())
	return end, errors.Join(err, r.collect(ctx, box))
}

// cancelledBy turns the failure of a cancelled run into its cancellation.
func cancelledBy(ctx context.Context, end *ending, err error) error {
	if ctx.Err() == nil {
		return err
	}
	end.reason, end.signal = event.CancelledBy, signalOf(ctx)
	return nil
}

// resolve connects to the engine, settles what follows from its facts, and has somebody watch over what the run makes
// there. After it, leave must be called.
func (r *run) resolve(ctx context.Context) (err error) {
	defer r.rec.Phase(event.Resolve)()
	var beside errgroup.Group
	beside.Go(r.watch)
	beside.Go(r.openGateway)
	beside.Go(func() error { return r.credentials(ctx) })
	r.engine, err = engine.Connect(ctx, r.cfg.Engine)
	if err = errors.Join(err, beside.Wait()); err == nil {
		err = r.cannot()
	}
	if err == nil {
		err = r.knownUncapturable(r.engine.Facts())
	}
	if err == nil {
		r.ids, err = r.agentIDs()
	}
	if err != nil { // nothing has been made
		r.watcher.dismiss()
		return errors.Join(err, r.engine.Close())
	}
	return nil
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
	err = errors.Join(err, r.gateway.Close(), r.discardView(ctx), r.engine.Close())
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

// prepare finds the image, writes the plan and sets the view of the workspace up: all that can be done before there
// is a container. The three parts don't need each other, and each waits for something else.
func (r *run) prepare(ctx context.Context) error {
	r.authority = r.cfg.testAuthority()
	var g errgroup.Group
	g.Go(func() error { return r.planImage(ctx) })
	g.Go(func() error { return r.prepareView(ctx) })
	g.Go(func() error {
		r.head = readHead(ctx, r.cfg.Project)
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	for _, why := range r.view.Lowered {
		r.lower("workspace", why, "")
	}
	r.plan.Workspace = WorkspacePlan{Mode: r.view.Mode, Target: WorkspaceTarget}
	r.rec.Emit(r.planned())
	return nil
}

func (r *run) planImage(ctx context.Context) (err error) {
	if r.image, err = r.engine.Image(ctx, r.cfg.Image); err != nil {
		return err
	}
	r.plan, err = r.makePlan()
	return err
}

// started is the run's first event.
func (r *run) started() event.RunStarted {
	p := r.cfg.Policy
	return event.RunStarted{
		Contract: event.Contract, Runner: r.cfg.Version, Argv: r.cfg.Argv, Project: r.cfg.Project,
		Policy: event.PolicyRef{Path: p.Name(), Digest: p.Digest(), CeilingDigest: r.cfg.CeilingDigest},
		TTY:    r.cfg.TTY, Timeout: r.timeout(),
	}
}

// timeout is the task's wall-clock limit.
func (r *run) timeout() time.Duration { return cmp.Or(r.cfg.Timeout, r.cfg.Policy.Resources.Timeout) }

// planned says what was decided.
func (r *run) planned() event.RunPlanned {
	f := r.engine.Facts()
	cgroup, _ := strconv.Atoi(f.Cgroup) // 0: an engine too old to say
	return event.RunPlanned{
		Image:  event.Image{Reference: r.image.Reference, ID: r.image.ID},
		Engine: event.Engine{Version: f.Version, API: f.API, Kernel: f.Kernel, Runtime: f.Runtime, Platform: "linux/" + f.Arch, Cgroup: cgroup},
		Mode:   string(r.view.Mode),
	}
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
	r.view, err = workspace.Prepare(ctx, r.workspaceConfig())
	var no *workspace.UnsupportedError
	if errors.As(err, &no) {
		return &RefusedError{"workspace mode " + string(no.Mode) + " is not possible here: " + no.Reason, no.Hint}
	}
	return err
}

// deliver adds the guest and the mounts to the plan.
func (r *run) deliver(ctx context.Context, refill bool) error {
	done := r.watcher.creating()
	g, err := r.engine.Deliver(ctx, r.id, r.image, r.plan.Agent.UID, r.plan.Agent.GID, refill)
	done()
	if err != nil {
		return err
	}
	spec := &r.plan.Container
	spec.Guest, spec.Claim = g, r.claim() != ""
	spec.Mounts = spec.Mounts[:0]
	for _, m := range r.view.Mounts {
		spec.Mounts = append(spec.Mounts, viewMount(m))
	}
	more, err := r.policyMounts()
	if err != nil {
		return err
	}
	spec.Mounts = append(spec.Mounts, more...)
	r.plan.Lowered = r.lowered
	return nil
}

func (r *run) lower(what, why, mend string) {
	l := event.Lowered{What: what, Why: why, Mend: mend}
	r.lowered = append(r.lowered, l)
	r.rec.Emit(l)
}
