package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/runs"
)

const (
	// startTimeout bounds the engine's start call and the guest's set-up together. They take a quarter of a second.
	startTimeout = 60 * time.Second
	// lostTimeout is how long the guest may take to report the agent's end after a kill.
	lostTimeout = 10 * time.Second
	// maxDiagnosis bounds what is kept of a guest's dying words, in bytes.
	maxDiagnosis = 4 << 10
)

// sandbox is a container with a guest that answers.
type sandbox struct {
	run       *run
	container *engine.Container
	removed   <-chan error
	session   *link.Session
	control   *link.Stream
	frames    chan link.Frame // from the guest; closed when the link ends
	link      *server
	host      *link.LaneHost // where the guest is waited for; nil: there is no lane
	lane      bool           // it came
	diag      *tail
}

// launch creates and starts the container, and returns when the guest has measured a sandbox that is as planned.
func (r *run) launch(ctx context.Context) (*sandbox, error) {
	box, err := r.start(ctx, false)
	if errors.Is(err, engine.ErrGuestMissing) {
		// Somebody pruned the guest's volume since we last used it.
		box, err = r.start(ctx, true)
	}
	if r.laneless(err) && ctx.Err() == nil {
		r.withoutLane()
		box, err = r.start(ctx, false)
	}
	if why := uncaptured(err); why != "" && r.plan.Network.Capture && ctx.Err() == nil {
		box, err = r.startUncaptured(ctx, why)
	}
	if here := r.plan.Engine.Arch; err != nil && ctx.Err() == nil && r.image.Arch != here {
		return nil, &RefusedError{
			Reason: fmt.Sprintf("the image is for %s and the engine for %s, which can't run it: %s", r.image.Arch, here, event.Printable(err.Error())),
			Hint:   "use an image for " + here + ", or install an emulator for " + r.image.Arch + " on the engine's host (binfmt_misc)",
		}
	}
	return box, err
}

// beforeStart begins what must be done when the container starts, not when it is created: finding hidden files takes as long as the
// project is large, writing the plan as long as the disk is slow.
func (r *run) beforeStart(ctx context.Context) *errgroup.Group {
	var beside errgroup.Group
	if !r.hidden {
		r.hidden = true // what fails ends the run
		beside.Go(func() error {
			if _, err := r.view.Hide(ctx); err != nil {
				return err
			}
			return r.saveRecovery()
		})
	}
	beside.Go(func() error { return r.dir.WriteJSON(runs.PlanFile, redactedJSON{&r.secrets, r.plan}) })
	return &beside
}

// start creates and starts one container, and returns when the guest in it has answered.
func (r *run) start(ctx context.Context, refill bool) (box *sandbox, err error) {
	created := r.rec.Phase(event.Create)
	defer created()
	if refill {
		if err := r.deliver(ctx, refill); err != nil {
			return nil, err
		}
	}
	host := r.openLane()
	defer func() {
		if err != nil {
			err = errors.Join(err, dropLane(host))
		}
	}()
	beside := r.beforeStart(ctx)
	done := r.watcher.creating()
	c, err := r.engine.Create(ctx, r.plan.Container)
	done()
	if err := errors.Join(err, beside.Wait()); err != nil {
		return nil, errors.Join(err, removeContainer(ctx, c))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeContainer(ctx, c))
		}
	}()
	if err := r.copyIn(ctx, c); err != nil {
		return nil, err
	}
	created()

	defer r.rec.Phase(event.Start)()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	diag := &tail{limit: maxDiagnosis}
	conn, err := c.Attach(ctx, diag)
	if err != nil {
		return nil, err
	}
	session, err := r.cfg.newLink(conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, session.Close())
		}
	}()
	box = &sandbox{run: r, host: host, container: c, session: session, diag: diag, frames: make(chan link.Frame)}
	// The container must be waited for with a context that outlives this one.
	box.removed = c.Removed(context.WithoutCancel(ctx))
	box.link = newServer(r, session)
	if err := box.begin(ctx); err != nil {
		return nil, err
	}
	// The engine has mounted everything; the descriptors that it came through are not needed any more.
	return box, r.view.Close()
}

// begin starts the container and puts the guest to work. The guest speaks well before the engine's call returns, so
// both are waited for at once.
func (b *sandbox) begin(ctx context.Context) error {
	started := make(chan error, 1)
	go func() {
		err := b.container.Start(ctx)
		if err != nil {
			_ = b.session.Close() // no guest will answer
		}
		started <- err
	}()
	err := b.handshake(ctx)
	if startErr := <-started; startErr != nil {
		return startErr // whatever the handshake says follows from it
	}
	return err
}

