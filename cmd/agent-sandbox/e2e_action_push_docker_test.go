//go:build docker

package main

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// newPushing is a job that may push to a repository of a GitHub, on agent/* alone. The job's container reaches it by this machine's loopback.
func newPushing(t *testing.T, permissions string) (*hosted, *runnertest.GitHub, *runnertest.Repository) {
	t.Helper()
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{})
	app := gh.AddApp(map[string]string{"contents": "write", "pull_requests": "write", "metadata": "read"})
	server := gh.AddRepository("acme/shop")
	gh.Install(app, "acme", server)
	h := newHosted(t, map[string]string{policyFile: fmt.Sprintf("version: 1\ncredentials:\n  github: {from: \"github-app:%d\", key: \"env:APP_KEY\", "+
		"repositories: [self], permissions: {contents: write%s}, push: [\"refs/heads/agent/*\"]}\n", app.ID, permissions)})
	h.options = []string{"--network", "host"}
	maps.Copy(h.env, map[string]string{"GITHUB_SERVER_URL": gh.URL, "GITHUB_API_URL": gh.API(), "APP_KEY": string(app.PEM())})
	return h, gh, server
}

// wantRevoked fails if a token works that was issued, or if one was seen.
func wantRevoked(t *testing.T, gh *runnertest.GitHub, log string) {
	t.Helper()
	if live := gh.Live(); len(live) > 0 {
		t.Errorf("%d tokens are live", len(live))
	}
	for line := range strings.Lines(log) {
		for _, token := range gh.Tokens() {
			if strings.Contains(line, token.Text) && !strings.HasPrefix(line, "::add-mask::") {
				t.Errorf("the log has a token: %s", line)
			}
		}
	}
}

// Changes go to the server by the runner's own hand, on a branch that the policy names, whatever the agent made of git's configuration.
func TestActionPushes(t *testing.T) {
	evil := `git config core.sshCommand evil; git config url.http://192.0.2.1/.insteadOf http://; git config http.proxy http://192.0.2.1:1
mkdir -p .git/hooks; printf '#!/bin/sh\nexit 1\n' >.git/hooks/pre-push; chmod +x .git/hooks/pre-push; echo new >file.txt`
	for apply, permissions := range map[string]string{"push": "", "pull-request": ", pull_requests: write"} {
		t.Run(apply, func(t *testing.T) {
			h, gh, server := newPushing(t, permissions)
			s := h.run(map[string]string{"image": testImage(), "command": evil, "apply": apply, "branch": "agent/fix"})
			s.want(true, map[string]string{"outcome": "success", "branch": "agent/fix"})
			if got := gitAt(t, server.Dir, "show", "agent/fix:file.txt"); got != "new\n" {
				t.Errorf("the branch has %q", got)
			}
			manifest, err := os.ReadFile(filepath.Join(h.dir, s.outputs["manifest"]))
			if err != nil {
				t.Fatal(err)
			}
			message := gitAt(t, server.Dir, "log", "-1", "--format=%an%n%B", "agent/fix")
			for _, want := range []string{
				"agent-sandbox\n", "Agent-Sandbox-Run: " + s.outputs["run-id"] + "\n",
				fmt.Sprintf("Agent-Sandbox-Manifest: sha256:%x\n", sha256.Sum256(manifest)),
			} {
				if !strings.Contains(message, want) {
					t.Errorf("the commit lacks %q: %s", want, message)
				}
			}
			pulls := gh.Seen("POST", "/repos/acme/shop/pulls")
			want := apply == "pull-request"
			if (pulls == 1) != want || (s.outputs["pull-request"] == gh.URL+"/acme/shop/pull/1") != want {
				t.Errorf("%d pull requests, output %q", pulls, s.outputs["pull-request"])
			}
			wantRevoked(t, gh, s.log)
			h.wantOwned()
		})
	}
}

func gitAt(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", dir}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("git %q: %v", args, err)
	}
	return string(out)
}

// What the policy's credential may not do is refused before the agent starts, and no token is issued for it.
func TestActionPushRefused(t *testing.T) {
	for _, tt := range []struct{ apply, branch, permissions, log string }{
		{"push", "main", "", "does not allow a push of refs/heads/main: its credentials may push refs/heads/agent/*"},
		{"push", "agent/x/../../main", "", "can't be the name of a branch"},
		{"pull-request", "agent/fix", "", "add `pull_requests: write` to its permissions"},
	} {
		h, gh, server := newPushing(t, tt.permissions)
		before := server.Ref("refs/heads/main")
		s := h.run(map[string]string{"image": testImage(), "command": "echo new >file.txt", "apply": tt.apply, "branch": tt.branch})
		s.want(false, nil)
		wantLog(t, s.log, tt.log)
		if len(gh.Tokens()) > 0 || strings.Contains(s.log, "The agent's output") || server.Ref("refs/heads/main") != before {
			t.Errorf("%+v: %d tokens were issued\n%s", tt, len(gh.Tokens()), s.log)
		}
	}
}
