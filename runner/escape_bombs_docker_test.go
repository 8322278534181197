//go:build docker

package runner

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// TestEscapeBombs: what uses things up hurts the sandbox alone, and the guest lives to tell of it.
func TestEscapeBombs(t *testing.T) {
	l := testLab(t)
	l.entry(t, "host", "a fork bomb", "limit of processes, a guest with threads in reserve", func(t *testing.T, _ func(string)) {
		bomb := []step{{"forks", "forks", []string{"300"}}}
		b := l.try(t, setup{policy: "resources: {pids: 64}\n"}, bomb)
		a := b.answers["forks"]
		if n, err := strconv.Atoi(strings.SplitN(a.Detail, ":", 2)[0]); a.Answer != "EAGAIN" || err != nil || n > 64 {
			t.Errorf("%s %s", a.Answer, a.Detail)
		}
		if !b.has(refusedConnection("tcp", netip.MustParseAddrPort("8.8.4.4:8080"))) {
			t.Error("the guest did not see a dial while there was no room for processes")
		}
		if b.err != nil || b.finished().Outcome != event.Success {
			t.Errorf("the run ended with %v, %+v", b.err, b.finished())
		}
		off := l.try(t, weak("", "", nil, engine.Weakened{Unlimited: true}), bomb)
		if got := off.answers["forks"]; got.Answer != "ok" {
			t.Errorf("without the limit: %+v: the entry proves nothing", got)
		}
	})
	l.entry(t, "host", "a memory bomb", "limit of memory, the agent as the first victim", func(t *testing.T, _ func(string)) {
		bomb := []step{{"memory", "memory", []string{"300"}}}
		b := l.try(t, setup{policy: "resources: {memory: 128MiB, tmp: 16MiB, home: 16MiB, shm: 16MiB}\n"}, bomb)
		if got := b.answers["memory"]; got.Answer != "SIGKILL" {
			t.Errorf("%+v", got)
		}
		if !b.has(func(e event.Event) bool {
			x, ok := e.(event.AgentExited)
			return ok && x.OOMKills != 0 && x.Code == 0
		}) {
			t.Error("the record does not have it, or the agent's first process was hit")
		}
		off := l.try(t, weak("", "", nil, engine.Weakened{Unlimited: true}), bomb)
		if got := off.answers["memory"]; got.Answer != "ok" {
			t.Errorf("without the limit: %+v: the entry proves nothing", got)
		}
	})
}

// TestEscapeFloods: what makes us write is bounded.
func TestEscapeFloods(t *testing.T) {
	l := testLab(t)
	l.entry(t, "host", "a flood of output", "limit of the logs", func(t *testing.T, _ func(string)) {
		flood := []step{{"print", "print", []string{"8"}}}
		size := func(b *box) int64 {
			info, err := os.Stat(filepath.Join(b.result.Dir, runs.StderrFile))
			if err != nil {
				t.Fatal(err)
			}
			return info.Size()
		}
		b := l.try(t, setup{policy: "resources: {output: 1MiB}\n"}, flood)
		if n := size(b); n > 1<<20 {
			t.Errorf("the log has %d bytes", n)
		}
		if !b.has(func(e event.Event) bool { _, ok := e.(event.OutputTruncated); return ok }) {
			t.Error("the record does not have it")
		}
		if off := l.try(t, setup{policy: "resources: {output: 64MiB}\n"}, flood); size(off) < 8<<20 {
			t.Errorf("with a higher limit the log has %d bytes: the entry proves nothing", size(off))
		}
	})
	l.entry(t, "host", "a flood of refusals", "a bound on what is listed; the rest is counted", func(t *testing.T, _ func(string)) {
		b := l.try(t, setup{}, []step{{"ask", "ask", []string{"1500"}}})
		if got := b.answers["ask"]; got.Answer != "ok" {
			t.Fatalf("%+v", got)
		}
		listed := func(b *box) (n int) {
			for _, e := range b.events {
				if _, ok := e.(event.NameRefused); ok {
					n++
				}
			}
			return n
		}
		if n := listed(b); n > event.MaxTargets || b.result.Summary.Counts.RefusedNames != 1500 {
			t.Errorf("%d events, %d counted", n, b.result.Summary.Counts.RefusedNames)
		}
		if off := l.try(t, setup{seam: seam{listsAll: true}}, []step{{"ask", "ask", []string{"1500"}}}); listed(off) < 1500 {
			t.Errorf("without the bound %d are listed: the entry proves nothing", listed(off))
		}
	})
}

