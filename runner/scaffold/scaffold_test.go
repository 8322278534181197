package scaffold

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/org/agent-sandbox/policy"
)

// project makes a directory with these files.
func project(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDetect(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  string // languages, tests, agent, repository, image
	}{
		"empty":                    {nil, "[] [] . . ."},
		"go":                       {map[string]string{"go.mod": "module x"}, "[Go] [go test ./...] . . ."},
		"node":                     {map[string]string{"package.json": `{"scripts": {"test": "node --test"}}`}, "[JavaScript] [npm test] . . ."},
		"node, untested":           {map[string]string{"package.json": `{}`}, "[JavaScript] [] . . ."},
		"make knows":               {map[string]string{"go.mod": "", "Makefile": "all:\ntest: all\n"}, "[Go] [make test] . . ."},
		"two ways of one language": {map[string]string{"pyproject.toml": "", "requirements.txt": ""}, "[Python] [python3 -m unittest] . . ."},
		"an agent":                 {map[string]string{"CLAUDE.md": "", ".claude/settings.json": "{}"}, "[] [] claude . ."},
		"two agents":               {map[string]string{"CLAUDE.md": "", "GEMINI.md": ""}, "[] [] . . ."},
		"a remote": {
			map[string]string{".git/config": "[core]\n\turl = https://github.com/not/this\n[remote \"origin\"]\n\turl = git@github.com:acme/shop.git\n"},
			"[] [] . acme/shop .",
		},
		"a remote with a token":    {map[string]string{".git/config": "[remote \"origin\"]\n\turl = https://x:ghp_secret@github.com/acme/shop\n"}, "[] [] . acme/shop ."},
		"a remote elsewhere":       {map[string]string{".git/config": "[remote \"origin\"]\n\turl = https://github.com.evil.example/acme/shop\n"}, "[] [] . . ."},
		"a remote that breaks out": {map[string]string{".git/config": "[remote \"origin\"]\n\turl = https://github.com/acme/shop: x\n"}, "[] [] . . ."},
		"a devcontainer that builds": {
			map[string]string{".devcontainer/devcontainer.json": "// ours\n{\"build\": {\"dockerfile\": \"Dockerfile\"}}", ".devcontainer/Dockerfile": "FROM x"},
			"[] [] . . .devcontainer/Dockerfile",
		},
		"a devcontainer's image": {map[string]string{".devcontainer.json": `{"image": "registry.example.org/dev:1"}`}, "[] [] . . registry.example.org/dev:1"},
		"a devcontainer that breaks out": {
			map[string]string{".devcontainer/devcontainer.json": `{"build": {"dockerfile": "../../../etc/passwd"}}`}, "[] [] . . .",
		},
		"an image that breaks out": {map[string]string{".devcontainer.json": `{"image": "x\nmounts: []"}`}, "[] [] . . ."},
	} {
		p, err := Detect(project(t, tt.files))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var langs []string
		for _, l := range p.Languages {
			langs = append(langs, l.Name)
		}
		got := strings.Join([]string{
			"[" + strings.Join(langs, " ") + "]", "[" + strings.Join(p.Tests, " ") + "]", dot(p.Agent), dot(p.Repository), dot(p.DevDockerfile + p.DevImage),
		}, " ")
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func dot(s string) string {
	if s == "" {
		return "."
	}
	return s
}

// A file of the project that is no file, or leads out of it, is not read.
func TestDetectStaysInside(t *testing.T) {
	outside := project(t, map[string]string{"package.json": `{"scripts": {"test": "x"}}`})
	dir := project(t, map[string]string{"go.mod": ""})
	if err := os.Symlink(filepath.Join(outside, "package.json"), filepath.Join(dir, "package.json")); err != nil {
		t.Fatal(err)
	}
	p, err := Detect(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Languages) != 1 || p.Languages[0].Name != "Go" {
		t.Errorf("Detect followed a link out of the project: %+v", p.Languages)
	}
}

// Whatever is found, the policy is valid and asks for what the program can do, and the other files are YAML.
func TestFiles(t *testing.T) {
	everything := Project{
		Languages: languages(), Dockerfile: "Dockerfile", Devcontainer: ".devcontainer.json", Workflows: true, Repository: "acme/shop",
		Tests: []string{"make", "test"},
	}
	built, image := everything, everything
	built.DevDockerfile, image.DevImage = ".devcontainer/Dockerfile", "registry.example.org/dev:1"
	for _, p := range []Project{{}, everything, built, image} {
		for _, agent := range append(policy.Agents(), "") {
			files, err := Files(p, Options{Image: "agent-sandbox:dev", Agent: agent, Action: "org/agent-sandbox@v1", Rotation: true, Release: "v1.2.3"})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				checkFile(t, f, agent, p)
			}
		}
	}
}

func checkFile(t *testing.T, f File, agent string, p Project) {
	t.Helper()
	switch f.Path {
	case DockerfileFile:
		if !strings.Contains(f.Content, "FROM agent-sandbox:dev\nUSER root\n") || !strings.HasSuffix(f.Content, "\nUSER agent\n") {
			t.Errorf("%s:\n%s", f.Path, f.Content)
		}
		return
	case PolicyFile:
		loaded, err := policy.Load(f.Path, []byte(f.Content))
		if err != nil {
			t.Errorf("agent %q: %v\n%s", agent, err, f.Content)
			return
		}
		if loaded.Agent != agent {
			t.Errorf("the policy's agent is %q, want %q", loaded.Agent, agent)
		}
		if got := strings.Join(loaded.Image.Agents, " "); slices.Contains(policy.Installable(), agent) != (got == agent && agent != "") {
			t.Errorf("the policy of the agent %q has %q installed", agent, got)
		}
		if p.DevDockerfile != "" && loaded.Image.Build != p.DevDockerfile {
			t.Errorf("the policy builds %q, want %q", loaded.Image.Build, p.DevDockerfile)
		}
	}
	if strings.Contains(f.Content, "secrets. ") || strings.Contains(f.Content, "()") {
		t.Errorf("%s for the agent %q names a secret that has no name:\n%s", f.Path, agent, f.Content)
	}
	var v any
	if err := yaml.Unmarshal([]byte(f.Content), &v); err != nil {
		t.Errorf("%s: %v\n%s", f.Path, err, f.Content)
	}
	for i, line := range strings.Split(f.Content, "\n") {
		if strings.TrimRight(line, " \t") != line {
			t.Errorf("%s:%d: blanks at the end: %q", f.Path, i+1, line)
		}
	}
}

func TestFilesOfSmallProjects(t *testing.T) {
	paths := func(p Project, o Options) []string {
		o.Image, o.Action = "agent-sandbox:dev", "org/agent-sandbox@v1"
		files, err := Files(p, o)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, f := range files {
			all = append(all, f.Path)
		}
		return all
	}
	goProject := Project{Languages: languages()[:1], Repository: "acme/shop"}
	for _, tt := range []struct {
		got, want []string
	}{
		{paths(Project{}, Options{}), []string{PolicyFile, WorkflowFile}},
		{paths(goProject, Options{}), []string{PolicyFile, DockerfileFile, WorkflowFile, TrustFile}},
		{paths(goProject, Options{CIOnly: true}), []string{WorkflowFile, TrustFile}},
		{paths(Project{}, Options{Agent: "claude"}), []string{PolicyFile, WorkflowFile}},
		{paths(goProject, Options{CIOnly: true, Rotation: true}), []string{WorkflowFile, RotationFile, TrustFile}},
	} {
		if diff := cmp.Diff(tt.got, tt.want); diff != "" {
			t.Errorf("files (-got +want):\n%s", diff)
		}
	}
	if _, err := Files(Project{}, Options{Agent: "clod"}); err == nil {
		t.Error("an agent that there isn't was accepted")
	}
}

// Each bundle and each kit that is written down here exists.
func TestTables(t *testing.T) {
	for _, l := range languages() {
		if _, ok := policy.LookupBundle(l.Bundle); !ok {
			t.Errorf("%s: there is no bundle %q", l.Name, l.Bundle)
		}
	}
	for name, kit := range agentFiles() {
		if !slices.Contains(policy.Agents(), kit) {
			t.Errorf("%s: there is no agent %q", name, kit)
		}
	}
}
