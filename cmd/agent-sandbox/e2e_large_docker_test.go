//go:build docker

package main

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// TestManifestLarge measures what is done after the agent's exit in a run of so many changed files as LARGE says, and twice as many
// connections. `make bench` prints it.
func TestManifestLarge(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("LARGE"))
	if err != nil {
		t.Skip("LARGE says how many files, such as 50000; see `make bench`")
	}
	connections := 2 * count
	l := startLoad(t, 3*loadTimeout)
	l.do("crowd " + strconv.Itoa(connections))
	l.do("files " + strconv.Itoa(count))
	s := l.end()
	if int(s.Counts.AllowedConnections) != connections || s.Changes == nil || s.Changes.Added < count {
		t.Fatalf("recorded as %+v, %+v", s.Counts, s.Changes)
	}
	made, err := os.Stat(l.u.last().Path(runs.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	p := l.u.manifestOf(event.Success, 0).Predicate
	if made.Size() > 1_000_000 || int(p.Egress.Connections) != connections || p.Workspace.Added < count {
		t.Errorf("%d bytes, %d connections, %d files", made.Size(), p.Egress.Connections, p.Workspace.Added)
	}
	exited := l.u.exitTime()
	t.Logf("MEASURED files=%d connections=%d exit_to_manifest_ms=%d extract_ms=%d seal_ms=%d bytes=%d", p.Workspace.Added, p.Egress.Connections,
		made.ModTime().Sub(exited).Milliseconds(), s.PhaseDuration(event.Extract).Milliseconds(), made.ModTime().Sub(s.Finished).Milliseconds(), made.Size())
}

// exitTime is when the newest run's agent ended, by its events.
func (u *user) exitTime() (at time.Time) {
	u.t.Helper()
	r := u.last()
	f, err := r.Open(runs.EventsFile)
	if err != nil {
		u.t.Fatal(err)
	}
	defer f.Close()
	if _, err := event.ReadChain(f, string(r.ID), func(e event.Envelope) error {
		if e.Kind == (event.AgentExited{}).Kind() {
			at = e.Time
		}
		return nil
	}); err != nil {
		u.t.Fatal(err)
	}
	return at
}
