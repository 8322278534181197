//go:build docker

package main

import (
	"testing"

	"github.com/org/agent-sandbox/runner/event"
)

func TestRunExitStatus(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("plain", "#!/bin/sh\n", 0o644)
	u.write("no-format", "echo hello\n", 0o755)
	for _, tt := range []struct {
		name    string
		argv    []string
		code    int
		outcome event.Outcome
		reason  event.ExitReason
		signal  string
	}{
		{"success", []string{"true"}, 0, event.Success, event.Exited, ""},
		{"failure", []string{"false"}, 1, event.Failure, event.Exited, ""},
		{"any", []string{"sh", "-c", "exit 42"}, 42, event.Failure, event.Exited, ""},
		{"highest", []string{"sh", "-c", "exit 255"}, 255, event.Failure, event.Exited, ""},
		{"one of ours", []string{"sh", "-c", "exit 125"}, 125, event.Failure, event.Exited, ""},
		{"not executable", []string{"./plain"}, 126, event.Failure, event.NotStarted, ""},
		{"a directory", []string{"/etc"}, 126, event.Failure, event.NotStarted, ""},
		{"no program format", []string{"./no-format"}, 126, event.Failure, event.NotStarted, ""},
		{"not in PATH", []string{"no-such-program"}, 127, event.Failure, event.NotStarted, ""},
		{"no such path", []string{"./no-such-program"}, 127, event.Failure, event.NotStarted, ""},
		{"SIGTERM", []string{"sh", "-c", "kill -TERM $$"}, 143, event.Failure, event.Signalled, "SIGTERM"},
		{"SIGKILL", []string{"sh", "-c", "kill -KILL $$"}, 137, event.Failure, event.Signalled, "SIGKILL"},
		{"SIGSEGV", []string{"sh", "-c", "kill -SEGV $$"}, 139, event.Failure, event.Signalled, "SIGSEGV"},
		{"a real-time signal", []string{"python3", "-c", "import os; os.kill(os.getpid(), 64)"}, 192, event.Failure, event.Signalled, "signal 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := u.in(t)
			r := u.run(append([]string{"--"}, tt.argv...)...)
			u.wantCode(r, tt.code)
			if r.stdout != "" {
				t.Errorf("stdout: %q", r.stdout)
			}
			s := u.wantOutcome(tt.outcome, tt.code)
			if s.Agent == nil || s.Agent.Reason != tt.reason || s.Agent.Code != tt.code || s.Agent.Signal != tt.signal {
				t.Errorf("recorded as %+v, want %s with %d %s", s.Agent, tt.reason, tt.code, tt.signal)
			}
			if tt.reason == event.NotStarted && (s.Agent.Error == "" || s.Reason == "") {
				t.Errorf("there is no word on why it did not start: %+v %q", s.Agent, s.Reason)
			}
		})
	}
}
