//go:build docker

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
)

// TestRunSignal: the first signal goes to the agent, which may clean up. The exit status tells the signal, whatever the
// agent's is.
func TestRunSignal(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
	}{{"INT", syscall.SIGINT}, {"TERM", syscall.SIGTERM}, {"HUP", syscall.SIGHUP}, {"QUIT", syscall.SIGQUIT}} {
		t.Run(tt.name, func(t *testing.T) {
			u := u.in(t)
			p := u.start("--", "sh", "-c", `trap 'echo got `+tt.name+`; echo made >by-the-trap; exit 7' `+tt.name+`; echo ready; while :; do sleep 60 & wait $!; done`)
			p.line("ready")
			p.signal(tt.signal)
			p.line("got " + tt.name)
			u.wantCode(p.wait(), 128+int(tt.signal))
			s := u.wantOutcome(event.Cancelled, 128+int(tt.signal))
			if s.Agent.Code != 7 || s.Agent.Reason != event.CancelledBy {
				t.Errorf("the agent's end is recorded as %+v", s.Agent)
			}
			if s.Changes == nil || s.Changes.Added != 1 {
				t.Errorf("what the agent did until then is not kept: %+v", s.Changes)
			}
		})
	}
}

// TestRunSignalIgnored: an agent that does not listen is killed after the grace period, and not before.
func TestRunSignalIgnored(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("resources: {grace: 1s}\n")
	p := u.start("--", "sh", "-c", `trap '' TERM; echo ready; while :; do sleep 60; done`)
	p.line("ready")
	start := time.Now()
	p.signal(syscall.SIGTERM)
	u.wantCode(p.wait(), 128+int(syscall.SIGTERM))
	if took := time.Since(start); took < time.Second || took > 8*time.Second {
		t.Errorf("it took %s, with a grace of one second", took)
	}
	if s := u.wantOutcome(event.Cancelled, 128+int(syscall.SIGTERM)); s.Agent.Signal != "SIGKILL" {
		t.Errorf("the agent's end is recorded as %+v", s.Agent)
	}
}

// TestRunSecondSignal: the second signal ends the program at once, and still nothing stays.
func TestRunSecondSignal(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	mark := marker("second")
	p := u.start("--", "sh", "-c", `trap 'echo got it' TERM; echo ready; while :; do sleep 60 & wait $!; done`, mark)
	p.line("ready")
	p.signal(syscall.SIGTERM)
	p.line("got it")
	start := time.Now()
	p.signal(syscall.SIGINT)
	u.wantCode(p.wait(), 128+int(syscall.SIGINT))
	if took := time.Since(start); took > 5*time.Second { // waiting for the agent, and its grace of ten seconds, would take longer
		t.Errorf("it took %s", took)
	}
	u.wantGone(mark)
}

// marker is an argument that no other process of this machine has.
func marker(name string) string {
	return fmt.Sprintf("e2e-%s-%d-%d", name, os.Getpid(), time.Now().UnixNano())
}

// wantGone waits until nothing of the newest run is left: no object in the engine and no process that has mark as an argument. How soon that
// is, is for TestRunKilled: of one run a busy machine tells nothing.
func (u *user) wantGone(mark string) {
	u.t.Helper()
	run := string(u.last().ID)
	eventually(u.t, goneLimit, func() (bool, string) {
		left := append(u.leftovers(run), processes(u.t, mark)...)
		return len(left) == 0, "there is still " + strings.Join(left, ", ")
	})
}

// TestRunNohup: a signal that the caller told us to ignore stays ignored.
func TestRunNohup(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	p := u.prepare("--", "sh", "-c", "echo ready; read -r line; exit 7")
	inShell(p.cmd, `trap '' HUP INT; exec "$@"`)
	p.begin()
	p.line("ready")
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGINT)
	if _, err := p.stdin.Write([]byte("go on\n")); err != nil {
		t.Fatal(err)
	}
	u.wantCode(p.wait(), 7)
	u.wantOutcome(event.Failure, 7)
}

func TestRunTimeout(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("resources: {timeout: 1s, grace: 1s}\n")
	t.Run("asked", func(t *testing.T) {
		u := u.in(t)
		r := u.sh(`trap 'echo asked; exit 0' TERM; while :; do sleep 60 & wait $!; done`)
		u.wantCode(r, exitTimeout)
		if r.stdout != "asked\n" {
			t.Errorf("the agent was not asked to end: %q", r.stdout)
		}
		if s := u.wantOutcome(event.Timeout, exitTimeout); s.Agent.Code != 0 || s.Agent.Reason != event.TimedOut {
			t.Errorf("the agent's end is recorded as %+v", s.Agent)
		}
	})
	t.Run("killed", func(t *testing.T) {
		u := u.in(t)
		r := u.sh(`trap 'echo no' TERM; while :; do sleep 60 & wait $!; done`)
		u.wantCode(r, exitTimeout)
		if r.stdout != "no\n" {
			t.Errorf("the agent was not asked to end first: %q", r.stdout)
		}
		if s := u.wantOutcome(event.Timeout, exitTimeout); s.Agent.Signal != "SIGKILL" {
			t.Errorf("the agent's end is recorded as %+v", s.Agent)
		}
	})
	t.Run("nobody reads", func(t *testing.T) {
		u := u.in(t)
		p := u.start("--", "yes")
		u.wantCode(p.end(), exitTimeout)
		u.wantOutcome(event.Timeout, exitTimeout)
	})
}

// exitTimeout is what runner has for a run whose time was up.
const exitTimeout = 124

// TestRunLeavesNoProcess: what the agent started ends with it, however it hid.
func TestRunLeavesNoProcess(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	mark := marker("daemon")
	u.write("daemons.py", `
import os, sys, signal, time
def away(*steps):
    if os.fork() == 0:
        for step in steps: step()
        for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(n, signal.SIG_IGN)
        os.execvp("python3", ["python3", "-c", "import os, time; open('up-%d' % os.getpid(), 'w'); time.sleep(1000)", sys.argv[1]])
def twice():
    if os.fork(): os._exit(0)
away()
away(os.setsid)
away(os.setsid, twice)
away(twice, os.setsid, twice)
`, 0o644)
	start := time.Now()
	r := u.sh("python3 daemons.py " + mark + "; until [ $(ls | grep -c '^up-') = 4 ]; do sleep 0.05; done; echo up")
	u.wantCode(r, 0)
	if r.stdout != "up\n" {
		t.Fatalf("the daemons did not start: %q", r.stdout)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("it took %s to end the daemons", took)
	}
	u.wantOutcome(event.Success, 0)
	if left := processes(t, mark); len(left) > 0 {
		t.Errorf("still there: %q", left)
	}
}

// TestRunReapsOrphans makes two thousand of them, more than processes are allowed at once.
func TestRunReapsOrphans(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("resources: {pids: 256}\n")
	u.write("orphans.py", `
import os, time
for _ in range(2000):
    pid = os.fork()
    if pid == 0:
        while True:
            try:
                if os.fork() == 0: os._exit(0)
                os._exit(0)
            except BlockingIOError: time.sleep(0.01)
    os.waitpid(pid, 0)
def zombies():
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try: count += open("/proc/%s/stat" % pid).read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError: pass
    return count
end = time.time() + 10
while zombies() and time.time() < end: time.sleep(0.02)
print("zombies:", zombies())
`, 0o644)
	r := u.run("--", "python3", "orphans.py")
	u.wantCode(r, 0)
	if r.stdout != "zombies: 0\n" {
		t.Errorf("%q", r.stdout)
	}
}
