package guest

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/org/agent-sandbox/runner/link"
)

const (
	// tallyTime is how long refused datagrams are gathered before they are reported: an agent can send a million a
	// second, and must not fill the link with reports, nor hide one datagram among the others.
	tallyTime = 50 * time.Millisecond
	// tallyTargets bounds the targets of one report. What goes beyond is counted.
	tallyTargets = 256
)

// reporter tells the runner of refused datagrams. Their senders already have their error.
type reporter struct {
	log  *packetLog
	send func(link.Frame) error
	ender
	done chan struct{}
}

func newReporter(log *packetLog, send func(link.Frame) error) *reporter {
	return &reporter{log: log, send: send, done: make(chan struct{})}
}

func (r *reporter) run() {
	defer close(r.done)
	var t tally
	for {
		r.deadline(r.log.conn.SetReadDeadline, t.due)
		refused, lost, err := r.log.Receive()
		t.add(refused, lost)
		late := errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !late || late && r.ended() {
			r.last(&t)
			return
		}
		if late || t.isDue() {
			if t.report(r.send) != nil {
				return
			}
		}
	}
}

// last makes the final report. If a flood has filled the socket at the end, only another number tells how many were
// lost: that of a datagram of our own.
func (r *reporter) last(t *tally) {
	isOurs := func(p link.Refused) bool { return p.Addr == elsewhereIPv4 }
	sendElsewhere()
	for found, err := false, r.log.conn.SetReadDeadline(time.Now().Add(tallyTime)); !found && err == nil; {
		var refused []link.Refused
		var lost uint64
		refused, lost, err = r.log.Receive()
		found = slices.ContainsFunc(refused, isOurs)
		t.add(slices.DeleteFunc(refused, isOurs), lost)
	}
	_ = t.report(r.send) // the runner may have gone
}

// finish reports what is left, once nobody can send any more.
func (r *reporter) finish() {
	r.end(r.log.conn.SetReadDeadline)
	<-r.done
}

// tally adds refused datagrams up.
type tally struct {
	count    map[link.Refused]uint64
	order    []link.Refused
	unlisted uint64
	due      time.Time // of the next report, zero if there is nothing
}

func (t *tally) add(refused []link.Refused, lost uint64) {
	if len(refused) == 0 && lost == 0 {
		return
	}
	if t.due.IsZero() {
		t.due, t.count = time.Now().Add(tallyTime), map[link.Refused]uint64{}
	}
	t.unlisted += lost
	for _, r := range refused {
		switch _, known := t.count[r]; {
		case known:
		case len(t.order) == tallyTargets:
			t.unlisted++
			continue
		default:
			t.order = append(t.order, r)
		}
		t.count[r]++
	}
}

func (t *tally) isDue() bool { return !t.due.IsZero() && time.Now().After(t.due) }

// report sends and forgets what was gathered.
func (t *tally) report(send func(link.Frame) error) error {
	var errs []error
	for _, r := range t.order {
		n := t.count[r]
		r.Count = n
		errs = append(errs, send(link.Frame{Refused: &r}))
	}
	if t.unlisted > 0 {
		errs = append(errs, send(link.Frame{Refused: &link.Refused{Count: t.unlisted}}))
	}
	*t = tally{}
	return errors.Join(errs...)
}
