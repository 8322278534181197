package runner

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// fakeGuest is the other end of a sandbox that has no container: the tests speak for it.
type fakeGuest struct {
	t       *testing.T
	session *link.Session
	control *link.Stream
}

// events keeps what was recorded.
type events struct {
	mu   sync.Mutex // guards list
	list []event.Event
	fail error // what Handle returns from now on
}

func (e *events) Handle(env event.Envelope) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, env.Data)
	return e.fail
}

// break lets the record fail at the next event.
func (e *events) breakWith(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = err
}

func (e *events) of(kind string) (found []event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.list {
		if ev.Kind() == kind {
			found = append(found, ev)
		}
	}
	return found
}

// newRun is a run with a record, and without an engine.
func newRun(t *testing.T, cfg Config) (*run, *events) {
	t.Helper()
	store, err := runs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := store.Create(runs.NewID(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close(); _ = store.Close() })
	cfg.Store = store
	if cfg.Policy == nil {
		cfg.Policy = policy.Default()
	}
	if cfg.Stdout == nil {
		cfg.Stdout = io.Discard
	}
	if cfg.Stderr == nil {
		cfg.Stderr = io.Discard
	}
	if cfg.LookupEnv == nil {
		cfg.LookupEnv = func(string) (string, bool) { return "", false }
	}
	var log events
	r := &run{cfg: cfg, id: string(dir.ID), dir: dir, engine: &engine.Engine{}, view: &workspace.View{Mode: policy.ModeReadonly}}
	if r.rec, err = event.NewRecorder(event.Config{Run: r.id, Handlers: []event.Handler{&log}}); err != nil {
		t.Fatal(err)
	}
	r.refusals = event.NewRefusals(r.rec.Emit)
	if err := r.openGateway(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.gateway.Close() })
	r.plan = &Plan{Timeout: Duration(time.Hour), Grace: Duration(time.Hour), Output: 1 << 20}
	return r, &log
}

// newBox connects a run to a fake guest, up to the control stream.
func newBox(t *testing.T, r *run) (*sandbox, *fakeGuest) {
	t.Helper()
	a, b := net.Pipe()
	session, err := link.NewRunner(a)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := link.NewGuest(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = guest.Close(); _ = session.Close() })
	box := &sandbox{run: r, session: session, diag: &tail{limit: maxDiagnosis}, frames: make(chan link.Frame), link: newServer(r, session)}
	control, err := guest.Open(link.Header{Purpose: link.Control})
	if err != nil {
		t.Fatal(err)
	}
	box.control = <-box.link.control
	go box.readFrames()
	return box, &fakeGuest{t, guest, control}
}

func (g *fakeGuest) send(f link.Frame) {
	g.t.Helper()
	if err := link.WriteFrame(g.control, f); err != nil {
		g.t.Errorf("the guest can't send: %v", err)
	}
}

// raw sends text as a frame, whatever it is. The runner may have had enough by then.
func (g *fakeGuest) raw(text string) {
	_, _ = g.control.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
}

// receive is the next frame from the runner.
func (g *fakeGuest) receive() link.Frame {
	g.t.Helper()
	f, err := link.ReadFrame(g.control)
	if err != nil {
		g.t.Errorf("the guest can't read: %v", err)
	}
	return f
}

// wantSignal is the next frame.
func (g *fakeGuest) wantSignal(number int) {
	g.t.Helper()
	if f := g.receive(); f.Signal == nil || f.Signal.Number != number {
		b, _ := json.Marshal(f)
		g.t.Errorf("the runner sent %s, want signal %d", b, number)
	}
}

// open opens a stream and sends text over it.
func (g *fakeGuest) open(p link.Purpose, text string) *link.Stream {
	g.t.Helper()
	st, err := g.session.Open(link.Header{Purpose: p})
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := io.Copy(st, strings.NewReader(text)); err != nil {
		g.t.Fatal(err)
	}
	return st
}

// logOf is a file of the run.
func logOf(t *testing.T, r *run, name string) string {
	t.Helper()
	b, err := os.ReadFile(r.dir.Path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// cancelled is a context that a signal ends when the function is called.
func cancelled(t *testing.T) (context.Context, context.CancelCauseFunc) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	return ctx, cancel
}
