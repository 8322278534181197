// Package guest is process 1 in the container: it captures the network, drops every privilege, starts the agent's
// program and relays its streams and connections to the runner over one link. It decides nothing: each connection
// and each name is the runner's to allow. It trusts the runner and the kernel, never the agent.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// Run is the life of the guest: it returns when the agent has ended and the runner has closed the link, or at once
// when the link breaks. As process 1 returns, the kernel kills whatever is left in the sandbox. The session is left
// open: closing it waits for a read of standard input, which a dead engine's shim keeps open.
func Run(in io.ReadCloser, out io.WriteCloser) error {
	session, err := link.NewGuest(pipes{in, out})
	if err != nil {
		return err
	}
	control, err := session.Open(link.Header{Purpose: link.Control})
	if err != nil {
		return err
	}
	g := &guest{session: session, control: control}
	ran := make(chan error, 1)
	go func() { ran <- g.run() }()
	select {
	case err = <-ran:
	case <-session.Done():
		// The runner has died or hung up. Whatever the agent is at, this is the end.
		return nil
	}
	var f *stepError
	switch {
	case errors.As(err, &f):
		_ = g.send(link.Frame{Failure: &link.Failure{Step: f.step, Reason: f.err.Error()}})
	case err != nil:
		return err
	}
	<-session.Done() // the runner has read everything, then it hangs up
	return err
}

type guest struct {
	session *link.Session
	control *link.Stream

	lane     *link.Lane // nil: everything goes over session
	relay    *relay
	resolver *resolver
	packets  *reporter // nil where the kernel has no netfilter log

	mu sync.Mutex // guards writes to control: frames must not interleave
}

// stepError is a failure to put up the sandbox: the agent has not been started.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func (g *guest) run() error {
	// The network needs nothing from the runner, so set it up while the runner still waits for our first bytes.
	net, uncaptured := newCapture()
	start, err := g.receiveStart()
	if err != nil {
		return &stepError{"start", err}
	}
	if err := asTold(start, uncaptured); err != nil {
		return &stepError{link.StepNetwork, err}
	}
	a, err := g.prepare(start, net)
	if err != nil {
		return err
	}
	return g.supervise(a, start.TTY)
}

// asTold is why the network is not what the runner believes.
func asTold(start *link.Start, uncaptured error) error {
	switch {
	case !start.Loopback.IsValid():
		return uncaptured
	case !errors.Is(uncaptured, errNoAdmin):
		return errors.New("the engine grants CAP_NET_ADMIN, which was not asked for")
	}
	return nil
}

func (g *guest) receiveStart() (*link.Start, error) {
	f, err := link.ReadFrame(g.control)
	if err != nil {
		return nil, err
	}
	switch s := f.Start; {
	case s == nil:
		return nil, errors.New("the first message was not start")
	case s.Version != link.Version:
		return nil, fmt.Errorf("the runner speaks version %d of the link, this guest %d", s.Version, link.Version)
	case len(s.Argv) == 0:
		return nil, errors.New("no command")
	default:
		return s, nil
	}
}

// prepare does everything up to the moment before the agent's program starts, and reports what it measured.
func (g *guest) prepare(start *link.Start, net *capture) (*agent, error) {
	if err := hide(); err != nil {
		return nil, &stepError{"hide", err}
	}
	if len(start.Lane) > 0 { // now: a change of rights must not be in between
		g.lane, _ = link.DialLane(start.Lane) // without it the session carries everything, as on an engine elsewhere
	}
	for _, dir := range start.Claim {
		if err := os.Lchown(dir, start.UID, start.GID); err != nil {
			return nil, &stepError{"own directories", err}
		}
	}
	files, err := createFiles(link.FilesDir, start)
	if err != nil {
		return nil, &stepError{"files", err}
	}
	if err := dropPrivileges(start.UID, start.GID); err != nil {
		return nil, &stepError{"drop privileges", err}
	}
	if err := hide(); err != nil { // changing ids may have reset it (prctl(2))
		return nil, &stepError{"hide", err}
	}
	trusted, err := files.fill(start, usualPlaces())
	if err != nil {
		return nil, &stepError{"files", err}
	}
	spareThreads() // now: each change of rights is made in every thread
	if start.Loopback.IsValid() {
		if net, err = newLoopback(start.Loopback); err != nil {
			return nil, &stepError{link.StepNetwork, err}
		}
	}
	g.serveNetwork(net)
	o := order{Argv: start.Argv, Env: start.Env, Dir: start.Dir, UID: start.UID, GID: start.GID, Lane: g.lane != nil}
	a, measured, err := startAgent(o, start.TTY, start.Size)
	if err != nil {
		return nil, &stepError{"measure", err}
	}
	net.state.Lane = g.lane != nil
	measured.Network, measured.Isolation.GuestDumpable, measured.Trust = net.state, dumpable(), trusted
	if err := g.send(link.Frame{Measured: measured}); err != nil {
		return nil, err
	}
	f, err := link.ReadFrame(g.control)
	if err != nil {
		return nil, err
	}
	if f.Go == nil {
		return nil, errors.New("expected go")
	}
	return a, nil
}

