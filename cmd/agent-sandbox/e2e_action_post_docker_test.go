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

// On GitHub the state of an action is all that the step after the job has: the files of the one that was killed went with its container.
func TestActionPostOnGitHub(t *testing.T) {
	u, gh := newGitHubUser(t)
	state := filepath.Join(t.TempDir(), "state")
	job := append([]string{"GITHUB_ACTIONS=true", "GITHUB_STATE=" + state, "GITHUB_WORKSPACE=" + u.project}, u.env...)
	cmd := u.command("action", "--image", testImage(), "--command", "echo is-ready; sleep 1000")
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
	post.Env = append(stateOf(t, state), u.env...)
	r := u.finish(post)
	m := regexp.MustCompile(`of run (\S+) there is no record`).FindStringSubmatch(r.stdout)
	if r.code != 0 || m == nil || len(gh.Live()) != 0 {
		t.Fatalf("exit status %d, %d tokens live\n%s%s", r.code, len(gh.Live()), r.stdout, r.stderr)
	}
	u.wantNothingLeft(m[1])
}

// Of a step that ended by itself nothing is left to do.
func TestActionPostAfterAnEnd(t *testing.T) {
	u, gh := newGitHubUser(t)
	state := filepath.Join(t.TempDir(), "state")
	cmd := u.command("action", "--image", testImage(), "--command", "true")
	cmd.Env = append([]string{"GITHUB_ACTIONS=true", "GITHUB_STATE=" + state, "GITHUB_WORKSPACE=" + u.project}, u.env...)
	if r := u.finish(cmd); r.code != 0 || len(gh.Live()) != 0 {
		t.Fatalf("exit status %d, %d tokens live\n%s%s", r.code, len(gh.Live()), r.stdout, r.stderr)
	}
	asked := len(gh.Requests())
	post := u.command("action", "--post")
	post.Env = append(stateOf(t, state), u.env...)
	if r := u.finish(post); r.code != 0 || strings.Contains(r.stdout, "no record") || strings.Contains(r.stdout, "revoked") {
		t.Errorf("exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if n := len(gh.Requests()) - asked; n != 0 {
		t.Errorf("it asked GitHub %d times", n)
	}
}
