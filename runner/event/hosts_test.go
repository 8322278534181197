package event

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func carried(id uint64, name string, up, down int64) Connection {
	return Connection{ID: id, Name: name, Address: "28.4.0.1", Port: 443, Outcome: ConnectionAllowed, Rule: name, Up: up, Down: down, Count: 1}
}

func TestHosts(t *testing.T) {
	opened := carried(1, "a.example", 0, 0)
	opened.Open = true
	total := carried(0, "a.example", 100, 200)
	total.Count = 4
	grown := total
	grown.Up, grown.Down, grown.Count, grown.Requests = 1000, 2000, 16, 3
	failed := carried(3, "b.example", 0, 0)
	failed.Outcome, failed.Reason = ConnectionFailed, "b.example:443 refuses connections"
	refused := carried(4, "c.example", 5, 5)
	refused.Outcome = ConnectionWasRefused
	literal := carried(5, "", 1, 1)
	literal.Rule = "192.0.2.1"
	s := foldAll(opened, carried(1, "a.example", 10, 20), carried(2, "a.example", 1, 2), total, grown, failed, refused, literal)
	want := []Host{
		{Host: "a.example", Port: 443, Rule: "a.example", Connections: 18, Requests: 3, Up: 1011, Down: 2022},
		{Host: "28.4.0.1", Port: 443, Rule: "192.0.2.1", Connections: 1, Up: 1, Down: 1},
		{Host: "b.example", Port: 443, Rule: "b.example", Failed: 1, Reason: failed.Reason},
	}
	if diff := cmp.Diff(want, s.Hosts); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Counts{AllowedConnections: 19, FailedConnections: 1, Up: 1012, Down: 2023}, s.Counts); diff != "" {
		t.Error(diff)
	}
	if s.HostCount != 3 {
		t.Errorf("%d hosts", s.HostCount)
	}
}

// TestHostsAreBounded: however much a log holds, and whoever wrote it.
func TestHostsAreBounded(t *testing.T) {
	f := NewFold(testRun)
	for i := range uint64(3 * maxConnections) {
		f.add(Envelope{Data: carried(i+1, fmt.Sprintf("host-%d.example", i), 1, 1)})
	}
	s := f.Summary()
	if len(s.Hosts) != maxHosts || s.HostCount != maxConnections || len(f.conns.latest) != maxConnections {
		t.Errorf("%d of %d hosts, of %d connections", len(s.Hosts), s.HostCount, len(f.conns.latest))
	}
}

// TestAdditions: each item once, those wanted most first, and no longer than a whole one.
func TestAdditions(t *testing.T) {
	var events []Event
	r := NewRefusals(func(e Event) { events = append(events, e) })
	for range 3 {
		r.Name(NameRefused{Name: "b.example", Type: "A", Add: "b.example"})
		r.Name(NameRefused{Name: "b.example", Type: "AAAA", Add: "b.example"})
	}
	r.Name(NameRefused{Name: "a.example", Type: "A", Add: "a.example"})
	r.Connection(ConnectionRefused{Proto: "tcp", Address: "192.0.2.1", Port: 22, Add: strings.Repeat("x", maxItem+1)})
	r.Connection(ConnectionRefused{Proto: "udp", Address: "192.0.2.1", Port: 53})
	r.Flush()
	if diff := cmp.Diff([]string{"b.example", "a.example"}, foldAll(events...).Additions()); diff != "" {
		t.Error(diff)
	}
}

func TestVerboseConnections(t *testing.T) {
	open, failed, refused, many := carried(1, "a.example", 0, 0), carried(2, "b.example", 0, 0), carried(3, "c.example", 0, 0), carried(0, "d.example", 2048, 4096)
	open.Open = true
	failed.Outcome, failed.Reason = ConnectionFailed, "it \x1b[31mrefuses"
	refused.Outcome = ConnectionWasRefused
	many.Count = 8
	ended := carried(1, "a.example", 1024, math.MaxInt64)
	ended.Duration = 1500 * time.Millisecond
	for _, tt := range []struct {
		event Connection
		want  string
	}{
		{open, "allowed: a.example:443 (a.example)"},
		{ended, "ended: a.example:443, 1.0 KiB up, 8.0 EiB down, after 1.5s"},
		{failed, `failed: b.example:443 (it \x1b[31mrefuses)`},
		{refused, ""},
		{many, "ended: d.example:443, 8 times, 2.0 KiB up, 4.0 KiB down"},
	} {
		if got, detail := liveLine(tt.event); got != tt.want || !detail {
			t.Errorf("%+v is shown as %q (%v), want %q", tt.event, got, detail, tt.want)
		}
	}
}
