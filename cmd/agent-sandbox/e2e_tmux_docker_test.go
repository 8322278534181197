//go:build docker

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// tmux is a person at a real terminal: unlike a pty alone, it draws what programs send it, answers what they ask it, and tells what is
// to be seen now.
type tmux struct {
	u    *user
	name string // of its server
	dir  string // of its socket, which tmux leaves behind
}

// tmux starts a shell on a terminal of 24 by 80, in the project.
func (u *user) tmux() *tmux {
	u.t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		u.t.Skip("SKIPPED: no agent is tried in a real terminal, since there is no tmux: apt-get install tmux")
	}
	tm := &tmux{u, marker("tmux"), u.t.TempDir()}
	u.t.Cleanup(func() { // the server is not a child of ours
		ctx, cancel := context.WithTimeout(context.WithoutCancel(u.t.Context()), eventTimeout)
		defer cancel()
		_ = tm.command(ctx, "kill-server").Run()
	})
	tm.do("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-c", u.project, "env PS1='$ ' sh")
	return tm
}

func (tm *tmux) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "tmux", append([]string{"-u", "-L", tm.name}, args...)...)
	cmd.Env, cmd.Dir = append([]string{"TMUX_TMPDIR=" + tm.dir}, tm.u.env...), tm.u.project
	return cmd
}

// do is one command of tmux, and what it says.
func (tm *tmux) do(args ...string) string {
	tm.u.t.Helper()
	ctx, cancel := context.WithTimeout(tm.u.t.Context(), eventTimeout)
	defer cancel()
	out, err := tm.command(ctx, args...).CombinedOutput()
	if err != nil {
		tm.u.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (tm *tmux) types(text string) { tm.u.t.Helper(); tm.do("send-keys", "-l", text) }

// presses sends keys by their names in tmux.
func (tm *tmux) presses(keys ...string) {
	tm.u.t.Helper()
	tm.do(append([]string{"send-keys"}, keys...)...)
}

// sees waits until all of these are on the screen at once.
func (tm *tmux) sees(wanted ...string) {
	tm.u.t.Helper()
	tm.when(func(screen string) string {
		for _, w := range wanted {
			if !strings.Contains(screen, w) {
				return "no " + w
			}
		}
		return ""
	})
}

// when waits for a screen with which nothing is wrong.
func (tm *tmux) when(wrong func(screen string) string) {
	tm.u.t.Helper()
	eventually(tm.u.t, 2*eventTimeout, func() (bool, string) {
		screen := tm.do("capture-pane", "-p")
		what := wrong(screen)
		return what == "", what + " on the screen:\n" + screen
	})
}

// read is a file of the project.
func (u *user) read(name string) string {
	u.t.Helper()
	b, err := os.ReadFile(filepath.Join(u.project, name))
	if err != nil {
		u.t.Fatal(err)
	}
	return string(b)
}

// hasRule reports whether a line of the screen is a rule of this width.
func hasRule(screen string, width int) bool {
	for line := range strings.Lines(screen) {
		if strings.TrimRight(line, " \n") == strings.Repeat("─", width) {
			return true
		}
	}
	return false
}

// TestAgentInTmux: a person's session with a real agent, on a real terminal. It draws itself, again when the size changes, and answers;
// Ctrl-C stops what it does, and twice ends it. The shell that it was called from has its terminal back as it was.
func TestAgentInTmux(t *testing.T) {
	needAgentsImage(t)
	c := agentCases()[0]
	model := &runnertest.Model{Key: c.key, Script: c.script("sleep 1000"), Last: "Mended, but not checked."}
	u, args := c.userOf(t, model)
	tm := u.tmux()
	tm.types("stty -g >before; '" + strings.Join(append([]string{u.program, "run", "-t"}, args[1:]...), "' '") + "'; echo ended with $?; stty -g >after; echo ca''lm")
	tm.presses("Enter")
	tm.when(func(screen string) string {
		if !strings.Contains(screen, "permissions") || !hasRule(screen, 80) { // below the place for a task, and around it
			return "nothing of the agent"
		}
		return ""
	})
	tm.types("mend")
	tm.sees("mend")
	tm.presses("Enter")
	tm.sees("calc.py", "a + b", "sleep 1000")

	tm.do("resize-window", "-x", "111", "-y", "40")
	tm.when(func(screen string) string {
		if !hasRule(screen, 111) || hasRule(screen, 80) || !strings.Contains(screen, "sleep 1000") {
			return "nothing drawn for the new size"
		}
		return ""
	})
	tm.presses("C-c")
	tm.sees("Interrupted")
	tm.types("go on")
	tm.sees("go on")
	tm.presses("Enter")
	tm.sees(model.Last)
	tm.presses("C-c")
	tm.sees("again to exit")
	tm.presses("C-c")
	tm.sees("ended with 0", "calm")

	if before, after := u.read("before"), u.read("after"); before != after || before == "" {
		t.Errorf("the terminal's modes are %s, and were %s", after, before)
	}
	if diff := u.finish(u.command("diff", "last")); !strings.Contains(diff.stdout, "+    return a + b") {
		t.Errorf("the diff is\n%s", diff.stdout)
	}
	c.checkRecord(u)
	if start := u.summary().Start; !start.TTY {
		t.Error("recorded as a run without a terminal")
	}
}
