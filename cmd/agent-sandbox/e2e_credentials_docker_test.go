//go:build docker

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/runs"
)

// newGitHubUser is a user with the key of an App that is installed for the project's repository.
func newGitHubUser(t *testing.T) (*user, *runnertest.GitHub) {
	t.Helper()
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{})
	app := gh.AddApp(map[string]string{"contents": "write", "metadata": "read"})
	gh.Install(app, "acme", gh.AddRepository("acme/shop"))
	u := newUser(t)
	u.env = append(u.env, "APP_KEY="+string(app.PEM()), "GITHUB_API_URL="+gh.API(), "GITHUB_REPOSITORY=acme/shop")
	u.policy(fmt.Sprintf("credentials:\n  github: {from: \"github-app:%d\", key: \"env:APP_KEY\", repositories: [self], permissions: {contents: write}}\n", app.ID))
	return u, gh
}

// TestIssuedToken: a token is there while the task runs, nowhere inside, and revoked when it is over.
func TestIssuedToken(t *testing.T) {
	u, gh := newGitHubUser(t)
	r := u.sh("echo token $GH_TOKEN; cat /proc/[0-9]*/environ /run/agent-sandbox/policy.json 2>/dev/null | tr '\\0' '\\n'")
	u.wantCode(r, 0)
	s := u.wantOutcome(event.Success, 0)
	if len(s.Credentials) != 1 || s.Credentials[0].Revoked != event.RevocationVerified || s.Credentials[0].Granted == nil {
		t.Errorf("the record is %+v", s.Credentials)
	}
	if live := gh.Live(); len(live) != 0 || len(gh.Tokens()) != 2 {
		t.Errorf("%d tokens, %d live", len(gh.Tokens()), len(live))
	}
	everything := r.stdout + r.stderr + u.log(runs.EventsFile) + u.log(runs.StdoutFile) + u.log(runs.PlanFile)
	for _, tok := range gh.Tokens() {
		if strings.Contains(everything, tok.Text) {
			t.Error("a token was seen")
		}
	}
	if !strings.Contains(r.stdout, "token ghs_") { // the placeholder: what was looked through is what it should be
		t.Errorf("there was no placeholder inside: %.500s", r.stdout)
	}
}

// TestKilledToken: what a killed runner leaves is revoked by `doctor --clean`.
func TestKilledToken(t *testing.T) {
	u, gh := newGitHubUser(t)
	p := u.start("--", "sh", "-c", "echo ready; sleep 1000")
	p.line("ready")
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.wait()
	if live := gh.Live(); len(live) != 1 {
		t.Fatalf("%d tokens live after the kill", len(live))
	}
	cleaned := u.finish(u.command("doctor", "--clean"))
	if !strings.Contains(cleaned.stdout, "the tokens of run "+string(u.last().ID)) || len(gh.Live()) != 0 {
		t.Errorf("%d tokens live; doctor said: %s%s", len(gh.Live()), cleaned.stdout, cleaned.stderr)
	}
}
