//go:build docker

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

func TestRunKeepsOutputsApart(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := u.sh("printf 'no newline'; echo problem >&2; printf at-the-end; exit 3")
	u.wantCode(r, 3)
	if r.stdout != "no newlineat-the-end" {
		t.Errorf("stdout %q", r.stdout)
	}
	if !strings.HasPrefix(r.stderr, "problem\n") {
		t.Errorf("stderr %q", r.stderr)
	}
	u.wantOutcome(event.Failure, 3)
	if got := u.log(runs.StdoutFile); got != r.stdout {
		t.Errorf("%s holds %q", runs.StdoutFile, got)
	}
	if got := u.log(runs.StderrFile); got != "problem\n" {
		t.Errorf("%s holds %q", runs.StderrFile, got)
	}
}

// TestRunBurst writes to both outputs at once, as fast as possible: each keeps its order and loses nothing.
func TestRunBurst(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := u.sh("seq 1 100000 & seq 100001 200000 >&2; wait")
	u.wantCode(r, 0)
	numbers := func(from, to int) string {
		var b strings.Builder
		for i := from; i <= to; i++ {
			fmt.Fprintln(&b, i)
		}
		return b.String()
	}
	if r.stdout != numbers(1, 100_000) {
		t.Errorf("stdout has %d bytes, and not the hundred thousand lines in order", len(r.stdout))
	}
	if !strings.HasPrefix(r.stderr, numbers(100_001, 200_000)) {
		t.Errorf("stderr has %d bytes, and not the hundred thousand lines in order", len(r.stderr))
	}
}

func TestRunBinaryOutput(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	random := rand.NewChaCha8([32]byte{1})
	content := make([]byte, 3<<20+17)
	_, _ = random.Read(content) // never fails
	u.write("blob", string(content), 0o644)
	r := u.run("--", "cat", "blob")
	u.wantCode(r, 0)
	if r.stdout != string(content) {
		t.Errorf("%d bytes came out of %d, or others", len(r.stdout), len(content))
	}
}

const (
	gib = 1 << 30
	// maxMemory is what neither runner nor guest may exceed, whatever passes through: the promise of the README.
	maxMemory = 40 << 20
)

// TestRunGigabyteOut passes a gibibyte out in bounded memory; the logs keep their part of it.
func TestRunGigabyteOut(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("resources: {output: 4MiB}\n")
	p := u.start("--", "sh", "-c", "head -c 1G /dev/zero; read -r line; grep VmHWM /proc/1/status >&2")
	start := time.Now()
	if n, err := io.CopyN(io.Discard, p.stdout, gib); err != nil {
		t.Fatalf("%d bytes came out: %v", n, err)
	}
	t.Logf("%.0f MB/s", gib/1e6/time.Since(start).Seconds())
	p.wantMemory()
	_ = p.stdin.Close()
	r := p.wait()
	u.wantCode(r, 0)
	if r.stdout != "" {
		t.Errorf("%d bytes too many came out", len(r.stdout))
	}
	wantMemory(t, "guest", r.stderr)
	s := u.wantOutcome(event.Success, 0)
	want := event.OutputTruncated{Stream: "stdout", Limit: 4 << 20, Bytes: gib}
	if !slices.Contains(s.Truncated, want) {
		t.Errorf("recorded as truncated: %+v, want %+v", s.Truncated, want)
	}
	if n := len(u.log(runs.StdoutFile)) + len(u.log(runs.StderrFile)); n != 4<<20 {
		t.Errorf("the logs keep %d bytes", n)
	}
}

// wantMemory looks at the runner while it runs. What wait4(2) reports afterwards has the memory of the process in it
// that forked it, which is this test.
func (p *process) wantMemory() {
	p.u.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.u.t.Fatal(err)
	}
	wantMemory(p.u.t, "runner", string(b))
}

// wantMemory looks at the peak that a /proc/PID/status tells (proc_pid_status(5)).
func wantMemory(t *testing.T, who, status string) {
	t.Helper()
	_, peak, _ := strings.Cut(status, "VmHWM:")
	f := strings.Fields(peak)
	if len(f) < 2 || f[1] != "kB" {
		t.Fatalf("no memory of the %s in %q", who, status)
	}
	kib, err := strconv.Atoi(f[0])
	if err != nil || kib<<10 > maxMemory {
		t.Errorf("the %s had %d KiB (%v)", who, kib, err)
	}
	t.Logf("the %s had %d MiB", who, kib>>10)
}

// TestRunGigabyteIn passes a gibibyte in, in bounded memory and without a mistake.
func TestRunGigabyteIn(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	chunk := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(chunk) // never fails
	p := u.start("--", "sh", "-c", "head -c 1G | sha256sum; read -r line; grep VmHWM /proc/1/status >&2")
	sum := sha256.New()
	start := time.Now()
	if n, err := io.CopyN(io.MultiWriter(p.stdin, sum), &repeated{chunk: chunk}, gib); err != nil {
		t.Fatalf("%d bytes went in: %v", n, err)
	}
	p.line(hex.EncodeToString(sum.Sum(nil)) + "  -")
	t.Logf("%.0f MB/s", gib/1e6/time.Since(start).Seconds())
	p.wantMemory()
	_ = p.stdin.Close()
	r := p.wait()
	u.wantCode(r, 0)
	wantMemory(t, "guest", r.stderr)
}

// repeated gives chunk again and again, each time one byte later, so that a lost piece does not go unnoticed.
type repeated struct {
	chunk []byte
	at    int
}

func (r *repeated) Read(b []byte) (int, error) {
	n := copy(b, r.chunk[r.at:])
	if r.at += n; r.at == len(r.chunk) {
		r.at = 0
		r.chunk = append(r.chunk[1:], r.chunk[0]+1)
	}
	return n, nil
}

