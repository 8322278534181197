//go:build docker

package main

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// leftoverLimit is the promise: after so long nothing of a run is left, however it ended. A machine that is busy with something else may
// make some of many wait longer; lateShare is how many of a hundred, and goneLimit how long any of them.
const (
	leftoverLimit = 5 * time.Second
	lateShare     = 5
	goneLimit     = time.Minute
)

// TestRunKilled kills the runner with SIGKILL at random moments, from before it has done anything until its agent runs,
// and looks for whatever is left. AGENT_SANDBOX_TEST_KILLS is how often, AGENT_SANDBOX_TEST_SEED repeats a series.
func TestRunKilled(t *testing.T) {
	count := number(t, "AGENT_SANDBOX_TEST_KILLS", 200)
	seed := number(t, "AGENT_SANDBOX_TEST_SEED", int(time.Now().UnixNano()&0xffffff))
	const atOnce = 4
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	within := killWithin(t)
	delays := make(chan time.Duration, count)
	for range count {
		delays <- time.Duration(random.Int64N(int64(within)))
	}
	close(delays)
	t.Logf("%d runs, killed within %s, AGENT_SANDBOX_TEST_SEED=%d", count, within, seed)
	users := make([]*user, atOnce)
	for i := range users {
		users[i] = newUser(t)
	}
	start := time.Now()
	var late atomic.Int64
	var all sync.WaitGroup
	for _, u := range users {
		all.Go(func() {
			for delay := range delays {
				took, gone := u.killAfter(delay)
				if !gone {
					return
				}
				if took > leftoverLimit {
					late.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := int(late.Load()); n*100 > count*lateShare {
		t.Errorf("of %d runs %d were not gone within %s", count, n, leftoverLimit)
	}
	t.Logf("it took %s", time.Since(start).Round(time.Second))
	for _, u := range users {
		u.wantAllInterrupted()
	}
}

// killWithin is the time in which a run gets so far that its agent runs, and a bit more: on a busy machine it is more.
func killWithin(t *testing.T) time.Duration {
	t.Helper()
	u := newUser(t)
	start := time.Now()
	p := u.start("--", "sh", "-c", "echo ready; cat")
	p.line("ready")
	up := time.Since(start)
	_ = p.stdin.Close()
	u.wantCode(p.wait(), 0)
	return up + up/4
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// killAfter kills a run so long after its start, and reports after which time nothing was left of it.
func (u *user) killAfter(delay time.Duration) (took time.Duration, gone bool) {
	cmd := u.command("run", "--", "sh", "-c", "setsid sleep 1000 & sleep 1000")
	if err := cmd.Start(); err != nil {
		u.t.Error(err)
		return 0, false
	}
	<-time.After(delay)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	killed := time.Now()
	for {
		left := u.remains()
		if len(left) == 0 {
			return time.Since(killed), true
		}
		if time.Since(killed) > goneLimit {
			u.t.Errorf("killed %s after its start, %s later there is still:\n%s", delay, goneLimit, strings.Join(left, "\n"))
			return goneLimit, false
		}
		<-time.After(50 * time.Millisecond)
	}
}

// remains is what there is of a user on this machine: objects in the engine, processes, mounts.
func (u *user) remains() []string {
	list, err := u.runs.List(1)
	if err != nil {
		u.t.Error(err)
	}
	var left []string
	for _, r := range list {
		left = append(left, u.leftovers(string(r.ID))...)
	}
	return append(left, traces(u.t, u.state)...)
}

// traces finds the processes whose environment or mounts name a directory: with the state directory of a user that is
// every process of ours, on the host and in containers. A leftover mount shows in all processes' mounts.
func traces(t *testing.T, dir string) []string {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, proc := range procs {
		for _, name := range []string{"environ", "mountinfo"} {
			// A process that ended meanwhile reads as an error.
			if b, err := os.ReadFile(filepath.Join(proc, name)); err == nil && bytes.Contains(b, []byte(dir)) {
				program, _ := os.Readlink(filepath.Join(proc, "exe")) // empty for the kernel's threads
				found = append(found, name+" of "+filepath.Base(proc)+" "+program)
			}
		}
		if len(found) > 20 {
			break
		}
	}
	return found
}

// wantAllInterrupted has a command meet the newest of the runs that died: it writes down how they ended. The others
// wait for theirs.
func (u *user) wantAllInterrupted() {
	u.t.Helper()
	const met = 3 // each waits for the disk
	u.wantCode(u.finish(u.command("runs", "--limit", strconv.Itoa(met))), 0)
	list, err := u.runs.List(0)
	if err != nil {
		u.t.Fatal(err)
	}
	for i, r := range list {
		want := runs.Interrupted
		if i < met {
			want = runs.Finished
		}
		if state, err := r.State(); err != nil || state != want {
			u.t.Errorf("run %s is %s (%v), want %s", r.ID, state, err, want)
		}
		if s, err := r.Summary(); err != nil || s.Outcome != event.Interrupted {
			u.t.Errorf("run %s is recorded as %s (%v)", r.ID, s.Outcome, err)
		}
	}
}

// TestRunCancelledEarly sends SIGTERM at random moments. The runner then cleans up itself, before it ends.
func TestRunCancelledEarly(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	within := killWithin(t)
	for range number(t, "AGENT_SANDBOX_TEST_CANCELS", 20) {
		delay := rand.N(within)
		cmd := u.command("run", "--", "sh", "-c", "exec sleep 1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(delay)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if code := exitStatus(cmd.ProcessState); code != 128+int(syscall.SIGTERM) {
			t.Errorf("cancelled %s after its start: exit status %d", delay, code)
		}
		eventually(t, goneLimit, func() (bool, string) {
			left := u.remains()
			return len(left) == 0, "cancelled " + delay.String() + " after its start: there is still " + strings.Join(left, ", ")
		})
	}
}
