package guest

import (
	"sync"
	"time"
)

const (
	// quietTime is how long a socket must have had nothing to read before it counts as read to its end. All that could
	// write to it has died by then.
	quietTime = 5 * time.Millisecond
	// settleTime bounds the wait for the runner's answers at the end.
	settleTime = 2 * time.Second
)

// ender lets a loop that reads from sockets go on until nothing is left to read: what an agent did in its last moment
// is reported like everything before.
type ender struct {
	mu     sync.Mutex // guards ending, and the order of deadlines
	ending bool
}

// deadline sets how long the next read may wait: until due, forever if that is zero, or at the end for as long as it takes
// to know that there is nothing.
func (e *ender) deadline(set func(time.Time) error, due time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ending {
		due = time.Now().Add(quietTime)
	}
	_ = set(due) // a closed socket's read says so
}

// end wakes the loops that wait for these sockets.
func (e *ender) end(sockets ...func(time.Time) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ending = true
	for _, set := range sockets {
		_ = set(time.Now().Add(quietTime))
	}
}

func (e *ender) ended() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ending
}

// waitFor waits for g, but not for a runner that does not answer.
func waitFor(g *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		g.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(settleTime):
	}
}
