//go:build docker

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
)

// outside runs the step without a container, as people do who look for what is wrong with one.
func (h *hosted) outside(u *user, inputs, env map[string]string, args ...string) hostedStep {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), commandTimeout)
	defer cancel()
	// git runs as the owner of the repository, who must get there.
	for dir := filepath.Dir(h.temp); dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	places := strings.NewReplacer("/github/workspace", h.dir, "/github/home", filepath.Join(h.temp, "_github_home"), "/github/workflow",
		filepath.Join(h.temp, "_github_workflow"), "/github/file_commands", filepath.Join(h.temp, "_runner_file_commands"), "/github/runner_temp", h.temp)
	cmd := exec.CommandContext(ctx, u.program, append([]string{"action"}, args...)...)
	cmd.Dir, cmd.Env = h.dir, u.env
	for name, value := range h.env {
		cmd.Env = append(cmd.Env, name+"="+places.Replace(value))
	}
	for name, value := range inputs {
		cmd.Env = append(cmd.Env, "INPUT_"+strings.ToUpper(name)+"="+value)
	}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	log, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		h.t.Fatalf("the step did not end\n%s", log)
	}
	return hostedStep{t: h.t, log: string(log), ok: err == nil, outputs: h.outputs()}
}

// The step can be tried with nothing but the payload of an event and flags.
func TestActionWithoutWorkflow(t *testing.T) {
	h := newHosted(t, nil)
	base := strings.TrimSpace(gitAt(t, h.dir, "rev-parse", "HEAD"))
	writeFile(t, filepath.Join(h.dir, policyFile), "version: 1\nenv: [\"WIDENED=yes\"]\n")
	gitAt(t, h.dir, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qam", "widen")
	h.give()
	h.env = nil
	u := newUser(t)
	for name, tt := range map[string]struct {
		payload string
		ok      bool
		want    string
	}{
		"push":         {`{"ref": "refs/heads/main", "repository": {"id": 1}}`, true, "widened: yes"},
		"issues":       {`{"action": "labeled", "issue": {"number": 7}, "repository": {"id": 1}}`, true, "widened: yes"},
		"pull_request": {`{"pull_request": {"number": 1, "base": {"ref": "main", "sha": "` + base + `", "repo": {"id": 1}}, "head": {"ref": "x", "sha": "` + base + `", "repo": {"id": 1}}}}`, true, "widened: no"},
		"without base": {`{"pull_request": {"number": 1}}`, false, "names no commit as the base"},
		"no JSON":      {`{`, false, "event of the job"},
	} {
		event := filepath.Join(t.TempDir(), "event.json")
		if err := os.WriteFile(event, []byte(tt.payload), 0o600); err != nil {
			t.Fatal(err)
		}
		s := h.outside(u, nil, nil, "--event", event, "--image", testImage(), "--command", "echo widened: ${WIDENED:-no}")
		if s.ok != tt.ok || !strings.Contains(s.log, tt.want) {
			t.Errorf("%s: succeeded: %v, want %v with %q\n%s", name, s.ok, tt.ok, tt.want, s.log)
		}
	}
}

// An image that can't be had fails a run, which is recorded as any other.
func TestActionWithoutImage(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.git("init", "-q")
	u.git("commit", "-q", "--allow-empty", "-m", "x")
	u.write("event.json", `{"ref": "refs/heads/main", "repository": {"id": 1}}`, 0o644)
	r := u.sandbox(false, "action", "--event", "event.json", "--image", "127.0.0.1:1/nowhere:1", "--command", "true")
	u.wantCode(r, exitError)
	const want = `pull "127.0.0.1:1/nowhere:1"`
	records, err := filepath.Glob(filepath.Join(u.project, ".agent-sandbox-runs", "*", runs.ManifestFile))
	if err != nil || len(records) != 1 || !strings.Contains(r.stdout, want) {
		t.Fatalf("manifests %q (%v), want one, and %s\n%s", records, err, want, r.stdout)
	}
	content, err := os.ReadFile(records[0])
	if err != nil {
		t.Fatal(err)
	}
	f, err := manifest.Read(content)
	if err != nil {
		t.Fatal(err)
	}
	if o := f.Statement.Predicate.Outcome; o.Result != string(event.Errored) || !strings.Contains(o.Reason, want) {
		t.Errorf("recorded as %+v", o)
	}
}
