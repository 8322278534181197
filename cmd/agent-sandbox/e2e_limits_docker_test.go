//go:build docker

package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// TestRunMemoryBomb: the kernel ends the bomb, the guest survives and reports it.
func TestRunMemoryBomb(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("resources: {memory: 64MiB}\n")
	t.Run("the agent itself", func(t *testing.T) {
		u := u.in(t)
		const limit, wanted = 64, 1024 // MiB
		r := u.run("--", "python3", "-c", fmt.Sprintf(`
import mmap, os
x = mmap.mmap(-1, %d << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(x), mmap.PAGESIZE):
    x[at] = 1
    if at %% (1 << 20) == 0: os.write(1, b".")
`, wanted))
		u.wantCode(r, 137)
		s := u.wantOutcome(event.OOM, 137)
		if s.Agent.OOMKills < 1 || s.Agent.Reason != event.OOMKilled || !strings.Contains(s.Reason, "64MiB") {
			t.Errorf("recorded as %+v: %s", s.Agent, s.Reason)
		}
		// A page that a program touches is charged, or it does not get it: so its dots end before the limit. The peak is no such
		// promise. What can't fail, or is about to free memory, is charged by force, and the peak counts that as well (force: in
		// try_charge_memcg of mm/memcontrol.c, page_counter_charge of mm/page_counter.c; cgroup-v2.rst: "the usage may go over the limit
		// temporarily"). It is at least what the program had, and nothing like what it wanted.
		had := int64(len(r.stdout)-1) << 20
		if had < limit<<20/2 || had >= limit<<20 {
			t.Errorf("the program had %d MiB, with a limit of %d", had>>20, limit)
		}
		if peak := s.Agent.PeakMemory; peak != -1 && (peak < had || peak >= wanted<<20) {
			t.Errorf("the peak was %d bytes, and the program had %d", peak, had)
		}
	})
	t.Run("its child", func(t *testing.T) {
		u := u.in(t)
		r := u.sh("python3 -c 'x = bytearray(1 << 30)'; echo survived; exit 3")
		u.wantCode(r, 3)
		if r.stdout != "survived\n" {
			t.Errorf("stdout %q", r.stdout)
		}
		u.wantOutcome(event.OOM, 3)
	})
	t.Run("many at once", func(t *testing.T) {
		u := u.in(t)
		u.write("many.py", `
import os
for _ in range(16):
    if os.fork() == 0:
        x = bytearray(1 << 24)
        import time; time.sleep(1000)
for _ in range(4): os.wait()
`, 0o644)
		r := u.run("--", "python3", "many.py")
		if s := u.summary(); s.Agent == nil || s.Agent.OOMKills < 1 || s.Outcome == event.Errored {
			t.Errorf("exit %d, recorded as %s %q, %+v", r.code, s.Outcome, s.Reason, s.Agent)
		}
	})
}

// TestRunForkBomb: there are never more processes than allowed, and the guest goes on.
func TestRunForkBomb(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("resources: {pids: 64, grace: 1s}\n")
	t.Run("counted", func(t *testing.T) {
		u := u.in(t)
		u.write("bomb.py", `
import os, sys, time
count = 0
while count < 1000:
    try: pid = os.fork()
    except BlockingIOError: break
    if pid == 0: time.sleep(1000)
    count += 1
print(count)
`, 0o644)
		r := u.run("--", "python3", "bomb.py")
		u.wantCode(r, 0)
		if n, err := strconv.Atoi(strings.TrimSpace(r.stdout)); err != nil || n < 32 || n > 64+link.GuestThreads {
			t.Errorf("%q processes were possible, with a limit of 64", r.stdout)
		}
		u.wantOutcome(event.Success, 0)
	})
	t.Run("real", func(t *testing.T) {
		u := u.in(t)
		r := u.run("--timeout", "3s", "--", "bash", "-c", "bomb() { bomb | bomb & }; bomb; while :; do :; done")
		u.wantCode(r, exitTimeout)
		u.wantOutcome(event.Timeout, exitTimeout)
	})
	t.Run("with connections", func(t *testing.T) {
		u := u.in(t)
		// The guest relays, and so needs threads of its own, while there are none to be had.
		u.write("threads.py", `
import os, socket, time
children = []
while True:
    try: pid = os.fork()
    except BlockingIOError: break
    if pid == 0: time.sleep(1000)
    children.append(pid)
refused = 0
for i in range(200):
    s = socket.socket()
    s.settimeout(5)
    try: s.connect(("203.0.113.7", 1000 + i)); s.recv(1)
    except OSError: refused += 1
print(len(children) > 0, refused)
`, 0o644)
		r := u.run("--", "python3", "threads.py")
		u.wantCode(r, 0)
		if r.stdout != "True 200\n" {
			t.Errorf("%q", r.stdout)
		}
		if s := u.wantOutcome(event.Success, 0); s.Counts.RefusedConnections != 200 {
			t.Errorf("%d refusals are recorded", s.Counts.RefusedConnections)
		}
	})
}

// TestRunDiskFill: every place that can be written to has its own limit, and is full for the agent alone.
func TestRunDiskFill(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("resources: {tmp: 8MiB, home: 4MiB, run: 2MiB, shm: 1MiB}\n")
	r := u.sh(`for dir in /tmp "$HOME" /run /dev/shm; do
		dd if=/dev/zero of=$dir/fill bs=64K count=1024 2>&1 | grep -o 'No space left on device'
		wc -c <$dir/fill
	done
	rm -f /tmp/fill "$HOME/fill"; echo again >/tmp/x && echo goes on`)
	u.wantCode(r, 0)
	const full = "No space left on device\n"
	if want := full + "8388608\n" + full + "4194304\n" + full + "2097152\n" + full + "1048576\ngoes on\n"; r.stdout != want {
		t.Errorf("got %q\nwant %q", r.stdout, want)
	}
	u.wantOutcome(event.Success, 0)
}
