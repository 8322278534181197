package event

import (
	"math"
	"math/bits"
	"strings"
	"sync"
)

// MaxTargets bounds the distinct targets that Refusals lists, for connections and
// for names each: a flood of one must not hide the other.
const MaxTargets = 500

// maxName is longer than any DNS name (RFC 1035, section 2.3.4), so that only nonsense is cut.
const maxName = 260

// maxItem is longer than an item of the policy file for such a name.
const maxItem = maxName + 100

const protoDNS = "dns"

// target is what makes two refusals the same.
type target struct {
	proto, address string
	port           uint16
	name, qtype    string
}

func connection(e ConnectionRefused) target {
	return target{proto: e.Proto, address: e.Address, port: e.Port, name: e.Name}
}

func name(e NameRefused) target {
	return target{proto: protoDNS, name: e.Name, qtype: e.Type}
}

// Refusals turns any number of refusals into a bounded number of events: a target
// is reported when it is first met, at each doubling of its count (so that a run
// that is killed loses little), and with its total at the end. Targets beyond
// MaxTargets are only counted. It is safe for concurrent use.
type Refusals struct {
	emit func(Event)
	most int // targets that are listed of each kind

	mu       sync.Mutex // guards what follows; held while emitting, so that counts never go back
	seen     map[target]*refused
	order    []*refused
	conns    int // targets listed
	names    int
	unlisted RefusalsUnlisted
	reported RefusalsUnlisted
}

type refused struct {
	event           Event
	count, reported uint64
}

// NewRefusals reports to emit, which is [Recorder.Emit].
func NewRefusals(emit func(Event)) *Refusals {
	return &Refusals{emit: emit, most: MaxTargets, seen: map[target]*refused{}}
}

// Connection counts a refused connection; e.Count is ignored.
func (r *Refusals) Connection(e ConnectionRefused) { r.Connections(e, 1) }

// Connections counts n refused connections to one target.
func (r *Refusals) Connections(e ConnectionRefused, n uint64) {
	e.Proto, e.Address, e.Name, e.Reason, e.Add = cut(e.Proto), cut(e.Address), cut(e.Name), cut(e.Reason), whole(e.Add)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.count(connection(e), e, &r.conns, n) {
		r.countUnlisted(&r.unlisted.Connections, n)
	}
}

// Unlisted counts n refused connections whose targets are not known.
func (r *Refusals) Unlisted(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.countUnlisted(&r.unlisted.Connections, n)
}

// Name counts a refused look-up; e.Count is ignored.
func (r *Refusals) Name(e NameRefused) {
	e.Name, e.Type, e.Add = cut(e.Name), cut(e.Type), whole(e.Add)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.count(name(e), e, &r.names, 1) {
		r.countUnlisted(&r.unlisted.Names, 1)
	}
}

// Flush reports every total that was not reported yet. Call it once the sandbox
// is gone, and before [Recorder.Finish].
func (r *Refusals) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.order {
		if x.count != x.reported {
			r.report(x)
		}
	}
	if r.unlisted != r.reported {
		r.reportUnlisted()
	}
}

// count reports false for a target that is not listed. r.mu is held.
func (r *Refusals) count(t target, e Event, listed *int, n uint64) bool {
	x := r.seen[t]
	if x == nil {
		if *listed >= r.most {
			return false
		}
		*listed++
		x = &refused{event: e}
		r.seen[t] = x
		r.order = append(r.order, x)
	}
	if addTo(&x.count, n) {
		r.report(x)
	}
	return true
}

func (r *Refusals) report(x *refused) {
	x.reported = x.count
	switch e := x.event.(type) {
	case ConnectionRefused:
		e.Count = x.count
		r.emit(e)
	case NameRefused:
		e.Count = x.count
		r.emit(e)
	}
}

func (r *Refusals) countUnlisted(count *uint64, n uint64) {
	if addTo(count, n) {
		r.reportUnlisted()
	}
}

func (r *Refusals) reportUnlisted() {
	r.reported = r.unlisted
	r.emit(r.unlisted)
}

// addTo adds n, which a guest may have made up, and tells whether the sum has reached another power of two.
func addTo(count *uint64, n uint64) bool {
	was := *count
	*count += min(n, math.MaxInt64-min(was, math.MaxInt64))
	return bits.Len64(*count) != bits.Len64(was)
}

// cut copies, so that a short name does not keep the guest's whole frame alive.
func cut(s string) string {
	return strings.Clone(s[:min(len(s), maxName)])
}

// whole drops what is longer than an item for the longest name: half of one would be another.
func whole(item string) string {
	if len(item) > maxItem {
		return ""
	}
	return strings.Clone(item)
}
