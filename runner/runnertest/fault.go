package runnertest

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Fault is what goes wrong with requests. The zero Fault changes nothing.
type Fault struct {
	// Method and Path (a prefix, without /api/v3) choose the requests; empty is any.
	Method, Path string
	// Skip lets so many of them through first; Times is how many it then hits, 0 for all.
	Skip, Times int
	// Hold delays the request until it is closed, or the client has gone: before anything is done, or where After is not 0, when so
	// many bytes of its body were read. Held is called then, if it is given.
	Hold  <-chan struct{}
	After int64
	Held  func()
	// Latency delays the request.
	Latency time.Duration
	// Status answers with this status in place of what was asked for. 403 and 429 are rate limits, with Retry-After.
	Status int
	// Drop does what was asked, and closes the connection in place of the answer.
	Drop bool
}

// faults are those of one server.
type faults struct {
	mu   sync.Mutex // guards list, and what the faults in it have left
	list []*Fault
}

// Inject adds a fault. The function that it returns ends it.
func (fs *faults) Inject(f Fault) (end func()) {
	if f.Times == 0 {
		f.Times = 1 << 30
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.list = append(fs.list, &f)
	return func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		f.Times = 0
	}
}

// pick is the one that hits this request, if any.
func (fs *faults) pick(method, path string) Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.list {
		if f.Times == 0 || f.Method != "" && f.Method != method || !strings.HasPrefix(path, f.Path) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		f.Times--
		return *f
	}
	return Fault{}
}

func (f Fault) wait(r *http.Request) {
	switch {
	case f.Hold != nil && f.After > 0:
		r.Body = &heldBody{ReadCloser: r.Body, fault: f, gone: r.Context().Done()}
	case f.Hold != nil:
		f.hold(r.Context().Done())
	}
	if f.Latency > 0 {
		timer := time.NewTimer(f.Latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
	}
}

func (f Fault) hold(gone <-chan struct{}) {
	if f.Held != nil {
		f.Held()
	}
	select {
	case <-f.Hold:
	case <-gone:
	}
}

// heldBody is held once, in its middle.
type heldBody struct {
	io.ReadCloser
	fault Fault
	gone  <-chan struct{}
	read  int64
	held  bool
}

func (b *heldBody) Read(p []byte) (int, error) {
	if b.read >= b.fault.After && !b.held {
		b.held = true
		b.fault.hold(b.gone)
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, err
}