func removeContainer(ctx context.Context, c *engine.Container) error {
	if c == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	return c.Remove(ctx)
}

// handshake tells the guest what to run, and lets it go ahead if what it measured is what was planned.
func (b *sandbox) handshake(ctx context.Context) error {
	select {
	case b.control = <-b.link.control:
	case <-b.session.Done():
		return b.died("before it answered")
	case <-ctx.Done():
		return fmt.Errorf("the guest does not answer: %w", context.Cause(ctx))
	}
	defer b.run.rec.Phase(event.Measure)()
	p := b.run.plan
	var nonce []byte
	if b.host != nil {
		nonce = b.host.Nonce
	}
	err := link.WriteFrame(b.control, link.Frame{Start: &link.Start{
		Version: link.Version, Argv: p.Argv, Env: p.environ(), Dir: p.Dir, Claim: b.run.claim(),
		UID: p.Agent.UID, GID: p.Agent.GID, TTY: p.TTY, Size: b.run.cfg.Size,
		Files: p.files, Trust: p.trust, Loopback: p.resolver(), Lane: nonce,
	}})
	if err != nil {
		return fmt.Errorf("instruct the guest: %w", err)
	}
	go b.readFrames()
	m, err := b.measurement(ctx)
	if err != nil {
		return err
	}
	if err := b.takeLane(); err != nil {
		return err
	}
	m.Network.Lane = b.lane
	if err := b.run.insteadOf(m); err != nil {
		return err
	}
	b.run.rec.Emit(measured(m))
	if err := b.run.cfg.verdict(verify(p, m, ownNamespaces(p.Engine.Local))); err != nil {
		return err
	}
	for _, reason := range m.Network.Reasons {
		b.run.lower("network", reason, "")
	}
	if m.Trust != nil {
		for _, reason := range m.Trust.Missing {
			b.run.warn("certificates: " + event.Printable(reason))
		}
	}
	return nil
}

var errUnmeasured = errors.New("the guest sent something else than its measurement")

// measurement waits for the guest's first report.
func (b *sandbox) measurement(ctx context.Context) (*link.Measurement, error) {
	for {
		select {
		case f, ok := <-b.frames:
			switch {
			case !ok:
				return nil, b.died("while it set the sandbox up")
			case f.Failure != nil && f.Failure.Step == link.StepNetwork && b.run.plan.Network.Capture:
				return nil, &uncapturedError{event.Printable(f.Failure.Reason)}
			case f.Failure != nil:
				return nil, &RefusedError{
					Reason: fmt.Sprintf("the sandbox can't be put up: %s: %s", event.Printable(f.Failure.Step), event.Printable(f.Failure.Reason)),
					Hint:   "`agent-sandbox doctor` says what this engine lacks",
				}
			case f.Measured != nil:
				return f.Measured, nil
			case f.Refused != nil:
				b.run.refuse(f.Refused)
			default:
				return b.run.cfg.unmeasured()
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("the guest does not report: %w", context.Cause(ctx))
		}
	}
}

// readFrames passes the guest's messages on until the link ends or the guest talks nonsense.
func (b *sandbox) readFrames() {
	defer close(b.frames)
	for {
		f, err := b.run.cfg.readFrame(b.control)
		if err != nil {
			return
		}
		if f.Reset != nil {
			b.link.resets.Reset(*f.Reset) // at once, and also after the agent's end
			continue
		}
		select {
		case b.frames <- f:
		case <-b.session.Done():
			return
		}
	}
}

// died explains the end of a link that should not have ended.
func (b *sandbox) died(when string) error {
	if words := strings.TrimSpace(b.diag.String()); words != "" {
		return fmt.Errorf("the sandbox ended %s: %s", when, event.Printable(words))
	}
	return fmt.Errorf("the sandbox ended %s", when)
}

// close hangs up and waits until the engine has removed the container.
func (b *sandbox) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	err := b.session.Close()
	b.link.wait()
	gone := time.NewTimer(lostTimeout)
	defer gone.Stop()
	select {
	case waitErr := <-b.removed:
		// An engine that went away can't be asked; its containers end with it.
		return errors.Join(err, waitErr)
	case <-gone.C:
		return errors.Join(err, b.container.Remove(ctx))
	}
}

// tail keeps the first bytes written to it. It is an io.Writer that never fails.
type tail struct {
	limit int
	mu    sync.Mutex // guards text
	text  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b[:min(len(b), t.limit-len(t.text))]...)
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

var _ io.Writer = (*tail)(nil)
