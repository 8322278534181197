//go:build docker

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runs"
)

// exitStatus is a process' exit status as a shell has it.
func exitStatus(s *os.ProcessState) int {
	if ws := s.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.ExitCode()
}

// process is a command that goes on while the test talks to it.
type process struct {
	u      *user
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr *strings.Builder
	pipe   *os.File
}

// start starts `agent-sandbox run ARGS` with pipes to the test.
func (u *user) start(args ...string) *process {
	u.t.Helper()
	p := u.prepare(args...)
	p.begin()
	return p
}

// prepare makes the command of start, for changes before it begins.
func (u *user) prepare(args ...string) *process {
	u.t.Helper()
	return u.prepareCommand(append([]string{"run"}, args...)...)
}

// prepareCommand is prepare for any command.
func (u *user) prepareCommand(args ...string) *process {
	u.t.Helper()
	p := &process{u: u, cmd: u.command(args...), stderr: &strings.Builder{}}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		u.t.Fatal(err)
	}
	p.cmd.Stderr = p.stderr
	return p
}

func (p *process) begin() {
	p.u.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		p.u.t.Fatal(err)
	}
	defer w.Close()
	p.u.t.Cleanup(func() { _ = r.Close() })
	p.cmd.Stdout, p.pipe, p.stdout = w, r, bufio.NewReader(r)
	if err := p.cmd.Start(); err != nil {
		p.u.t.Fatal(err)
	}
}

// line reads the next line of the command's output, which must be want.
func (p *process) line(want string) {
	p.u.t.Helper()
	if err := p.pipe.SetReadDeadline(time.Now().Add(eventTimeout)); err != nil {
		p.u.t.Fatal(err)
	}
	got, err := p.stdout.ReadString('\n')
	if err != nil || strings.TrimSuffix(got, "\n") != want {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.u.t.Fatalf("read %q (%v), want the line %q\nstderr: %.4000s", got, err, want, p.stderr)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.u.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.u.t.Fatalf("send %v: %v", s, err)
	}
}

// wait takes the rest of the output and the end of the command.
func (p *process) wait() result {
	p.u.t.Helper()
	if err := p.pipe.SetReadDeadline(time.Time{}); err != nil {
		p.u.t.Fatal(err)
	}
	rest, err := io.ReadAll(p.stdout)
	if err != nil {
		p.u.t.Fatal(err)
	}
	r := p.end()
	r.stdout = string(rest)
	return r
}

// end waits for the end of the command, without its output.
func (p *process) end() result {
	p.u.t.Helper()
	err := p.cmd.Wait()
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		p.u.t.Fatalf("%v\nstderr: %s", err, p.stderr)
	}
	return result{code: exitStatus(p.cmd.ProcessState), stderr: p.stderr.String()}
}

// inShell has a script start cmd, which is its "$@".
func inShell(cmd *exec.Cmd, script string) {
	cmd.Args = append([]string{"sh", "-c", script, "sh", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
}

// waitFor waits until the newest run has recorded an event of this kind.
func (u *user) waitFor(kind string) {
	u.t.Helper()
	eventually(u.t, eventTimeout, func() (bool, string) {
		r, err := u.runs.Resolve("last")
		if err != nil {
			return false, err.Error()
		}
		b, err := os.ReadFile(r.Path(runs.EventsFile))
		return err == nil && strings.Contains(string(b), `"kind":"`+kind+`"`), fmt.Sprintf("no %s (%v) in %s", kind, err, b)
	})
}

// processes are the ids of this machine's processes, those in containers included, that have an argument which
// contains mark.
func processes(t *testing.T, mark string) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range names {
		// A process that ended meanwhile reads as an error.
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), mark) {
			found = append(found, filepath.Base(filepath.Dir(name))+" "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

// eventually asks until ok says yes, and fails with what it says otherwise. It is for what another process does: there
// is nothing to wait on.
func eventually(t *testing.T, limit time.Duration, ok func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; <-tick.C {
		yes, state := ok()
		if yes {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %s: %s", limit, state)
		}
	}
}
