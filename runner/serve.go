package runner

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/runs"
)

// server answers the streams that the guest opens. All of it is untrusted: a stream that says something unexpected
// is closed, and a second one of a kind that there is once is refused.
type server struct {
	run      *run
	loopback bool // names are answered with addresses to listen on
	session  *link.Session
	control  chan *link.Stream
	outputs  sync.WaitGroup
	streams  sync.WaitGroup
	slots    chan struct{}
	logs     *budget
	resets   link.Resets

	rest rest // of the output, once the agent has ended

	mu      sync.Mutex // guards what follows
	seen    map[link.Purpose]bool
	told    *link.Stream // the control stream
	lost    error        // output that the caller could not be given
	reading []*agentOutput
	over    bool // the agent has ended
}

func newServer(r *run, s *link.Session) *server {
	v := &server{
		run: r, loopback: r.plan.Network.Fallback != "", session: s, control: make(chan *link.Stream, 1),
		slots: make(chan struct{}, r.cfg.streams()), logs: &budget{left: r.plan.Output}, seen: map[link.Purpose]bool{}, rest: usualRest(),
	}
	// Both outputs count from the start, so that waiting for them can't begin before they do.
	v.outputs.Add(1)
	if !r.cfg.TTY {
		v.outputs.Add(1)
	}
	v.streams.Go(v.accept)
	return v
}

func (v *server) accept() {
	ctx, cancel := context.WithCancel(context.Background()) // it ends with the session
	defer cancel()
	for {
		stream, err := v.session.Accept()
		if err != nil {
			v.abandonOutputs()
			return
		}
		v.slots <- struct{}{}
		v.streams.Go(func() {
			defer func() { <-v.slots }()
			v.serve(ctx, stream)
		})
	}
}

// abandonOutputs stops waiting for outputs that the guest never opened, and tells whether there are any.
func (v *server) abandonOutputs() (found bool) {
	for _, p := range []link.Purpose{link.Stdout, link.Stderr} {
		if v.first(p) && (p == link.Stdout || !v.run.cfg.TTY) {
			found = true
			v.outputs.Done()
		}
	}
	return found
}

// first reports whether this is the first stream of its purpose.
func (v *server) first(p link.Purpose) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.seen[p]
	v.seen[p] = true
	return !was
}

func (v *server) serve(ctx context.Context, stream *link.Stream) {
	h, err := stream.ReadHeader()
	if err != nil {
		_ = stream.GiveUp()
		return
	}
	switch {
	case stream.OnLane() && h.Purpose != link.Connect && h.Purpose != link.Resolve:
		_ = stream.GiveUp()
	case h.Purpose == link.Connect:
		v.connect(ctx, stream, h)
	case h.Purpose == link.Resolve:
		v.resolve(stream, h)
	case h.Purpose == link.Stderr && v.run.cfg.TTY, !known(h.Purpose), !v.first(h.Purpose):
		_ = stream.GiveUp()
	case h.Purpose == link.Control:
		v.mu.Lock()
		v.told = stream
		v.mu.Unlock()
		v.control <- stream
	case h.Purpose == link.Stdin:
		v.input(stream)
	case h.Purpose == link.Stdout:
		defer v.outputs.Done()
		v.output(stream, v.run.cfg.Stdout, runs.StdoutFile)
	case h.Purpose == link.Stderr:
		defer v.outputs.Done()
		v.output(stream, v.run.cfg.Stderr, runs.StderrFile)
	}
}

// send tells the guest something.
func (v *server) send(f link.Frame) error {
	v.mu.Lock()
	control := v.told
	v.mu.Unlock()
	if control == nil {
		return errors.New("the guest has no control stream")
	}
	return link.WriteFrame(control, f)
}

// known are the purposes that there is one stream of. Nothing is remembered of any other.
func known(p link.Purpose) bool {
	return p == link.Control || p == link.Stdin || p == link.Stdout || p == link.Stderr
}

// refuse records traffic that the guest's kernel refused.
func (r *run) refuse(p *link.Refused) {
	if !p.Addr.IsValid() {
		r.refusals.Unlisted(p.Count)
		return
	}
	r.refusals.Connections(event.ConnectionRefused{
		Proto: p.Proto, Address: printableAddr(p.Addr.Addr()), Port: p.Addr.Port(), Reason: "only TCP can leave the sandbox",
	}, max(p.Count, 1))
}

func printableAddr(a netip.Addr) string { return a.WithZone("").Unmap().String() }

// input copies the caller's input to the agent. It is not waited for: a read of a terminal can't be interrupted.
func (v *server) input(stream *link.Stream) {
	go func() {
		if v.run.cfg.Stdin != nil {
			_, _ = io.Copy(struct{ io.Writer }{stream}, v.run.cfg.Stdin)
		}
		_ = stream.Close()
	}()
}

func (r *run) warn(message string) { r.rec.Emit(event.Warning{Message: message}) }
