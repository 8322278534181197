package egress

import (
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/splice"
)

// budget is a number of bytes that many connections share. It is safe for concurrent use.
type budget struct {
	limit policy.Bytes // zero: none
	whose string
	left  atomic.Int64
}

func newBudget(limit policy.Bytes, whose string) *budget {
	b := &budget{limit: limit, whose: whose}
	b.left.Store(int64(limit))
	return b
}

// take grants n bytes or as many as are left.
func (b *budget) take(n int) int {
	if b.limit == 0 {
		return n
	}
	for {
		left := b.left.Load()
		granted := min(int64(n), left)
		if b.left.CompareAndSwap(left, left-granted) {
			return int(granted)
		}
	}
}

// allowance holds the two budgets of one holder.
type allowance struct{ up, down *budget }

func newAllowance(l policy.Limits, whose string) *allowance {
	return &allowance{newBudget(l.Upload, "upload limit of "+whose), newBudget(l.Download, "download limit of "+whose)}
}

// meter is the writing end of one direction: it counts, keeps to the budgets, and notes that something moved.
type meter struct {
	to      io.Writer
	socket  syscall.RawConn // of to, for what is not read; nil: all is read
	budgets []*budget
	count   atomic.Int64
	moved   *atomic.Int64 // nanoseconds since the connection's start
	start   time.Time
	scan    *scanner // of what is sent as it is; nil for none
}

// Write passes on what the budgets grant; the error for the rest names the budget that is used up. A piece that completes
// a placeholder is not passed on at all.
func (m *meter) Write(p []byte) (int, error) {
	if name := m.scan.scan(p); name != "" {
		return 0, leak(name)
	}
	return m.writeTo(m.to, p)
}

// writeTo is Write to one of several places. It is safe for concurrent use.
func (m *meter) writeTo(to io.Writer, p []byte) (int, error) {
	granted, over := m.grant(len(p))
	n, err := to.Write(p[:granted])
	m.count.Add(int64(n))
	if err == nil {
		err = over
	}
	return n, err
}

// send is Write for bytes that nobody looks at. It releases them.
func (m *meter) send(l *splice.Load) error {
	defer l.Release()
	granted, over := m.grant(l.Len())
	n, err := l.Send(m.socket, granted)
	m.count.Add(int64(n))
	if err == nil {
		err = over
	}
	return err
}

// grant is how many of n bytes may go on; if not all, the error names the budget that is used up then.
func (m *meter) grant(n int) (granted int, err error) {
	var over *budget
	granted = n
	for _, b := range m.budgets {
		if n := b.take(granted); n < granted {
			granted, over = n, b
		}
	}
	m.moved.Store(int64(time.Since(m.start)))
	if over != nil {
		return granted, broken(CodeByteLimit, fmt.Sprintf("the %s, %s, is used up", over.whose, over.limit))
	}
	return granted, nil
}
