package egress

import (
	"math/bits"

	"github.com/org/agent-sandbox/policy"
)

// requestJournal bounds the records of requests: the first allowed ones and the first refused ones in detail, so that
// neither hides the other, the rest as totals that are reported at each doubling and when the gateway closes.
type requestJournal struct {
	allowed, refused int // detailed records that are left
	totals           map[requestKey]*requestTotal
	order            []*requestTotal
}

type requestKey struct {
	host    string
	port    uint16
	outcome Outcome
	place   policy.Place
	rule    string
	line    string
}

type requestTotal struct {
	record   Request
	reported uint64
}

func newRequestJournal(detail int) requestJournal {
	return requestJournal{allowed: detail, refused: detail, totals: map[requestKey]*requestTotal{}}
}

// request records a request that has ended.
func (j *journal) request(r Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	left := &j.requests.allowed
	if r.Outcome != Allowed {
		left = &j.requests.refused
	}
	if *left > 0 {
		*left--
		j.to.Request(r)
		return
	}
	t := j.requests.total(r)
	t.record.Up += r.Up
	t.record.Down += r.Down
	t.record.Duration += r.Duration
	t.record.Count++
	if bits.OnesCount64(t.record.Count) == 1 {
		j.reportRequests(t)
	}
}

// total is the one that takes in r.
func (j *requestJournal) total(r Request) *requestTotal {
	key := requestKey{r.Host, r.Port, r.Outcome, r.Place, r.Rule, r.Line}
	t := j.totals[key]
	if t == nil && len(j.totals) >= maxTotals {
		key = requestKey{outcome: r.Outcome}
		t = j.totals[key]
	}
	if t == nil {
		t = &requestTotal{record: Request{
			Total: true, Host: key.host, Port: key.port, Outcome: key.outcome, Place: key.place, Rule: key.rule, Line: key.line,
			Code: r.Code, Reason: r.Reason, Leak: r.Leak, Start: r.Start,
		}}
		j.totals[key] = t
		j.order = append(j.order, t)
	}
	return t
}

// reportRequests passes a total on. j.mu is held.
func (j *journal) reportRequests(t *requestTotal) {
	t.reported = t.record.Count
	j.to.Request(t.record)
}

// flushRequests reports every total that was not reported yet. j.mu is held.
func (j *journal) flushRequests() {
	for _, t := range j.requests.order {
		if t.reported != t.record.Count {
			j.reportRequests(t)
		}
	}
}
