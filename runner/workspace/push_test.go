package workspace

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

const pushToken = "ghs_4711-pushed-by-the-runner-alone-0000000000"

// newPush is a repository full of traps, and a server that takes one token.
func newPush(t *testing.T) (PushConfig, *runnertest.Repository, repoCase) {
	t.Helper()
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{})
	server := gh.AddRepository("acme/shop")
	gh.AddToken(runnertest.Token{Text: pushToken, RepositoryIDs: []int64{server.ID}, Permissions: map[string]string{"contents": "write"}})
	r := newRepo(t, "sha1", treeState{"file": fileEntry("old\n", 0o644)})
	return PushConfig{
		Target: r.dir, Commit: r.git(t, "rev-parse", "HEAD"), Branch: "agent/fix", URL: server.CloneURL(), Token: secret.New(pushToken),
	}, server, r
}

func TestPush(t *testing.T) {
	cfg, server, r := newPush(t)
	// All that an agent could write to lead a push elsewhere, or to read along.
	var seen int
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen++ }))
	defer thief.Close()
	appendTo(t, filepath.Join(r.dir, ".git", "config"), "[url \""+thief.URL+"/\"]\n\tinsteadOf = "+cfg.URL[:len("http://127.0.0.1")]+"\n\tpushInsteadOf = http://\n"+
		"[http]\n\tproxy = "+thief.URL+"\n\textraHeader = X-Stolen: yes\n[push]\n\tfollowTags = true\n\tgpgSign = true\n[remote \"origin\"]\n\turl = "+thief.URL+"\n")
	hook := filepath.Join(r.dir, ".git", "hooks", "pre-push")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho pre-push >>"+r.canary+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "http.proxy")
	t.Setenv("GIT_CONFIG_VALUE_0", thief.URL)
	if err := Push(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got := server.Ref("refs/heads/agent/fix"); got != cfg.Commit {
		t.Errorf("the branch is %q, want %q", got, cfg.Commit)
	}
	if _, err := os.Stat(r.canary); !errors.Is(err, fs.ErrNotExist) || seen > 0 {
		t.Errorf("something of the repository's configuration ran (%v), or was asked %d times", err, seen)
	}
}

// A branch that has moved on is not moved back.
func TestPushMovesForwardAlone(t *testing.T) {
	cfg, server, _ := newPush(t)
	server.WriteFileAt("agent/fix", "other", "made meanwhile\n")
	before := server.Ref("refs/heads/agent/fix")
	err := Push(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "agent/fix") || strings.Contains(err.Error(), pushToken) {
		t.Errorf("got %v", err)
	}
	if got := server.Ref("refs/heads/agent/fix"); got != before || before == "" {
		t.Errorf("the branch went from %q to %q", before, got)
	}
}

func TestPushRefused(t *testing.T) {
	good, server, _ := newPush(t)
	for name, change := range map[string]func(*PushConfig){
		"another scheme":        func(c *PushConfig) { c.URL = "ext::sh -c true" },
		"a path":                func(c *PushConfig) { c.URL = server.Dir },
		"no encryption":         func(c *PushConfig) { c.URL = "http://192.0.2.1/acme/shop.git" },
		"a user in the URL":     func(c *PushConfig) { c.URL = strings.Replace(c.URL, "://", "://user:word@", 1) },
		"an option as a branch": func(c *PushConfig) { c.Branch = "--upload-pack=touch" },
		"a refspec as a branch": func(c *PushConfig) { c.Branch = "x:refs/heads/main" },
		"a ref as a branch":     func(c *PushConfig) { c.Branch = "refs/heads/main" },
		"a line feed":           func(c *PushConfig) { c.Branch = "a\nb" },
		"an option as a commit": func(c *PushConfig) { c.Commit = "--all" },
		"another token":         func(c *PushConfig) { c.Token = secret.New("ghs_another-token-0000000000000000000000000") },
	} {
		cfg := good
		change(&cfg)
		if err := Push(t.Context(), cfg); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "word") || strings.Contains(err.Error(), cfg.Token.Reveal()) {
			t.Errorf("%s: the error has a secret: %v", name, err)
		}
	}
	if err := Push(t.Context(), good); err != nil { // the control
		t.Error(err)
	}
}

func appendTo(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
