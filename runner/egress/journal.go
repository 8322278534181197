package egress

import (
	"math/bits"
	"net/netip"
	"sync"

	"github.com/org/agent-sandbox/policy"
)

// maxTotals bounds the hosts that have a total of their own once the detailed records are used up.
const maxTotals = 500

// journal turns any number of connections into a bounded number of records: the first ones in detail, at their
// start and end, the rest as totals that are reported at each doubling and when the gateway closes.
type journal struct {
	to Recorder

	mu     sync.Mutex // guards what follows; held while recording, so that totals never go back
	lastID uint64
	detail int // detailed records that are left
	totals map[totalKey]*total
	order  []*total

	requests requestJournal
}

type totalKey struct {
	name    string
	addr    netip.AddrPort
	outcome Outcome
	place   policy.Place
	rule    string
}

type total struct {
	record   Connection
	reported uint64
}

func newJournal(to Recorder, detail int) *journal {
	return &journal{to: to, detail: detail, totals: map[totalKey]*total{}, requests: newRequestJournal(detail)}
}

// opened records that the connection is carried now, so that a runner that is killed has not hidden it. Without
// detailed records left the connection keeps ID 0, and is counted at its end.
func (j *journal) opened(c *Connection) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.detail == 0 {
		return
	}
	j.detail--
	j.lastID++
	c.ID = j.lastID
	record := *c
	record.Open, record.Outcome, record.Count = true, Allowed, 1
	j.to.Connection(record)
}

// ended records the end.
func (j *journal) ended(c Connection) {
	c.Count = 1
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case c.Outcome == Refused, c.ID != 0:
		j.to.Connection(c)
	case j.detail > 0:
		j.detail--
		j.lastID++
		c.ID = j.lastID
		j.to.Connection(c)
	default:
		j.add(c)
	}
}

// add counts a connection in the total of its host. j.mu is held.
func (j *journal) add(c Connection) {
	key := totalKey{c.Name, c.Dialled, c.Outcome, c.Place, c.Rule}
	t := j.totals[key]
	if t == nil && len(j.totals) >= maxTotals {
		key = totalKey{outcome: c.Outcome}
		t = j.totals[key]
	}
	if t == nil {
		t = &total{record: Connection{
			Name: key.name, Dialled: key.addr, Outcome: key.outcome, Place: key.place, Rule: key.rule, Start: c.Start,
			Code: c.Code, Reason: c.Reason,
		}}
		j.totals[key] = t
		j.order = append(j.order, t)
	}
	r := &t.record
	r.Up += c.Up
	r.Down += c.Down
	r.Requests += c.Requests
	r.Duration += c.Duration
	r.Count++
	if bits.OnesCount64(r.Count) == 1 {
		j.report(t)
	}
}

func (j *journal) report(t *total) {
	t.reported = t.record.Count
	j.to.Connection(t.record)
}

// flush reports every total that was not reported yet.
func (j *journal) flush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, t := range j.order {
		if t.reported != t.record.Count {
			j.report(t)
		}
	}
	j.flushRequests()
}

func (j *journal) name(n NameRefused) {
	n.Name, n.Type = cut(n.Name), cut(n.Type)
	j.to.NameRefused(n)
}
