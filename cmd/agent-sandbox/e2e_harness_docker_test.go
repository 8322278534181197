//go:build docker

package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// The end-to-end tests use the program as people do: its own process, a project in a directory, and the engine that
// DOCKER_HOST names. Each test is a user of its own, with its own state.

// commandTimeout bounds one command; what hangs is killed and fails its test.
const commandTimeout = 90 * time.Second

// eventTimeout bounds the wait for something that takes milliseconds.
const eventTimeout = 20 * time.Second

// testImage is the image that the agents of the tests work in.
func testImage() string {
	return cmp.Or(os.Getenv("AGENT_SANDBOX_TEST_IMAGE"), os.Getenv("IMAGE"), defaultImage)
}

// buildDir is where the program under test and the caches of the users are: among what `make clean` removes.
const buildDir = "../../bin/e2e"

// program builds agent-sandbox once and returns its path.
var program = sync.OnceValues(func() (string, error) {
	if err := guestIsFresh(); err != nil {
		return "", err
	}
	out, err := filepath.Abs(filepath.Join(buildDir, "agent-sandbox"))
	if err != nil {
		return "", err
	}
	return out, goBuild(out, ".")
})

// goBuild is what .github/scripts/build does.
func goBuild(out, pkg string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-o", out}, append(flags, pkg)...)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// guestIsFresh tells whether the embedded guest is the one of this tree: an old one would be what is tested.
func guestIsFresh() error {
	const name = "../../runner/engine/embedded/guest-linux-" + runtime.GOARCH + ".gz"
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("the guest is not built: run `make build` first: %w", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	have, err := io.ReadAll(z)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fresh := filepath.Join(buildDir, "guest")
	if err := goBuild(fresh, "../guest", "-buildvcs=false", "-ldflags=-s -w -buildid="); err != nil {
		return err
	}
	want, err := os.ReadFile(fresh)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return errors.New("the embedded guest is not the one of this tree: run `make build` first")
	}
	return nil
}

// user is somebody with a project who calls agent-sandbox in it.
type user struct {
	t       *testing.T
	program string
	project string
	state   string        // XDG_STATE_HOME
	limit   time.Duration // of one command; zero for commandTimeout
	env     []string
	runs    *runs.Store
	engine  *engine.Engine
}

func newUser(t *testing.T) *user { t.Helper(); return newUserOf(t, "") }

// newUserOf is a user of the engine at host; empty for the environment's.
func newUserOf(t *testing.T, host string) *user {
	t.Helper()
	// Tests that nohup(1) started ignore this signal, and so would what they start; what they catch it doesn't inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := filepath.Abs(filepath.Join(buildDir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	u := &user{t: t, program: path, project: filepath.Join(dir, "project"), state: filepath.Join(dir, "state")}
	u.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_STATE_HOME=" + u.state, "XDG_CACHE_HOME=" + cache}
	for _, name := range []string{"DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			u.env = append(u.env, name+"="+v)
		}
	}
	if host != "" {
		u.env = append(u.env, "DOCKER_HOST="+host)
	}
	if err := os.Mkdir(u.project, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := checkManifests(u.state); err != nil {
			t.Error(err)
		}
	})
	u.openRuns()
	if u.engine, err = engine.Connect(t.Context(), engine.Config{Host: host}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// openRuns opens the user's records, to look at them.
func (u *user) openRuns() {
	u.t.Helper()
	var err error
	if u.runs, err = runs.Open(filepath.Join(u.state, "agent-sandbox", "runs")); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { _ = u.runs.Close() })
}

// in is the same user in a part of the test.
func (u *user) in(t *testing.T) *user {
	part := *u
	part.t = t
	return &part
}

// write puts a file into the project.
func (u *user) write(name, content string, mode os.FileMode) {
	u.t.Helper()
	if err := os.WriteFile(filepath.Join(u.project, name), []byte(content), mode); err != nil {
		u.t.Fatal(err)
	}
}

// policy writes the project's policy; text is what follows the version.
func (u *user) policy(text string) { u.t.Helper(); u.write(policyFile, "version: 1\n"+text, 0o644) }

