package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v4"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// TestRotationScripts rotates keys of a provider as people do, over real connections.
func TestRotationScripts(t *testing.T) {
	provider, _, old := runnertest.NewKeyProvider(t)
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{})
	shop := gh.AddRepository("acme/shop")
	gh.AddToken(runnertest.Token{Text: "ghs_rotation0123456789abcdefghijklmnopqr", RepositoryIDs: []int64{shop.ID}, Permissions: map[string]string{"secrets": "write"}})
	gh.AddToken(runnertest.Token{Text: issuesToken, RepositoryIDs: []int64{shop.ID}, Permissions: map[string]string{"issues": "write"}, Installation: 1})
	ago := gh.Now().Add(-40 * 24 * time.Hour)
	shop.SetSecret("MODEL_KEY", old, ago)

	p := scriptParams("testdata/rotation", "unix:///nowhere/docker.sock")
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		for name, value := range map[string]string{
			"ADMIN": provider.Admin, "GH_TOKEN": "ghs_rotation0123456789abcdefghijklmnopqr", "GITHUB_API_URL": gh.API(), "GITHUB_REPOSITORY": "acme/shop",
			"ISSUES_TOKEN": issuesToken,
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
	p.Cmds["steps"] = scriptSteps
	p.Cmds["issues"] = func(ts *testscript.TestScript, _ bool, args []string) {
		all := shop.Issues()
		if len(all) != 1 || !strings.HasPrefix(fmt.Sprint(all[0]["state"], " ", all[0]["body"]), args[0]) {
			ts.Fatalf("the issues are %v", all)
		}
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

const issuesToken = "ghs_issues0123456789abcdefghijklmnopqrst"

// scriptSteps is "steps FILE": it writes the shell scripts of the workflow's last two steps to $WORK.
func scriptSteps(ts *testscript.TestScript, _ bool, args []string) {
	var w struct {
		Jobs struct {
			Status struct {
				Steps []struct {
					Run string `yaml:"run"`
				} `yaml:"steps"`
			} `yaml:"status"`
		} `yaml:"jobs"`
	}
	ts.Check(yaml.Unmarshal([]byte(ts.ReadFile(args[0])), &w))
	steps := w.Jobs.Status.Steps
	for i, name := range []string{"status.sh", "issue.sh"} {
		ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), name), []byte(steps[len(steps)-2+i].Run), 0o600))
	}
}

// ghMain is as much of GitHub's gh as the workflow uses: gh api [--method METHOD] PATH [-f NAME=VALUE]... [-F NAME=@FILE]...
func ghMain() {
	if err := gh(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gh:", err)
		os.Exit(1)
	}
}

func gh(args []string) error {
	if len(args) == 0 || args[0] != "api" {
		return fmt.Errorf("this gh has no %q", args)
	}
	flags := flag.NewFlagSet("gh api", flag.ContinueOnError)
	fields := map[string]string{}
	method := flags.String("method", "", "")
	field := func(text string) error {
		name, value, _ := strings.Cut(text, "=")
		fields[name] = value
		return nil
	}
	flags.Func("f", "", field)
	flags.Func("F", "", func(text string) error {
		name, file, _ := strings.Cut(text, "=@")
		b, err := os.ReadFile(file)
		fields[name] = string(b)
		return err
	})
	path := ""
	for rest := args[1:]; len(rest) > 0; rest = flags.Args() {
		if !strings.HasPrefix(rest[0], "-") {
			path, rest = rest[0], rest[1:]
		}
		if err := flags.Parse(rest); err != nil {
			return err
		}
	}
	return ghRequest(cmp.Or(*method, http.MethodPost), os.Getenv("GITHUB_API_URL")+"/"+path, fields)
}

func ghRequest(method, address string, fields map[string]string) error {
	var body []byte
	if method == http.MethodGet {
		query := url.Values{}
		for name, value := range fields {
			query.Set(name, value)
		}
		address += "?" + query.Encode()
	} else {
		body, _ = json.Marshal(fields) // strings always have JSON
	}
	req, err := http.NewRequest(method, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+os.Getenv("GH_TOKEN"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		return fmt.Errorf("%s %s: %s", method, address, resp.Status)
	}
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
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