func (g *guest) serveNetwork(net *capture) {
	streams := ways{g.lane, g.session}
	g.relay = newRelay(streams, g.send)
	lookup := askRunner(streams, nil)
	if net.state.Listeners {
		g.relay.dialled = listenerAddress
		lookup = askRunner(streams, newOpenings(g.relay).listen)
	}
	for _, l := range net.relay {
		g.relay.start(l)
	}
	g.resolver = newResolver(lookup, newLocalNames(net.state.IPv6))
	for _, c := range net.dns {
		g.resolver.start(context.Background(), c)
	}
	if net.packets != nil {
		g.packets = newReporter(net.packets, g.send)
		go g.packets.run()
	}
}

// settle reports what the agent did to the network in its last moment. Nobody is left to do more.
func (g *guest) settle() {
	if skip("settle") {
		return
	}
	var all sync.WaitGroup
	all.Go(g.relay.finish)
	all.Go(g.resolver.finish)
	if g.packets != nil {
		all.Go(g.packets.finish)
	}
	all.Wait()
}

// supervise runs the agent to its end and reports it.
func (g *guest) supervise(a *agent, tty bool) error {
	if err := copyOutput(g.session, link.Stdout, a.ends.out); err != nil {
		return err
	}
	if a.ends.err != nil {
		if err := copyOutput(g.session, link.Stderr, a.ends.err); err != nil {
			return err
		}
	}
	if err := copyInput(g.session, a.ends.in, tty); err != nil {
		return err
	}
	failed, err := a.release()
	if err != nil {
		return err
	}
	if failed == nil {
		if err := g.send(link.Frame{Started: &link.Started{PID: a.pid}}); err != nil {
			return err
		}
	}
	go g.obey(a, tty)
	status := reap(a.pid)
	g.settle()
	// The rest of the output is on its way, and takes as long as the runner's caller wants: the end must not wait for it.
	exit := exitOf(status)
	if failed != nil {
		exit.Code, exit.Error = failed.Code, failed.Error
	}
	u := cgroupUsage(cgroupRoot)
	exit.OOMKills, exit.PeakMemory, exit.CPUMicros, exit.PeakPIDs = u.oomKills, u.peakMemory, u.cpuMicros, u.peakPIDs
	return g.send(link.Frame{Exit: &exit})
}

// obey carries out the runner's signals and terminal sizes until the link ends.
func (g *guest) obey(a *agent, tty bool) {
	for {
		f, err := link.ReadFrame(g.control)
		if err != nil {
			return
		}
		switch {
		case f.Signal != nil:
			// The group may be gone already: its exit is on the way.
			_ = a.signal(f.Signal.Number)
		case f.Resize != nil && tty:
			_ = setSize(a.ends.out, *f.Resize)
		case f.Reset != nil:
			g.relay.resets.Reset(*f.Reset)
		}
	}
}

func (g *guest) send(f link.Frame) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return link.WriteFrame(g.control, f)
}

// reap waits for main, collecting every orphan meanwhile (process 1 inherits them), then kills what main left
// behind and waits for that too: once the agent has ended nothing may change the workspace any more.
func reap(main int) unix.WaitStatus {
	var status unix.WaitStatus
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			break // ECHILD: cannot be, main is ours and has not ended
		}
		if pid == main {
			status = ws
			break
		}
	}
	for {
		_ = unix.Kill(-1, unix.SIGKILL)
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return status
		}
	}
}

func exitOf(ws unix.WaitStatus) link.Exit {
	if ws.Signaled() {
		return link.Exit{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	return link.Exit{Code: ws.ExitStatus()}
}

// pipes joins the guest's standard input and output to one connection.
type pipes struct {
	io.ReadCloser
	out io.WriteCloser
}

func (p pipes) Write(b []byte) (int, error) { return p.out.Write(b) }

func (p pipes) Close() error { return errors.Join(p.ReadCloser.Close(), p.out.Close()) }
