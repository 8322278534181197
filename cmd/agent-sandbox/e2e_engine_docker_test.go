//go:build docker

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// privateEngine is a dockerd of a test's own, which may be killed.
type privateEngine struct {
	cmd  *exec.Cmd
	dir  string
	host string
}

// startEngine starts dockerd apart from the machine's other one: own socket, data, state and network namespace. The
// last since dockerd without a bridge deletes docker0 where it finds it.
func startEngine(t *testing.T) *privateEngine {
	t.Helper()
	path, err := exec.LookPath("dockerd")
	if err != nil {
		t.Skipf("no dockerd to start: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("starting an engine takes root")
	}
	// A socket's path may have 108 bytes, and the data must not be in memory.
	dir, err := os.MkdirTemp("/var/tmp", "e2e-engine-")
	if err != nil {
		t.Fatal(err)
	}
	e := &privateEngine{dir: dir, host: "unix://" + dir + "/sock"}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.cmd = exec.Command(path, "--config-file", config, "-H", e.host, "--data-root", dir+"/data", "--exec-root", dir+"/exec",
		"--pidfile", dir+"/pid", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--userland-proxy=false")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNET}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.remove(t) })
	eventually(t, time.Minute, func() (bool, string) {
		api, err := engine.Connect(t.Context(), engine.Config{Host: e.host})
		if err != nil {
			text, _ := os.ReadFile(log.Name())
			return false, err.Error() + "\n" + string(text)
		}
		_ = api.Close()
		return true, ""
	})
	return e
}

// kill ends dockerd as a crash does: its containerd and its containers go on.
func (e *privateEngine) kill() {
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
}

// remove ends everything of the engine, and deletes it.
func (e *privateEngine) remove(t *testing.T) {
	e.kill()
	for _, line := range processes(t, e.dir) {
		pid, _, _ := strings.Cut(line, " ")
		_ = exec.Command("kill", "-KILL", pid).Run() // it may have ended meanwhile
	}
	eventually(t, eventTimeout, func() (bool, string) {
		left := processes(t, e.dir)
		return len(left) == 0, strings.Join(left, "\n")
	})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], e.dir) {
			targets = append([]string{f[4]}, targets...) // the innermost are the last
		}
	}
	for _, target := range targets {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	}
	if err := os.RemoveAll(e.dir); err != nil {
		t.Error(err)
	}
}

// TestRunEngineDies: dockerd is killed while an agent runs. The runner ends at once and has its record; the guest, whose
// input the engine's shim keeps open, ends when nobody has answered it for a while.
func TestRunEngineDies(t *testing.T) {
	t.Parallel()
	private := startEngine(t)
	u := newUserOf(t, private.host)
	image := "agent-sandbox-e2e-private:1"
	load := exec.CommandContext(t.Context(), "docker", "-H", private.host, "import", "-", image)
	load.Stdin = strings.NewReader(string(archive(t, map[string][]byte{"agent": agentProgram(t)})))
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
	p := u.start("--image", image, "--", "/agent", "wait")
	p.line("ready")
	private.kill()
	killed := time.Now()
	r := p.wait()
	u.wantCode(r, exitFailure)
	if took := time.Since(killed); took > 15*time.Second {
		t.Errorf("the runner ended %s after the engine", took)
	}
	s, err := u.last().Summary()
	if err != nil || s.Outcome != event.Errored || s.ExitCode != exitFailure || s.Log.State != event.LogComplete || s.Agent == nil || !s.Agent.Silent {
		t.Errorf("recorded as %+v (%v)", s, err)
	}
	if !strings.Contains(r.stderr, "the sandbox ended while the agent ran") {
		t.Errorf("stderr: %s", r.stderr)
	}
	// The link's keep-alive: five seconds until it asks, twenty until it gives up.
	eventually(t, 40*time.Second, func() (bool, string) {
		left := guests(t, private.dir)
		return len(left) == 0, "still running: " + strings.Join(left, "\n")
	})
	t.Logf("the sandbox ended %s after its engine", time.Since(killed).Round(time.Second))
}

// guests are the processes in containers of the engine whose files are below dir.
func guests(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for _, line := range processes(t, "/.agent-sandbox/guest") {
		pid, _, _ := strings.Cut(line, " ")
		if b, err := os.ReadFile(filepath.Join("/proc", pid, "mountinfo")); err == nil && strings.Contains(string(b), dir) {
			found = append(found, line)
		}
	}
	return found
}

// TestRunNoEngine says so, and what to do.
func TestRunNoEngine(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.env = append(u.env, "DOCKER_HOST=unix://"+u.state+"/no-such-socket")
	r := u.run("--", "true")
	u.wantCode(r, exitFailure)
	for _, must := range []string{"no container engine answers", "no-such-socket", "hint: "} {
		if !strings.Contains(r.stderr, must) {
			t.Errorf("stderr has no %q: %s", must, r.stderr)
		}
	}
	u.wantOutcome(event.Errored, exitFailure)
}