// TestEscapeFills: what the agent may write to is bounded.
func TestEscapeFills(t *testing.T) {
	l := testLab(t)
	var fill []step
	dirs := []string{"/tmp", "/home/agent", "/dev/shm", "/run"}
	for _, dir := range dirs {
		fill = append(fill, step{dir, "fill", []string{dir + "/fill", "64"}})
	}
	small := l.try(t, setup{policy: "resources: {tmp: 16MiB, home: 16MiB, shm: 16MiB, run: 16MiB}\n"}, fill)
	large := l.try(t, setup{policy: "resources: {tmp: 128MiB, home: 128MiB, shm: 128MiB, run: 128MiB}\n"}, fill)
	for _, dir := range dirs {
		l.entry(t, "host", "filling "+dir, "its size", func(t *testing.T, _ func(string)) {
			if got := small.answers[dir]; got.Answer != "ENOSPC" {
				t.Errorf("%+v", got)
			}
			if got := large.answers[dir]; got.Answer != "ok" {
				t.Errorf("with more room: %+v: the entry proves nothing", got)
			}
		})
	}
	l.entry(t, "host", "filling the host's disk from the workspace", "the runner watches resources.disk", func(t *testing.T, _ func(string)) {
		l.fillDisk(t, setup{policy: "resources: {disk: 64MiB}\n"}, "64MiB of disk that resources.disk allows")
	})
	l.entry(t, "host", "filling the host's disk to the last byte", "the runner keeps a reserve", func(t *testing.T, skip func(string)) {
		if !l.facts.Local {
			skip("the engine runs elsewhere")
		}
		store, err := runs.Open(filepath.Join(l.smallDisk(t), "runs"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		l.fillDisk(t, setup{store: store}, "less than the reserve")
	})
	l.entry(t, "host", "filling the engine's disk through a volume of the image", "memory in its place", func(t *testing.T, skip func(string)) {
		l.volume(t, skip)
	})
}

// smallDisk is a file system of 600 MiB.
func (l *lab) smallDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(l.dir, "small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=600m,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillDisk has the agent take more of the disk than it may.
func (l *lab) fillDisk(t *testing.T, s setup, reason string) {
	t.Helper()
	fill := func(keep string) []byte {
		return encode(t, []step{{"fill", "allocate", []string{"/workspace/fill", "400", keep}}})
	}
	b := l.start(t, s, []string{"/workspace/.probe/escapeprobe"}, fill("15s"))
	if f := b.finished(); f.Outcome != event.Failure || !strings.Contains(f.Reason, reason) || f.ExitCode != 137 {
		t.Errorf("%+v (%v)", f, b.err)
	}
	if !b.has(func(e event.Event) bool { x, ok := e.(event.AgentExited); return ok && x.Reason == event.Killed }) {
		t.Error("the record does not say that the agent was killed")
	}
	if left, _ := filepath.Glob(filepath.Join(b.result.Dir, "upper")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if err := workspace.Discard(b.result.Dir); err != nil { // makes room for the next
		t.Error(err)
	}
	s.seam.noDisk = true
	off := l.start(t, s, []string{"/workspace/.probe/escapeprobe"}, fill("2s"))
	if got := decodeAnswers(t, off.stdout)["fill"]; got.Answer != "ok" {
		t.Errorf("unwatched: %+v: the entry proves nothing", got)
	}
}

// volume runs an image that declares a volume, with nothing in it but that.
func (l *lab) volume(t *testing.T, skip func(string)) {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		skip("no docker command to make the image with")
	}
	const name = "agent-sandbox-test-volume"
	cmd := exec.CommandContext(t.Context(), "docker", "import", "--change", "VOLUME /data", "-", name)
	cmd.Stdin = bytes.NewReader(make([]byte, 1024)) // an archive of nothing ends with two blocks of zeros
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker import: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		// The context of a test that has ended is cancelled.
		if out, err := exec.CommandContext(testContext(), "docker", "rmi", name).CombinedOutput(); err != nil {
			t.Errorf("docker rmi: %v\n%s", err, out)
		}
	})
	look := []step{{"type", "fstype", []string{"/data"}}, {"fill", "fill", []string{"/data/fill", "64"}}}
	b := l.try(t, setup{image: name, policy: "resources: {tmp: 16MiB}\n"}, look)
	if got := b.answers["type"].Detail; got != "tmpfs of 16 MiB" {
		t.Errorf("/data is %q (%v)", got, b.err)
	}
	if got := b.answers["fill"]; got.Answer != "ENOSPC" {
		t.Errorf("%+v", got)
	}
	off := l.try(t, weak("", "", nil, engine.Weakened{Mounts: []engine.Mount{{Source: l.weak, Target: "/data"}}}), look)
	if got := off.answers["type"].Detail; strings.HasPrefix(got, "tmpfs") {
		t.Errorf("a directory of the host is %q: the entry proves nothing", got)
	}
}
