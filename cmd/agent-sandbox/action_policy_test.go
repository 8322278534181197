package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/actions"
)

// TestActionRulesAreOfTheBase: policy, lock and ceiling of a pull request are those that it is to be merged into.
func TestActionRulesAreOfTheBase(t *testing.T) {
	const ours, theirs = "version: 1 # base\n", "version: 1 # pull request\n"
	for name, tt := range map[string]struct {
		base, head map[string]string // committed; then what the pull request makes of it
		beside     map[string]string // what the workflow puts there
		in         actions.Inputs
		env        string // AGENT_SANDBOX_CEILING
		policy     string // what governs; empty: the default
		ceiling    string
		wrong      string
	}{
		"edited":                        {base: files{policyFile: ours, "c.yaml": ours}, head: files{policyFile: theirs, "c.yaml": theirs}, in: actions.Inputs{Ceiling: "c.yaml"}, policy: ours, ceiling: ours},
		"edited, by the variable":       {base: files{policyFile: ours, "c.yaml": ours}, head: files{"c.yaml": theirs}, env: "c.yaml", policy: ours, ceiling: ours},
		"added":                         {base: files{"a": ""}, head: files{policyFile: theirs}, policy: "version: 1\n"},
		"an added ceiling":              {base: files{"a": ""}, head: files{"c.yaml": theirs}, in: actions.Inputs{Ceiling: "c.yaml"}, wrong: "merge the file first"},
		"named":                         {base: files{"ci/p.yaml": ours}, head: files{"ci/p.yaml": theirs}, in: actions.Inputs{Policy: "ci/p.yaml"}, policy: ours},
		"of a directory":                {base: files{"sub/" + policyFile: ours, policyFile: "version: 1\n"}, head: files{"sub/" + policyFile: theirs}, in: actions.Inputs{Directory: "sub"}, policy: ours},
		"an organisation's checkout":    {base: files{policyFile: ours}, beside: files{"org/.git/HEAD": "x", "org/c.yaml": ours}, in: actions.Inputs{Ceiling: "org/c.yaml"}, policy: ours, ceiling: ours},
		"a submodule":                   {base: files{policyFile: ours}, beside: files{"org/.git": "gitdir: x", "org/c.yaml": theirs}, in: actions.Inputs{Ceiling: "org/c.yaml"}, wrong: "merge the file first"},
		"a submodule in a file's place": {base: files{"org/c.yaml": ours}, head: files{"org/c.yaml": theirs}, beside: files{"org/.git": "gitdir: x"}, in: actions.Inputs{Ceiling: "org/c.yaml"}, policy: "version: 1\n", ceiling: ours},
	} {
		t.Run(name, func(t *testing.T) {
			s := pullRequest(t, tt.base, tt.head)
			writeAll(t, s.job.Workspace, tt.beside)
			s.in = tt.in
			s.app.lookupEnv = func(name string) (string, bool) { return tt.env, name == ceilingVariable && tt.env != "" }
			project, _, err := s.project()
			if err != nil {
				t.Fatal(err)
			}
			policy, ceiling, err := s.rules(t.Context(), project)
			if tt.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("%v, want %q", err, tt.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for file, want := range map[string]string{policy: tt.policy, ceiling: tt.ceiling} {
				if file == "" && want == "" {
					continue
				}
				if got, err := os.ReadFile(file); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v, want %q", file, got, err, want)
				}
			}
		})
	}
}

type files = map[string]string

// pullRequest is a step of one, whose checkout has head over base.
func pullRequest(t *testing.T, base, head files) *step {
	t.Helper()
	dir := t.TempDir()
	git := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	writeAll(t, dir, base)
	git("add", "-A")
	git("commit", "-qm", "base")
	commit := git("rev-parse", "HEAD")
	writeAll(t, dir, head)
	git("add", "-A")
	git("commit", "-qm", "head", "--allow-empty")
	job := &actions.Job{Workspace: dir, Event: "pull_request"}
	event := filepath.Join(t.TempDir(), "event.json")
	writeAll(t, filepath.Dir(event), files{"event.json": `{"pull_request": {"base": {"sha": "` + commit + `"}}}`})
	if err := job.ReadEvent(event); err != nil {
		t.Fatal(err)
	}
	return &step{app: &app{}, job: job, log: actions.NewLog(t.Output()), temp: t.TempDir()}
}

func writeAll(t *testing.T, dir string, all files) {
	t.Helper()
	for name, text := range all {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
