// Package runner runs one task in a sandbox, from policy to result: it decides everything in a Plan, puts the sandbox
// up through an engine, refuses to start the agent in one that is not as planned, and leaves a record of the run
// whatever happens. It reads no flags and no environment, and prints nothing.
package runner

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/credential/rotate"
	"github.com/org/agent-sandbox/runner/discover"
	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/secret"
	"github.com/org/agent-sandbox/runner/workspace"
)

// Config describes a run.
type Config struct {
	Version string // of this program, for the record

	Argv []string // the task's command; required
	// Kit is the agent that Argv starts, and what it has added to Policy; nil for another command.
	Kit *policy.KitUse

	Project string // directory on the host; required
	Subdir  string // working directory below the project, slash-separated
	Image   string // reference or id of an image that the engine has; required

	// Obtain builds or pulls Image if the engine lacks it; nil: nobody does. It comes first, and its failure is the run's.
	Obtain func(context.Context) error
	Lock   ImageLock // what the lock file says of Image

	Proxy egress.Proxy // the company's, for the runner's own dials; zero for none
	CAs   [][]byte     // PEM files of certificate authorities to trust there beside the system's

	Timeout time.Duration // wall-clock limit of the task; 0 for the policy's

	Policy        *policy.Policy // required; policy.Default() if there is no file
	Ceiling       *policy.Policy // the organisation's, which Policy has been narrowed to; nil: there is none
	CeilingDigest string         // its digest
	// Narrowed is what the ceiling has lowered in Policy, for the record.
	Narrowed []policy.Narrowing
	Learn    bool // everything public may be reached, for a policy to be learned from; recorded as lowered

	// Invocation says who or what started the run, and Task what the agent is to do in words; both for the record.
	Invocation event.Invocation
	Task       string
	// PolicyOrigin says where Policy was read from: file, project, base-branch or default; PolicyCommit is the commit, if it was not
	// the working tree. PolicyFile is the path of one that is refused.
	PolicyOrigin, PolicyCommit, PolicyFile string
	RefusedExit                            int             // exit status of a refused policy, see [Refuse]
	Signer                                 manifest.Signer // of the run's manifest; nil: it is not signed

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
	// CacheOwner tells the caches of this caller's projects from those of others with the same paths; empty: none are kept. In CI the
	// repository does.
	CacheOwner string
	// Credentials is what their sources draw on; see the fields of credential.Config.
	Credentials CredentialSources
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

// CredentialSources is what the caller knows and sources of credentials need.
type CredentialSources struct {
	// OIDC gets the identity of this CI job for an audience; nil: there is none.
	OIDC func(ctx context.Context, audience string) (secret.Value, error)
	HTTP *http.Client // for brokers and for GitHub; nil: one that knows neither Proxy nor CAs
	// Self is owner/name of the project's repository on GitHub; empty: nobody knows.
	Self      string
	GitHubAPI string // base URL; empty: github.com's
	// Keep is the directory for what is to be revoked if this process is killed; empty: nothing is kept.
	Keep string
	// Book remembers when which secret was seen and used; nil: nobody does.
	Book *rotate.Book
	// KeepWith gets the same instead, whenever there are others.
	KeepWith func([]credential.Kept) error
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
	dry      bool // nothing is issued, and nothing started
	dir      *runs.Run
	rec      *event.Recorder
	refusals *event.Refusals
	secrets  secrets

	engine   *engine.Engine
	gateway  *egress.Gateway
	watcher  *watcher
	ids      workspace.IDs
	image    engine.Image
	locked   bool // it is the one that the lock names
	plan     *Plan
	view     *workspace.View
	lowered  []event.Lowered
	head     head
	search   *workspace.Search
	hidden   bool                  // the view's hidden files have been seen to
	began    bool                  // an agent may have written into the view
	saved    bool                  // its changes are on the disk
	reported bool                  // and all that is said of them
	dead     bool                  // it died, and another process reads its changes
	attrs    workspace.XattrReader // in tests: in the place of one that takes root's rights

	paths workspace.Paths // where an engine that is not on this host has our directories; nil: nowhere
	apart string          // why

	fallback string // why the network is not captured; empty: it is

	// What goes into the plan, and so has to be there before it.
	caches    []CachePlan
	cacheless string // why there are none, though the policy has them; empty: there are
	grants    []credential.Grant
	issued    *credential.Set         // nil: none was asked for
	kept      map[string]secret.Value // those of issued that somebody keeps, by credential
	authority []byte                  // the run's certificate in PEM; nil: nothing is intercepted
	found     discover.Result
	expanded  *policy.Policy // the policy with the hosts of its bundles

	lookOnce sync.Once
	looked   sync.WaitGroup // of what look began

	compile   sync.Once // sets protector
	protector *policy.Protector
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
	Sealer{Signer: cfg.Signer, Policy: cfg.Policy, Task: cfg.Task, Redact: r.secrets.text, weakened: cfg.evidence()}.Seal(ctx, dir)
	chain, err := dir.Events()
	if err != nil {
		return Result{Run: r.id, ExitCode: exitFailure}, err
	}
	r.secrets.known(cfg)
	r.rec, err = event.NewRecorder(event.Config{Run: r.id, Redact: r.secrets.text, Handlers: append([]event.Handler{chain}, cfg.Handlers...)})
	if err != nil {
		return Result{Run: r.id, ExitCode: exitFailure}, err
	}
	r.refusals = event.NewRefusals(r.rec.Emit)
	r.cfg.boundless(r.refusals)
	r.rec.Emit(r.started())
	for _, n := range cfg.Narrowed {
		r.rec.Emit(event.Warning{Message: "ceiling: " + n.String()})
	}
	end, err := r.execute(ctx)
	err = r.secrets.err(err)
	r.refusals.Flush()
	r.look(ctx) // a run that did not get that far
	r.looked.Wait()
	r.used(context.WithoutCancel(ctx))
	r.secrets.report(r.rec.Emit)
	summary := r.rec.Finish(r.finished(end, err))
	err = errors.Join(err, r.rec.Err(), dir.Finish(summary))
	summary.Manifest = dir.Sealed()
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
	silent bool   // the guest did not live to tell
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
		f.Outcome, f.Reason = event.Failure, r.exitMeaning(end)
	default:
		f.Outcome = event.Success
	}
	return f
}