// command is agent-sandbox with these arguments, in the project. `run` gets the tests' image.
func (u *user) command(args ...string) *exec.Cmd {
	if args[0] == "run" || args[0] == "shell" {
		args = append([]string{args[0], "--image", testImage()}, args[1:]...)
	}
	ctx, cancel := context.WithTimeout(u.t.Context(), cmp.Or(u.limit, commandTimeout))
	u.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, u.program, args...)
	cmd.Dir, cmd.Env = u.project, u.env
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

// finish runs cmd, whose outputs are kept unless they go elsewhere already.
func (u *user) finish(cmd *exec.Cmd) result {
	u.t.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	err := cmd.Run()
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		u.t.Fatalf("%v: %v\nstderr: %s", cmd.Args[1:], err, stderr.String())
	}
	return result{exitStatus(cmd.ProcessState), stdout.String(), stderr.String()}
}

// run is `agent-sandbox run ARGS`, to its end.
func (u *user) run(args ...string) result {
	u.t.Helper()
	return u.finish(u.command(append([]string{"run"}, args...)...))
}

// sh runs a script in the sandbox.
func (u *user) sh(script string) result { u.t.Helper(); return u.run("--", "sh", "-c", script) }

// wantCode fails the test, with all that is known, if the exit status is another.
func (u *user) wantCode(r result, want int) {
	u.t.Helper()
	if r.code != want {
		u.t.Fatalf("exit status %d, want %d\nstdout: %.2000s\nstderr: %.4000s", r.code, want, r.stdout, r.stderr)
	}
}

// last is the newest run.
func (u *user) last() *runs.Run {
	u.t.Helper()
	r, err := u.runs.Resolve("last")
	if err != nil {
		u.t.Fatal(err)
	}
	return r
}

// summary is the record of the newest run. The record must be complete and nothing of the run left in the engine.
func (u *user) summary() event.Summary {
	u.t.Helper()
	r := u.last()
	s, err := r.Summary()
	if err != nil {
		u.t.Fatal(err)
	}
	if s.Partial || s.Outcome == "" || s.Log == nil || s.Log.State != event.LogComplete {
		u.t.Errorf("the record of %s is not complete: %+v", r.ID, s)
	}
	f, err := r.Open(runs.EventsFile)
	if err != nil {
		u.t.Fatal(err)
	}
	defer f.Close()
	head, err := event.ReadChain(f, string(r.ID), func(event.Envelope) error { return nil })
	if err != nil || s.Log != nil && head != s.Log.Head {
		u.t.Errorf("the event log of %s has the head %v, its result says %v: %v", r.ID, head, s.Log, err)
	}
	u.checkManifest(r, s)
	u.wantNothingLeft(string(r.ID))
	return s
}

// wantOutcome checks how the newest run is recorded.
func (u *user) wantOutcome(want event.Outcome, code int) event.Summary {
	u.t.Helper()
	s := u.summary()
	if s.Outcome != want || s.ExitCode != code {
		u.t.Errorf("recorded as %s with exit status %d (%s), want %s with %d", s.Outcome, s.ExitCode, s.Reason, want, code)
	}
	return s
}

// wantNothingLeft looks for what a run has left in the engine.
func (u *user) wantNothingLeft(run string) {
	u.t.Helper()
	for _, left := range u.leftovers(run) {
		u.t.Errorf("run %s left a %s", run, left)
	}
}

// leftovers are a run's objects in the engine. The volumes of the guest stay, by design.
func (u *user) leftovers(run string) []string {
	u.t.Helper()
	all, err := u.engine.Leftovers(context.WithoutCancel(u.t.Context()))
	if err != nil {
		u.t.Fatal(err)
	}
	var left []string
	for _, l := range all {
		if l.Run == run && !strings.HasPrefix(l.ID, "agent-sandbox-guest-") {
			left = append(left, l.Kind+" "+l.ID)
		}
	}
	return left
}

// log is a file of the newest run.
func (u *user) log(name string) string {
	u.t.Helper()
	f, err := u.last().Open(name)
	if err != nil {
		u.t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		u.t.Fatal(err)
	}
	return string(b)
}
