//go:build docker

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// A runner that is killed takes its container along. What stays is its state, which doctor --clean ends; a run that
// lives meanwhile is not touched.
func TestCleanAfterKill(t *testing.T) {
	u := newUser(t)
	live := u.start("--", "sh", "-c", "echo ready; exec sleep 1000")
	live.line("ready")
	dead := u.start("--", "sh", "-c", "mkdir -p a/b; echo x >a/b/c; chmod 0 a/b; chmod 500 a; echo ready; exec sleep 1000")
	dead.line("ready")
	id := u.last().ID
	dead.signal(syscall.SIGKILL)
	dead.wait()
	eventually(t, eventTimeout, func() (bool, string) {
		left := u.leftovers(string(id))
		return len(left) == 0, strings.Join(left, ", ")
	})

	r := u.finish(u.command("doctor", "--clean"))
	u.wantCode(r, 0)
	if want := "read    the changes of run " + string(id) + ": agent-sandbox show " + string(id) + "\n"; r.stdout != want {
		t.Errorf("doctor --clean printed %q, want %q", r.stdout, want)
	}
	for _, name := range []string{"upper", "work", runs.RecoveryFile} {
		if exists(filepath.Join(u.last().Dir(), name)) {
			t.Errorf("%s is still there", name)
		}
	}
	if s, err := u.last().Summary(); err != nil || s.Outcome != event.Interrupted || s.Recovered == nil || s.Changes == nil || s.Changes.Added != 1 || s.Changes.Reject != 0 {
		t.Errorf("recorded as recovered %+v, changes %+v", s.Recovered, s.Changes)
	}
	if r := u.finish(u.command("manifest", "show", string(id))); !strings.Contains(r.stdout, "interrupted") || !strings.Contains(r.stdout, "recovered") {
		t.Errorf("the manifest: %s%s", r.stdout, r.stderr)
	}
	if r := u.finish(u.command("diff", string(id))); !strings.Contains(r.stdout, "+++ b/a/b/c\n") {
		t.Errorf("diff: %s%s", r.stdout, r.stderr)
	}
	u.wantCode(u.finish(u.command("apply", string(id))), 0)
	if b, err := os.ReadFile(filepath.Join(u.project, "a/b/c")); string(b) != "x\n" {
		t.Errorf("applied: %q, %v", b, err)
	}
	if r := u.finish(u.command("doctor", "--clean")); r.stdout != "nothing to remove\n" {
		t.Errorf("the second time: %q", r.stdout)
	}

	live.signal(syscall.SIGTERM)
	live.end()
}

// A container whose run is over, because the engine could not remove it then, is removed; one of a run that nobody here
// knows is not.
func TestCleanEngine(t *testing.T) {
	u := newUser(t)
	u.wantCode(u.run("--", "true"), 0)
	e := connectTest(t)
	mine, foreign := u.last().ID, runs.ID("20200101-000000-abcdef")
	for _, run := range []runs.ID{mine, foreign} {
		makeLeftover(t, e, string(run))
	}
	r := u.finish(u.command("doctor", "--clean"))
	u.wantCode(r, 0)
	if left := u.leftovers(string(mine)); len(left) != 0 {
		t.Errorf("left of our own run: %q", left)
	}
	if left := u.leftovers(string(foreign)); len(left) != 1 {
		t.Errorf("left of a foreign run: %q, want its container", left)
	}
	if !strings.Contains(r.stdout, "left    run "+string(foreign)) {
		t.Errorf("doctor --clean printed %q", r.stdout)
	}
}

func connectTest(t *testing.T) *engine.Engine {
	t.Helper()
	e, err := engine.Connect(t.Context(), engine.Config{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// makeLeftover creates a container of a run that never starts.
func makeLeftover(t *testing.T, e *engine.Engine, run string) {
	t.Helper()
	image, err := e.Image(t.Context(), testImage())
	if err != nil {
		t.Fatal(err)
	}
	ids := workspace.DefaultIDs()
	guest, err := e.Deliver(t.Context(), string(runs.NewID(time.Now())), image, ids.UID, ids.GID, false)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.CreateHelper(t.Context(), engine.Helper{Run: run, Image: image.ID, Guest: guest, Dir: engine.Mount{Source: "/tmp", Target: "/mnt", ReadOnly: true}, Capabilities: []string{"SETUID"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
}
