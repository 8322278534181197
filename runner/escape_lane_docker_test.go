//go:build docker

package runner

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// TestEscapeLane: the socket over which the guest got its lane is out of the agent's reach, and nothing can come in its place.
func TestEscapeLane(t *testing.T) {
	l := testLab(t)
	look := []step{
		{"connect", "unix", []string{link.LaneSocket}},
		{"another socket", "ownunix", []string{link.LaneDir + "/other"}},
		{"a file", "write", []string{link.LaneDir + "/file", "x"}},
		{"descriptors", "open", []string{"/proc/1/fd", "r"}},
		{"control: a unix socket", "ownunix", []string{"/tmp/control.sock"}},
	}
	l.entry(t, "network", "the socket of the guest's lane", "one guest connects before there is an agent, then it is gone", func(t *testing.T, skip func(string)) {
		if why := l.remote(); why != "" {
			skip("there is no lane: " + why)
		}
		b := l.try(t, setup{}, look)
		if !b.has(func(e event.Event) bool { m, ok := e.(event.GuestMeasured); return ok && m.Network.Lane }) {
			t.Fatal("the record says that there is no lane: the entry proves nothing")
		}
		for _, s := range look[:4] {
			if got := b.answers[s.Name]; got.Answer == "ok" || got.Answer == "" {
				t.Errorf("%s: %s %s", s.Name, got.Answer, got.Detail)
			}
		}
		if got := b.answers[look[4].Name]; got.Answer != "ok" {
			t.Errorf("the positive control: %s %s", got.Answer, got.Detail)
		}
		if _, err := os.Lstat(laneDir(b.result.Run)); err == nil {
			t.Error("the directory is still on the host")
		}
		left := l.leftSocket(t)
		off := l.try(t, setup{seam: seam{laneOff: true, unchecked: true, container: engine.Weakened{Mounts: []engine.Mount{left}}}}, look)
		if got := off.answers["connect"]; got.Answer != "ok" {
			t.Errorf("a socket that is left there: %s %s: the entry proves nothing", got.Answer, got.Detail)
		}
		refused := l.try(t, setup{seam: seam{laneOff: true, container: engine.Weakened{Mounts: []engine.Mount{left}}}}, look)
		if refused.err == nil || !strings.Contains(refused.err.Error(), link.LaneDir) {
			t.Errorf("an unplanned one: %v", refused.err)
		}
	})
}

// leftSocket is a directory with a socket that nobody has removed.
func (l *lab) leftSocket(t *testing.T) engine.Mount {
	t.Helper()
	dir := filepath.Join(l.dir, "left")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, filepath.Base(link.LaneSocket))
	s, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	return engine.Mount{Source: dir, Target: link.LaneDir, ReadOnly: true}
}
