//go:build docker

package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runs"
)

// stateOf reads what a step saved as GitHub's runner does, and gives it as the variables that the step after the job gets.
func stateOf(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]string{}
	for rest := string(b); rest != ""; {
		m := regexp.MustCompile(`\A([a-z]+)<<(\S+)\n`).FindStringSubmatch(rest)
		if m == nil {
			t.Fatalf("the runner can't read the state:\n%s", rest)
		}
		value, after, ok := strings.Cut(rest[len(m[0]):], "\n"+m[2]+"\n")
		if !ok {
			t.Fatalf("the state has no end:\n%s", rest)
		}
		last[m[1]], rest = value, after
	}
	var env []string
	for name, value := range last {
		env = append(env, "STATE_"+name+"="+value)
	}
	return env
}

// On GitHub the state of an action is all that the step after the job has, and tells where the record of the one that was killed is.
func TestActionPostOnGitHub(t *testing.T) {
	u, gh := newGitHubUser(t)
	state := filepath.Join(t.TempDir(), "state")
	job := append([]string{"GITHUB_ACTIONS=true", "GITHUB_STATE=" + state, "GITHUB_WORKSPACE=" + u.project}, u.env...)
	cmd := u.command("action", "--image", testImage(), "--command", "echo of-the-agent >made; echo is-ready; sleep 1000")
	cmd.Env = job
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "is-ready" {
		fmt.Fprintln(&log, lines.Text())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it ended well before it was killed")
	}
	if live := gh.Live(); len(live) != 1 || !strings.Contains(log.String(), "::add-mask::"+live[0].Text+"\n") {
		t.Fatalf("%d tokens live after the kill, or one that is not masked\n%s", len(live), log.String())
	}
	post := u.command("action", "--post")
	post.Env = append(stateOf(t, state), job...)
	r := u.finish(post)
	m := killedRun.FindStringSubmatch(r.stdout)
	if r.code != 0 || m == nil || len(gh.Live()) != 0 {
		t.Fatalf("exit status %d, %d tokens live\n%s%s", r.code, len(gh.Live()), r.stdout, r.stderr)
	}
	u.wantNothingLeft(m[1])
	u.wantInterrupted(filepath.Join(u.project, outputDir, m[1]), m[1])
	patch, err := os.ReadFile(filepath.Join(u.project, outputDir, m[1], runs.PatchFile))
	if err != nil || !strings.Contains(string(patch), "+of-the-agent") || !exists(filepath.Join(u.project, outputDir, m[1], runs.ChangesFile)) {
		t.Errorf("what the agent had made is not kept: %v\n%s%s", err, patch, r.stdout)
	}
	for _, kv := range stateOf(t, state) {
		if dir, ok := strings.CutPrefix(kv, "STATE_record="); ok && exists(dir) {
			t.Errorf("%s is there", dir)
		}
	}
}

// killedRun is what the step after the job says of a run whose step was killed.
var killedRun = regexp.MustCompile(`before its run (\S+) had ended: its record says so`)

// wantInterrupted fails unless a directory has the files of a run that did not come to its end, with a manifest that says so.
func (u *user) wantInterrupted(dir, run string) {
	u.t.Helper()
	r := u.finish(u.command("manifest", "show", filepath.Join(dir, runs.ManifestFile)))
	if r.code != 0 || !strings.Contains(r.stdout, "interrupted") || !strings.Contains(r.stdout, run) {
		u.t.Errorf("the manifest of the killed run: exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for _, name := range []string{runs.EventsFile, runs.PlanFile, runs.StdoutFile, runs.ResultFile} {
		if !exists(filepath.Join(dir, name)) {
			u.t.Errorf("there is no %s", name)
		}
	}
}

// Of a step that ended by itself nothing is left to do.
func TestActionPostAfterAnEnd(t *testing.T) {
	u, gh := newGitHubUser(t)
	state := filepath.Join(t.TempDir(), "state")
	cmd := u.command("action", "--image", testImage(), "--command", "true")
	job := append([]string{"GITHUB_ACTIONS=true", "GITHUB_STATE=" + state, "GITHUB_WORKSPACE=" + u.project}, u.env...)
	cmd.Env = job
	if r := u.finish(cmd); r.code != 0 || len(gh.Live()) != 0 {
		t.Fatalf("exit status %d, %d tokens live\n%s%s", r.code, len(gh.Live()), r.stdout, r.stderr)
	}
	asked := len(gh.Requests())
	post := u.command("action", "--post")
	post.Env = append(stateOf(t, state), job...)
	if r := u.finish(post); r.code != 0 || strings.Contains(r.stdout, "killed") || strings.Contains(r.stdout, "revoked") {
		t.Errorf("exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if n := len(gh.Requests()) - asked; n != 0 {
		t.Errorf("it asked GitHub %d times", n)
	}
}
