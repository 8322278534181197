package event

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
)

func TestRefusalsOfOneTarget(t *testing.T) {
	got := &sink{}
	rec := newRecorder(t, got)
	r := NewRefusals(rec.Emit)
	const dials = 100_000
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range dials / 4 {
				r.Connection(ConnectionRefused{Proto: "tcp", Address: "8.8.8.8", Port: 2222, Reason: "not allowed"})
			}
		})
	}
	wg.Wait()
	r.Flush()
	r.Flush()                       // nothing new: no event
	if n := len(got.got); n != 18 { // 2^0 ... 2^16, and the total
		t.Errorf("%d events, want 18", n)
	}
	last := uint64(0)
	for _, env := range got.got {
		e := env.Data.(ConnectionRefused)
		if e.Count <= last {
			t.Errorf("count %d after %d", e.Count, last)
		}
		last = e.Count
	}
	if last != dials {
		t.Errorf("total %d, want %d", last, dials)
	}
	s := rec.Summary()
	if s.Counts.RefusedConnections != dials || len(s.Refused) != 1 {
		t.Errorf("summary: %+v, %+v", s.Counts, s.Refused)
	}
}

func TestRefusalsOfManyTargets(t *testing.T) {
	got := &sink{}
	rec := newRecorder(t, got)
	r := NewRefusals(rec.Emit)
	const targets = 100_000
	for i := range targets {
		r.Name(NameRefused{Name: fmt.Sprintf("%d.tunnel.example", i), Type: "TXT"})
	}
	// A flood of names leaves room for connections.
	r.Connection(ConnectionRefused{Proto: "udp", Address: "1.1.1.1", Port: 53})
	r.Flush()
	s := rec.Summary()
	if want := (Counts{RefusedConnections: 1, RefusedNames: targets}); s.Counts != want {
		t.Errorf("counts %+v, want %+v", s.Counts, want)
	}
	if s.Unlisted.Names != targets-MaxTargets || s.Unlisted.Connections != 0 {
		t.Errorf("unlisted %+v", s.Unlisted)
	}
	if n := len(got.got); n > MaxTargets+20 {
		t.Errorf("%d events for %d targets", n, targets)
	}
	if len(s.Refused) != maxRefused {
		t.Errorf("%d refusals listed, want %d", len(s.Refused), maxRefused)
	}
}

// The worst that a sandbox can do stays below MaxPerKind, so that no total is dropped.
func TestRefusalsStayBelowMaxPerKind(t *testing.T) {
	const doublings, total, afterOverflow = 64, 1, 2
	if worst := MaxTargets*(doublings+total) + afterOverflow*doublings; worst >= MaxPerKind {
		t.Errorf("%d events of one kind are possible, the recorder keeps %d", worst, MaxPerKind)
	}
}

func TestRefusalsCutGiants(t *testing.T) {
	got := &sink{}
	r := NewRefusals(newRecorder(t, got).Emit)
	giant := strings.Repeat("a", 1<<20)
	r.Connection(ConnectionRefused{Proto: giant, Address: giant, Name: giant, Reason: giant})
	r.Name(NameRefused{Name: giant, Type: giant})
	for _, env := range got.got {
		line, err := encode(env, "")
		if err != nil || len(line) > 5*maxName {
			t.Errorf("%s: line of %d bytes, error %v", env.Kind, len(line), err)
		}
	}
}

// A guest counts for itself. Whatever it says, the sum does not go back.
func TestRefusalsCountedElsewhere(t *testing.T) {
	var last ConnectionRefused
	var unlisted RefusalsUnlisted
	events := 0
	r := NewRefusals(func(e Event) {
		events++
		switch e := e.(type) {
		case ConnectionRefused:
			last = e
		case RefusalsUnlisted:
			unlisted = e
		}
	})
	for _, n := range []uint64{1, 20_000, 0, math.MaxUint64, math.MaxUint64} {
		r.Connections(ConnectionRefused{Proto: "udp", Address: "192.0.2.7"}, n)
	}
	r.Unlisted(3)
	r.Flush()
	if last.Count != math.MaxInt64 || unlisted.Connections != 3 || events > 6 {
		t.Errorf("%d events, the last %+v and %+v", events, last, unlisted)
	}
}
