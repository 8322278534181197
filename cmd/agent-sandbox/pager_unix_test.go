//go:build !windows

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/org/agent-sandbox/runner/runs"
)

// onTerminal runs the program on a terminal of its own and returns what that shows.
func onTerminal(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	return typing(t, "", env, args...)
}

// typing is onTerminal for a program that reads what is typed.
func typing(t *testing.T, keys string, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("agent-sandbox", args...) // TestMain put it into PATH
	cmd.Env = append(os.Environ(), "TERM=xterm", "LESS=", "NO_PAGER=")
	cmd.Env = append(cmd.Env, env...)
	tty, err := pty.Start(cmd)
	if errors.Is(err, pty.ErrUnsupported) {
		t.Skip("no terminals here")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	stuck := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	if _, err := io.WriteString(tty, keys); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, tty); err != nil && !errors.Is(err, syscall.EIO) { // EIO: Linux's end of a terminal
		t.Fatal(err)
	}
	return b.String(), cmd.Wait()
}

// terminalRun is a user with one run, whose agent wrote what is hostile to a terminal.
func terminalRun(t *testing.T) (env []string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"before/f": "one\n", "after/f": "two \x1b[2J\n", "after/n\x1b[31m": "x\n", "after/c\u009b2J": "\u009b2J\n"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	store, err := runs.Open(filepath.Join(dir, "agent-sandbox", "runs"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	r, err := store.Create("20260101-100000-aaaaaa")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := fixture{run: r, project: filepath.Join(dir, "before"), after: filepath.Join(dir, "after"), argv: []string{"x\x1b[2J"}}
	if err := f.write("success"); err != nil {
		t.Fatal(err)
	}
	return []string{"XDG_STATE_HOME=" + dir, "HOME=" + dir}
}

func TestTerminalIsSafe(t *testing.T) {
	env := append(terminalRun(t), "PAGER=cat", "NO_COLOR=1")
	commands := [][]string{
		{"diff", "last"},
		{"diff", "last", "--stat"},
		{"show", "last"},
		{"logs", "last"},
		{"logs", "last", "--events"},
		{"runs"},
		{"apply", "last", "--dry-run", "--skip-protected"},
		{"diff", "last", "--json"},
		{"show", "last", "--json"},
		{"runs", "--json"},
		{"apply", "last", "--dry-run", "--skip-protected", "--json"},
	}
	for _, terminal := range []string{"TERM=xterm", "TERM=dumb"} {
		for _, args := range commands {
			got, err := onTerminal(t, append(env[:len(env):len(env)], terminal), args...)
			if err != nil {
				t.Errorf("%s %q: %v\n%s", terminal, args, err, got)
			}
			if strings.ContainsAny(got, "\x1b\a\u009b") {
				t.Errorf("%s %q wrote control characters: %q", terminal, args, got)
			}
		}
	}
}

func TestPager(t *testing.T) {
	env := terminalRun(t)
	mark := filepath.Join(t.TempDir(), "mark")
	for _, tt := range []struct {
		name string
		env  []string
		want string // in what the terminal shows
		fail bool
	}{
		{name: "git's comes first", env: []string{"GIT_PAGER=sed s/^/G:/", "PAGER=sed s/^/P:/"}, want: "G:"},
		{name: "PAGER", env: []string{"PAGER=sed s/^/P:/"}, want: "P:"},
		{name: "colour", env: []string{"PAGER=cat -"}, want: "\x1b[32m+two ^[[2J"},
		{name: "cat is none", env: []string{"GIT_PAGER=cat", "PAGER=touch " + mark}, want: "+two"},
		{name: "left early", env: []string{"PAGER=true"}},
		{name: "less gets git's options", env: []string{`PAGER=cat >/dev/null; echo "[$LESS|$LV]"`, "LESS=X"}, want: "[X|-c]"},
		{name: "missing", env: []string{"PAGER=/nonexistent/pager"}, want: "pager \"/nonexistent/pager\"", fail: true},
	} {
		got, err := onTerminal(t, append(env[:len(env):len(env)], tt.env...), "diff", "last")
		if (err != nil) != tt.fail || !strings.Contains(got, tt.want) {
			t.Errorf("%s: error %v, output %q, want %q in it", tt.name, err, got, tt.want)
		}
	}
	if exists(mark) {
		t.Error("a pager ran that was switched off")
	}
}

// Without a terminal there is no pager, whatever the environment says.
func TestNoPagerInPipe(t *testing.T) {
	cmd := exec.Command("agent-sandbox", "diff", "last")
	cmd.Env = append(append(os.Environ(), terminalRun(t)...), "PAGER=false", "GIT_PAGER=false")
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(out, []byte("+two \x1b[2J\n")) {
		t.Errorf("error %v, output %q", err, out)
	}
}

// A reader that goes away is not complained about.
func TestClosedPipe(t *testing.T) {
	cmd := exec.Command("agent-sandbox", "policy", "schema")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	err = cmd.Run()
	_ = w.Close()
	if err == nil || stderr.Len() > 0 {
		t.Errorf("error %v, stderr %q: want a failure in silence", err, stderr.String())
	}
}

func TestDiscardAsks(t *testing.T) {
	env := terminalRun(t)
	got, err := typing(t, "n\n", env, "discard", "--all")
	if err == nil || !strings.Contains(got, "Discard the changes of 1 run? [y/N]") || !strings.Contains(got, "nothing was discarded") {
		t.Errorf("after n: error %v, output %q", err, got)
	}
	got, err = typing(t, "y\n", env, "discard", "--all")
	if err != nil || !strings.Contains(got, "20260101-100000-aaaaaa discarded") {
		t.Errorf("after y: error %v, output %q", err, got)
	}
}
