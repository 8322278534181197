package runner

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/org/agent-sandbox/runner/link"
)

// rest is what a guest may still send of the agent's output once it has said that the agent has ended. A true one has a pipe full of it, and
// a window on its way. One that goes on for ever would hold the run past its time limit.
type rest struct {
	bytes int64
	time  time.Duration // that the runner waits for it; what the caller takes does not count
}

// usualRest has room for the largest pipe (pipe(7): 1 MiB, unless the host's root allows more).
func usualRest() rest { return rest{bytes: 16 << 20, time: lostTimeout} }

// errRest tells that a guest has not kept to it.
var errRest = errors.New("the guest goes on after the agent's end")

// agentOutput is a stream of the agent's output.
type agentOutput struct {
	*link.Stream

	mu    sync.Mutex // guards what follows, and the read deadline
	left  *rest      // nil while the agent runs
	since time.Time  // when the read began that is under way
}

// end says that the agent has ended.
func (o *agentOutput) end(left rest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left = &left
	o.limit()
}

func (o *agentOutput) limit() {
	o.since = time.Now()
	_ = o.SetReadDeadline(o.since.Add(o.left.time))
}

// Read implements io.Reader.
func (o *agentOutput) Read(b []byte) (int, error) {
	if err := o.begin(); err != nil {
		return 0, err
	}
	n, err := o.Stream.Read(b)
	o.count(n)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = errRest
	}
	return n, err
}

func (o *agentOutput) begin() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.left == nil:
		return nil
	case o.left.bytes <= 0, o.left.time <= 0:
		return errRest
	}
	o.limit()
	return nil
}

func (o *agentOutput) count(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left != nil {
		o.left.bytes -= int64(n)
		o.left.time -= time.Since(o.since)
	}
}

// reads is the stream as the agent's output, which ends with the agent.
func (v *server) reads(stream *link.Stream) *agentOutput {
	o := &agentOutput{Stream: stream}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reading = append(v.reading, o)
	if v.over {
		o.end(v.rest)
	}
	return o
}

// endOutputs says that the agent has ended. What it returns is to be called when nothing is waited for any more.
func (v *server) endOutputs() func() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
	for _, o := range v.reading {
		o.end(v.rest)
	}
	return time.AfterFunc(v.rest.time, func() {
		if v.abandonOutputs() {
			v.lose("output", errRest)
		}
	}).Stop
}

// lose notes that the caller could not be given all of the output.
func (v *server) lose(what string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lost = errors.Join(v.lost, fmt.Errorf("pass the agent's %s on: %w", what, err))
}
