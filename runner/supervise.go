package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// SignalError is the cause of a context that a signal cancelled.
type SignalError struct{ Signal os.Signal }

func (e *SignalError) Error() string { return e.Signal.String() }

// Linux's numbers, which the guest understands wherever the runner runs (signal(7)).
const (
	sigINT  = 2
	sigKILL = 9
	sigTERM = 15
)

// signalOf is the signal that cancelled ctx; SIGTERM if something else did.
func signalOf(ctx context.Context) int {
	var s *SignalError
	if errors.As(context.Cause(ctx), &s) {
		if s.Signal == os.Interrupt {
			return sigINT
		}
		if n, ok := s.Signal.(syscall.Signal); ok {
			return int(n)
		}
	}
	return sigTERM
}

// supervise lets the agent start and waits for its end, which it brings about at the time limit or when ctx ends:
// first by asking, after the grace period by SIGKILL. An error means that the link broke.
func (b *sandbox) supervise(ctx context.Context) (ending, error) {
	finished := b.run.rec.Phase(event.Agent)
	defer finished()
	if b.run.view.Mode == policy.ModeBind { // the agent changes what is looked at
		b.run.look(ctx)
		b.run.looked.Wait()
	}
	if err := link.WriteFrame(b.control, link.Frame{Go: &link.Go{}}); err != nil {
		return lost(""), fmt.Errorf("release the agent: %w", err)
	}
	b.run.look(ctx)
	limit := time.NewTimer(time.Duration(b.run.plan.Timeout))
	defer limit.Stop()
	diskCtx, unguard := context.WithCancel(ctx)
	defer unguard()
	full := b.run.guardDisk(diskCtx)
	s := stopper{box: b, grace: time.Duration(b.run.plan.Grace)}
	defer s.stopTimer()
	for {
		select {
		case f, ok := <-b.frames:
			if !ok {
				return lost(s.reason), b.died("while the agent ran")
			}
			if f.Exit != nil {
				return s.end(*f.Exit), nil
			}
			b.note(f)
		case size := <-b.run.cfg.Resize:
			b.send(link.Frame{Resize: &size})
		case <-limit.C:
			s.stop(event.TimedOut, sigTERM)
		case err := <-unlessStopping(full, s.reason):
			s.why = err.Error()
			s.stop(event.Killed, sigKILL)
		case <-unlessStopping(ctx.Done(), s.reason):
			s.signal = signalOf(ctx)
			s.stop(event.CancelledBy, s.signal)
		case <-unlessStopping(b.run.rec.Failed(), s.reason):
			// What can't be recorded must not go on.
			s.stop(event.Killed, sigKILL)
		case <-s.timer():
			if !s.escalate() {
				return lost(s.reason), errors.New("the guest does not report the agent's end")
			}
		}
	}
}

// note records what the guest reports while the agent runs.
func (b *sandbox) note(f link.Frame) {
	switch {
	case f.Started != nil:
		b.run.rec.Emit(event.AgentStarted{PID: f.Started.PID, Workdir: b.run.plan.Dir})
	case f.Refused != nil:
		b.run.refuse(f.Refused)
	}
}

// send tells the guest something. If it can't be told, the link has broken, which supervise sees for itself.
func (b *sandbox) send(f link.Frame) { _ = link.WriteFrame(b.control, f) }

// stopper brings the agent's end about, harder each time.
type stopper struct {
	box    *sandbox
	grace  time.Duration
	reason event.ExitReason
	why    string // for people, where the reason alone does not tell
	signal int
	killed bool
	next   *time.Timer
}

// stop asks the agent to end. The first reason is the one that counts.
func (s *stopper) stop(reason event.ExitReason, signal int) {
	if s.reason != "" {
		return
	}
	s.reason = reason
	s.box.send(link.Frame{Signal: &link.Signal{Number: signal}})
	s.killed = signal == sigKILL
	wait := s.grace
	if s.killed {
		wait = lostTimeout
	}
	s.next = time.NewTimer(wait)
}

// escalate kills; it reports false if that was done before.
func (s *stopper) escalate() bool {
	if s.killed {
		return false
	}
	s.killed = true
	s.box.send(link.Frame{Signal: &link.Signal{Number: sigKILL}})
	s.next.Reset(lostTimeout)
	return true
}

func (s *stopper) timer() <-chan time.Time {
	if s.next == nil {
		return nil
	}
	return s.next.C
}

func (s *stopper) stopTimer() {
	if s.next != nil {
		s.next.Stop()
	}
}

// end says why the agent ended: by our doing, or else as its exit tells.
func (s *stopper) end(exit link.Exit) ending {
	e := ending{exit: exit, reason: s.reason, why: s.why, signal: s.signal}
	switch {
	case e.reason != "":
	case exit.Error != "":
		e.reason = event.NotStarted
	case exit.OOMKills > 0 && exit.Code != 0:
		e.reason = event.OOMKilled
	case exit.Signal != 0:
		e.reason = event.Signalled
	default:
		e.reason = event.Exited
	}
	return e
}

// lost is the end of an agent whose sandbox ended with it, or is about to be ended.
func lost(reason event.ExitReason) ending {
	return ending{exit: link.Exit{Code: exitFailure, OOMKills: -1, PeakMemory: -1, CPUMicros: -1, PeakPIDs: -1}, reason: cmp.Or(reason, event.Killed), silent: true}
}

// exited is the event of the agent's end.
func exited(e ending) event.AgentExited {
	out := event.AgentExited{
		Code: e.exit.Code, Reason: e.reason, Error: e.exit.Error, Silent: e.silent,
		OOMKills: e.exit.OOMKills, PeakMemory: e.exit.PeakMemory, CPUMicros: e.exit.CPUMicros, PeakPIDs: e.exit.PeakPIDs,
	}
	if e.exit.Signal != 0 {
		out.Signal = signalName(e.exit.Signal)
	}
	return out
}

// signalName is Linux's name for a signal number.
func signalName(n int) string {
	names := [...]string{
		1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
		9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
		24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS",
	}
	if n > 0 && n < len(names) && names[n] != "" {
		return names[n]
	}
	return fmt.Sprintf("signal %d", n)
}