// execute runs the phases. Whatever it made is gone when it returns.
func (r *run) execute(ctx context.Context) (end ending, err error) {
	defer r.giveBack(ctx) // when nothing can use them any more
	if r.cfg.Obtain != nil {
		if err := r.cfg.Obtain(ctx); err != nil {
			return end, cancelledBy(ctx, &end, err)
		}
	}
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
	r.began = true
	end, err = box.supervise(ctx)
	r.rec.Emit(exited(end))
	if err != nil {
		return end, errors.Join(err, box.close(ctx))
	}
	err = box.link.drain(ctx, end.stopped())
	return end, errors.Join(err, r.collect(ctx, box), r.lacksProgram(end))
}

// cancelledBy turns the failure of a cancelled run into its cancellation.
func cancelledBy(ctx context.Context, end *ending, err error) error {
	if ctx.Err() == nil {
		return err
	}
	end.reason, end.signal = event.CancelledBy, signalOf(ctx)
	return nil
}

// started is the run's first event.
func (r *run) started() event.RunStarted {
	p := r.cfg.Policy
	return event.RunStarted{
		Contract: event.Contract, Runner: r.cfg.Version, Argv: r.cfg.Argv, Project: r.cfg.Project,
		Policy: event.PolicyRef{
			Path: p.Name(), Digest: p.Digest(), CeilingDigest: r.cfg.CeilingDigest, Origin: r.cfg.PolicyOrigin, Commit: r.cfg.PolicyCommit,
		},
		TTY: r.cfg.TTY, Timeout: r.timeout(), Kit: r.kitName(), Invocation: r.cfg.Invocation, Task: taskOf(r.cfg.Task, r.cfg.Argv),
	}
}

// timeout is the task's wall-clock limit.
func (r *run) timeout() time.Duration { return cmp.Or(r.cfg.Timeout, r.cfg.Policy.Resources.Timeout) }

// planned says what was decided.
func (r *run) planned() event.RunPlanned {
	f := r.engine.Facts()
	cgroup, _ := strconv.Atoi(f.Cgroup) // 0: an engine too old to say
	return event.RunPlanned{
		Image: event.Image{
			Reference: r.image.Reference, ID: r.image.ID, Digest: r.image.Digest(), Locked: r.locked, Override: r.cfg.Lock.Override,
		},
		Engine: event.Engine{Version: f.Version, API: f.API, Kernel: f.Kernel, Runtime: f.Runtime, Platform: "linux/" + f.Arch, Cgroup: cgroup},
		Mode:   string(r.view.Mode),
	}
}
