package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// TestRotationScripts rotates keys of a provider as people do, over real connections.
func TestRotationScripts(t *testing.T) {
	provider, _, old := runnertest.NewKeyProvider(t)
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{})
	shop := gh.AddRepository("acme/shop")
	gh.AddToken(runnertest.Token{Text: "ghs_rotation0123456789abcdefghijklmnopqr", RepositoryIDs: []int64{shop.ID}, Permissions: map[string]string{"secrets": "write"}})
	ago := gh.Now().Add(-40 * 24 * time.Hour)
	shop.SetSecret("MODEL_KEY", old, ago)

	p := scriptParams("testdata/rotation", "unix:///nowhere/docker.sock")
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		for name, value := range map[string]string{
			"ADMIN": provider.Admin, "GH_TOKEN": "ghs_rotation0123456789abcdefghijklmnopqr", "GITHUB_API_URL": gh.API(), "GITHUB_REPOSITORY": "acme/shop",
		} {
			e.Setenv(name, value)
		}
		e.Cd = filepath.Join(e.WorkDir, "project")
		return errors.Join(setup(e), writeKey(e.Cd, old, ago), expand(filepath.Join(e.Cd, policyFile), "PROVIDER", provider.URL))
	}
	p.Cmds["most"] = func(ts *testscript.TestScript, _ bool, args []string) {
		n, err := strconv.Atoi(args[0])
		ts.Check(err)
		provider.Most(n)
	}
	t.Cleanup(func() { // the script runs beside this function
		stored, updated := shop.Secret("MODEL_KEY")
		live := provider.Live()
		if len(live) != 1 || live["key_3"] != stored || provider.Works(old) {
			t.Errorf("the provider has %d keys; the stored one works: %v; the old one works: %v", len(live), provider.Works(stored), provider.Works(old))
		}
		if gh.Now().Sub(updated) > time.Hour {
			t.Errorf("GitHub's secret is from %v", updated)
		}
	})
	testscript.Run(t, p)
}

func writeKey(project, key string, at time.Time) error {
	name := filepath.Join(project, "key")
	return errors.Join(os.WriteFile(name, []byte(key+"\n"), 0o600), os.Chtimes(name, at, at))
}

// expand puts a text in the place of a word in a file.
func expand(name, word, by string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(strings.ReplaceAll(string(b), word, by)), 0o600)
}