func TestRunStdin(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	t.Run("comes through", func(t *testing.T) {
		u := u.in(t)
		cmd := u.command("run", "--", "cat")
		cmd.Stdin = strings.NewReader("one\ntwo without a newline")
		r := u.finish(cmd)
		u.wantCode(r, 0)
		if r.stdout != "one\ntwo without a newline" {
			t.Errorf("cat wrote %q", r.stdout)
		}
	})
	t.Run("null", func(t *testing.T) {
		u := u.in(t)
		r := u.run("--", "sh", "-c", "cat; echo end")
		u.wantCode(r, 0)
		if r.stdout != "end\n" {
			t.Errorf("wrote %q", r.stdout)
		}
	})
	t.Run("closed descriptors", func(t *testing.T) {
		u := u.in(t)
		cmd := u.command("run", "--", "sh", "-c", "cat; echo end; exit 7")
		inShell(cmd, `exec "$@" <&- >&-`)
		u.wantCode(u.finish(cmd), 7)
		u.wantOutcome(event.Failure, 7)
		if got := u.log(runs.StdoutFile); got != "end\n" {
			t.Errorf("%s holds %q", runs.StdoutFile, got)
		}
	})
	t.Run("not read, and open for longer than the command", func(t *testing.T) {
		u := u.in(t)
		p := u.start("--", "sh", "-c", "echo ready; exit 5")
		p.line("ready")
		go func() { _, _ = p.stdin.Write(make([]byte, 1<<20)) }() // ends with the pipe
		u.wantCode(p.wait(), 5)
		u.wantOutcome(event.Failure, 5)
	})
}

// TestRunClosedStdout is a pipeline whose reader has seen enough.
func TestRunClosedStdout(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	p := u.start("--", "yes")
	p.line("y")
	if err := p.pipe.Close(); err != nil {
		t.Fatal(err)
	}
	u.wantCode(p.end(), 128+int(syscall.SIGPIPE))
	s := u.wantOutcome(event.Failure, 128+int(syscall.SIGPIPE))
	if s.Agent.Signal != "SIGPIPE" || s.Agent.Reason != event.Signalled {
		t.Errorf("recorded as %+v", s.Agent)
	}
}

// TestRunFullStdout: a command whose output can't be written down has not succeeded, whatever it says itself.
func TestRunFullStdout(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd := u.command("run", "--", "sh", "-c", "echo x >made; echo hello")
	cmd.Stdout = full
	r := u.finish(cmd)
	u.wantCode(r, exitFailure)
	if !strings.Contains(r.stderr, "stdout") || !strings.Contains(r.stderr, "no space left on device") {
		t.Errorf("stderr does not say what happened: %s", r.stderr)
	}
	if s := u.wantOutcome(event.Errored, exitFailure); s.Changes == nil || s.Changes.Added != 1 {
		t.Errorf("what the agent did is not kept: %+v", s.Changes)
	}
}

// TestRunSlowReader has a reader that starts when the command has long written its output and gone.
func TestRunSlowReader(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	p := u.start("--", "sh", "-c", "echo ready; exec head -c 200K /dev/zero") // fits into the link's window and the pipe
	p.line("ready")
	u.waitFor(event.AgentExited{}.Kind())
	r := p.wait()
	u.wantCode(r, 0)
	if len(r.stdout) != 200<<10 {
		t.Errorf("%d bytes came out", len(r.stdout))
	}
	u.wantOutcome(event.Success, 0)
}

// TestRunStuckReader is stopped although nobody reads its output.
func TestRunStuckReader(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	p := u.start("--", "sh", "-c", "echo ready; exec yes")
	p.line("ready")
	p.full()
	p.signal(syscall.SIGTERM)
	start := time.Now()
	u.wantCode(p.end(), 128+int(syscall.SIGTERM))
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	if s := u.wantOutcome(event.Cancelled, 128+int(syscall.SIGTERM)); s.Counts.Warnings != 1 {
		t.Errorf("nobody was told that output is missing: %+v", s.Warnings)
	}
}

// full waits until nothing more goes into the pipe that the test does not read (pipe(7)).
func (p *process) full() {
	p.u.t.Helper()
	raw, err := p.pipe.SyscallConn()
	if err != nil {
		p.u.t.Fatal(err)
	}
	eventually(p.u.t, eventTimeout, func() (bool, string) {
		n := 0
		err := raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		return n >= 48<<10, fmt.Sprintf("%d bytes are in the pipe (%v)", n, err)
	})
}

// TestRunOutputLimit: the logs keep so much of both streams together; what the caller gets has no limit.
func TestRunOutputLimit(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("resources: {output: 1MiB}\n")
	r := u.sh("head -c 900K /dev/zero; head -c 5M /dev/zero >&2")
	u.wantCode(r, 0)
	if len(r.stdout) != 900<<10 || strings.Count(r.stderr, "\x00") != 5<<20 {
		t.Errorf("%d and %d bytes came out", len(r.stdout), len(r.stderr))
	}
	s := u.wantOutcome(event.Success, 0)
	out, err := u.log(runs.StdoutFile), u.log(runs.StderrFile)
	if len(out)+len(err) != 1<<20 {
		t.Errorf("the logs keep %d and %d bytes", len(out), len(err))
	}
	if !strings.HasPrefix(r.stdout, out) || !bytes.HasPrefix([]byte(r.stderr), []byte(err)) {
		t.Error("the logs keep something else than the start")
	}
	if len(s.Truncated) == 0 {
		t.Error("nobody was told")
	}
}
