//go:build docker

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/org/agent-sandbox/runner/event"
)

// terminal is a person at a terminal: what is on the screen, and a keyboard.
type terminal struct {
	u      *user
	cmd    *exec.Cmd
	master *os.File
	slave  *os.File // kept open, so that the modes can be seen after the end
	before *term.State
	ended  chan struct{}

	mu     sync.Mutex // guards screen
	screen bytes.Buffer
}

// terminal starts `agent-sandbox ARGS` on a terminal of 24 by 80.
func (u *user) terminal(args ...string) *terminal {
	u.t.Helper()
	return u.terminalOf(u.command(args...))
}

func (u *user) terminalOf(cmd *exec.Cmd) *terminal {
	u.t.Helper()
	blocking, slave, err := pty.Open()
	if err != nil {
		u.t.Fatal(err)
	}
	// Package pty leaves it in blocking mode, where closing waits for the reader, and the terminal could not go away.
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err := errors.Join(err, unix.SetNonblock(fd, true), blocking.Close()); err != nil {
		u.t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "master")
	tm := &terminal{u: u, cmd: cmd, master: master, slave: slave, ended: make(chan struct{})}
	tm.resize(24, 80)
	if tm.before, err = term.GetState(int(slave.Fd())); err != nil {
		u.t.Fatal(err)
	}
	tm.cmd.Stdin, tm.cmd.Stdout, tm.cmd.Stderr = slave, slave, slave
	tm.cmd.Env = append(u.env, "TERM=xterm")
	tm.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := tm.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	go func() {
		defer close(tm.ended)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			tm.mu.Lock()
			tm.screen.Write(buf[:n])
			tm.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	u.t.Cleanup(func() {
		_ = tm.cmd.Process.Kill() // it has ended unless the test failed
		_ = slave.Close()
		_ = master.Close()
		<-tm.ended
	})
	return tm
}

func (tm *terminal) text() string {
	tm.mu.Lock()
	defer tm.mu.Unlock()
	return tm.screen.String()
}

// shows waits until the screen has had all of these.
func (tm *terminal) shows(wanted ...string) {
	tm.u.t.Helper()
	eventually(tm.u.t, eventTimeout, func() (bool, string) {
		text := tm.text()
		for _, w := range wanted {
			if !strings.Contains(text, w) {
				return false, "no " + w + " on the screen:\n" + text
			}
		}
		return true, ""
	})
}

func (tm *terminal) types(keys string) {
	tm.u.t.Helper()
	if _, err := tm.master.WriteString(keys); err != nil {
		tm.u.t.Fatal(err)
	}
}

func (tm *terminal) resize(rows, cols uint16) {
	tm.u.t.Helper()
	raw, err := tm.master.SyscallConn()
	if err != nil {
		tm.u.t.Fatal(err)
	}
	var sizeErr error
	err = raw.Control(func(fd uintptr) {
		sizeErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	if err := errors.Join(err, sizeErr); err != nil {
		tm.u.t.Fatal(err)
	}
}

// wait returns the exit status. The terminal's modes must be as they were.
func (tm *terminal) wait() int {
	tm.u.t.Helper()
	err := tm.cmd.Wait()
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		tm.u.t.Fatal(err)
	}
	after, err := term.GetState(int(tm.slave.Fd()))
	if err != nil {
		tm.u.t.Fatal(err)
	}
	if *after != *tm.before {
		tm.u.t.Errorf("the terminal's modes are %+v, and were %+v", *after, *tm.before)
	}
	return exitStatus(tm.cmd.ProcessState)
}

func (tm *terminal) wantCode(want int) {
	tm.u.t.Helper()
	if got := tm.wait(); got != want {
		tm.u.t.Errorf("exit status %d, want %d\n%s", got, want, tm.text())
	}
}

// The keys of a terminal in its usual modes (termios(3)).
const (
	ctrlC = "\x03"
	ctrlD = "\x04"
	ctrlZ = "\x1a"
)

func TestTerminal(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	tm := u.terminal("run", "-t", "--", "sh", "-c", "tty; stty size; echo $TERM; echo to-stderr >&2; test -t 0 -a -t 1 -a -t 2 && echo all-three; exit 42")
	tm.wantCode(42)
	tm.shows("/dev/pts/", "24 80\r\n", "xterm\r\n", "to-stderr\r\n", "all-three\r\n")
	u.wantOutcome(event.Failure, 42)
}

func TestTerminalFollowsSize(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	// Not a shell's trap: bash forgets a signal that comes while its own trap is ending.
	tm := u.terminal("run", "-t", "--", "python3", "-uc", "import os, signal as s\n"+
		"s.signal(s.SIGINT, s.SIG_DFL)\ns.pthread_sigmask(s.SIG_BLOCK, {s.SIGWINCH})\nprint('ready')\n"+
		"while s.sigwait({s.SIGWINCH}): size = os.get_terminal_size(); print(size.lines, size.columns)")
	tm.shows("ready")
	for _, size := range []struct {
		rows, cols uint16
		want       string
	}{{50, 132, "50 132"}, {10, 20, "10 20"}, {300, 500, "300 500"}} {
		tm.resize(size.rows, size.cols)
		tm.shows(size.want + "\r\n")
	}
	tm.types(ctrlC)
	tm.wantCode(128 + int(syscall.SIGINT))
}

// TestShell: a person works in a shell. Ctrl-C is for what runs in its foreground, Ctrl-D is the end of its input.
func TestShell(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	tm := u.terminal("shell")
	tm.types("echo I am $((6*7))\n")
	tm.shows("I am 42\r\n")
	tm.types("sh -c 'echo star\"\"ted; exec sleep 1000'\n")
	tm.shows("started\r\n")
	tm.types(ctrlC + "echo inter''rupted $?\n")
	tm.shows("interrupted 130\r\n")
	tm.types("sh -c 'echo a\"\"gain; exec sleep 1000'\n")
	tm.shows("again\r\n")
	tm.types(ctrlZ)
	tm.shows("Stopped")
	tm.types("kill %1; jobs; echo no''w; cat\n")
	tm.shows("now\r\n")
	tm.types("echoed\n" + ctrlD)
	tm.shows("echoed\r\nechoed\r\n")
	tm.types("exit 9\n")
	tm.wantCode(9)
	u.wantOutcome(event.Failure, 9)
}

// TestTerminalFullScreen: programs that draw the whole screen.
func TestTerminalFullScreen(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("long", strings.Repeat("line\n", 500)+"the last line\n", 0o644)
	t.Run("less", func(t *testing.T) {
		u := u.in(t)
		tm := u.terminal("run", "-t", "--", "less", "long")
		tm.shows("line\r\n", "long")
		tm.types("G")
		tm.shows("the last line")
		tm.types("q")
		tm.wantCode(0)
	})
	t.Run("curses", func(t *testing.T) {
		u := u.in(t)
		u.write("draw.py", `
import curses
def main(screen):
    screen.addstr(3, 5, "drawn %dx%d" % screen.getmaxyx())
    screen.refresh()
    while True:
        key = screen.getch()
        if key == curses.KEY_RESIZE:
            screen.erase(); screen.addstr(1, 1, "now %dx%d" % screen.getmaxyx()); screen.refresh()
        elif key == ord("q"): return
        elif key == 3: screen.addstr(5, 5, "control-c is a key"); screen.refresh()
curses.wrapper(lambda s: (curses.raw(), main(s)))
`, 0o644)
		tm := u.terminal("run", "-t", "--", "python3", "draw.py")
		tm.shows("drawn 24x80")
		tm.types(ctrlC)
		tm.shows("control-c is a key")
		tm.resize(30, 90)
		tm.shows("now 30x90")
		tm.types("q")
		tm.wantCode(0)
	})
}

// TestTerminalRestored: however a run ends, the terminal is as it was.
func TestTerminalRestored(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("resources: {grace: 1s}\n")
	script := []string{"run", "-t", "--", "bash", "-c", "trap 'echo got it' TERM; stty raw -echo; echo ready; while :; do sleep 1000 & wait $!; done"}
	t.Run("first signal", func(t *testing.T) {
		u := u.in(t)
		tm := u.terminal(script...)
		tm.shows("ready")
		_ = tm.cmd.Process.Signal(syscall.SIGTERM)
		tm.wantCode(128 + int(syscall.SIGTERM))
		u.wantOutcome(event.Cancelled, 128+int(syscall.SIGTERM))
	})
	t.Run("second signal", func(t *testing.T) {
		u := u.in(t)
		u.policy("resources: {grace: 30s}\n")
		tm := u.terminal(script...)
		tm.shows("ready")
		_ = tm.cmd.Process.Signal(syscall.SIGTERM)
		tm.shows("got it")
		_ = tm.cmd.Process.Signal(syscall.SIGTERM)
		tm.wantCode(128 + int(syscall.SIGTERM))
	})
	t.Run("agent killed", func(t *testing.T) {
		u := u.in(t)
		tm := u.terminal("run", "-t", "--", "bash", "-c", "stty raw; kill -KILL $$")
		tm.wantCode(128 + int(syscall.SIGKILL))
	})
	t.Run("not started", func(t *testing.T) {
		u := u.in(t)
		tm := u.terminal("run", "-t", "--", "no-such-program")
		tm.wantCode(127)
	})
	t.Run("no image", func(t *testing.T) {
		u := u.in(t)
		tm := u.terminal("run", "--image", "agent-sandbox-e2e-no-such-image:1", "-t", "--", "true")
		tm.wantCode(exitFailure)
	})
}

// TestTerminalWhileBuilding: Ctrl-C is for the build as long as there is no agent.
func TestTerminalWhileBuilding(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("Dockerfile", "FROM "+testImage()+"\nRUN echo "+marker("build")+"; sleep 1000\n", 0o644)
	u.policy("image: {build: Dockerfile}\n")
	cmd := u.command("version")
	cmd.Args = append(cmd.Args[:1], "run", "-t", "--", "true")
	tm := u.terminalOf(cmd)
	tm.shows("building the image of Dockerfile\r\n")
	tm.types(ctrlC)
	tm.wantCode(128 + int(syscall.SIGINT))
	u.wantOutcome(event.Cancelled, 128+int(syscall.SIGINT))
}

// TestTerminalHangup: the terminal goes away, as when its window is closed.
func TestTerminalHangup(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	mark := marker("hangup")
	tm := u.terminal("run", "-t", "--", "sh", "-c", "echo ready; sleep 1000; true", mark)
	tm.shows("ready")
	_ = tm.slave.Close()
	_ = tm.master.Close()
	_ = tm.cmd.Wait()
	if code := exitStatus(tm.cmd.ProcessState); code != 128+int(syscall.SIGHUP) {
		t.Errorf("exit status %d", code)
	}
	u.wantGone(mark)
	u.wantOutcome(event.Cancelled, 128+int(syscall.SIGHUP))
}

func TestTerminalNeeded(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := u.run("-t", "--", "true")
	u.wantCode(r, exitUsage)
	if !strings.Contains(r.stderr, "terminal") {
		t.Errorf("stderr: %s", r.stderr)
	}
}
