//go:build docker

package runner

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/workspace"
)

// planted is something that an agent leaves in the workspace for others to run into.
type planted struct {
	path  string // in the change set
	do    []step // what the agent does; nil writes a file
	tier  workspace.Tier
	allow string // the pattern that lets apply do it; "" for the path and the directories above
	skip  bool   // apply never does it
}

func write(path, text string) step { return step{"", "write", []string{"/workspace/" + path, text}} }

func symlink(path, target string) step {
	return step{"", "symlink", []string{target, "/workspace/" + path}}
}

// plants are the ways by which a change set could act on the host, or in CI, by being applied.
func plants() []planted {
	var all []planted
	for _, path := range []string{
		// What git runs, or obeys.
		".git/hooks/post-checkout", ".git/hooks/pre-commit", ".git/config", ".git/config.worktree", ".git/info/attributes", ".git/objects/info/alternates",
		".git/modules/sub/config", ".git/modules/sub/hooks/post-update", ".git/worktrees/w/gitdir", ".git/worktrees/w/commondir",
		// By other names of .git.
		".GIT/hooks/pre-commit", ".Git/config", "git~1/config", ".git./config", ".gi\u200ct/config",
		// A repository inside, and the files that point to one elsewhere: submodules and worktrees.
		"nested/.git/config", "nested/.git/hooks/post-merge", "submodule/.git",
		"bare/config", "bare/HEAD", "bare/hooks/post-update",
		// Absent at the start, and run unasked once they are there.
		".husky/pre-commit", ".githooks/pre-push", ".pre-commit-config.yaml", "lefthook.yml", ".envrc", ".npmrc", ".yarnrc.yml", ".vscode/tasks.json", ".idea/workspace.xml",
		".devcontainer/devcontainer.json", ".gdbinit", ".cargo/config.toml", ".mise.toml",
		".github/workflows/deploy.yml", ".github/actions/x/action.yml", ".gitlab-ci.yml", "Jenkinsfile", "CODEOWNERS",
		"AGENTS.md", "sub/CLAUDE.md", ".claude/settings.json", ".mcp.json", ".cursor/rules/x.mdc", ".agent-sandbox.yaml",
	} {
		all = append(all, planted{path: path, tier: workspace.Reject})
	}
	for _, path := range []string{".gitattributes", ".gitmodules", "package.json", "Vagrantfile"} {
		all = append(all, planted{path: path, tier: workspace.Warn})
	}
	return append(all,
		planted{path: "link-absolute", do: []step{symlink("link-absolute", "/etc/passwd")}, tier: workspace.Reject},
		planted{path: "link-up", do: []step{symlink("link-up", "../../outside")}, tier: workspace.Reject},
		planted{path: "deep/link-up", do: []step{{"", "mkdir", []string{"/workspace/deep"}}, symlink("deep/link-up", "../../outside")}, tier: workspace.Reject},
		planted{path: "link-round", do: []step{symlink("link-round", "deep/../../outside")}, tier: workspace.Reject},
		planted{path: "link-git", do: []step{symlink("link-git", ".git/config")}, tier: workspace.Reject},
		planted{path: "link-proc", do: []step{symlink("link-proc", "/proc/self/environ")}, tier: workspace.Reject},
		planted{path: "setuid", do: []step{write("setuid", "#!/bin/sh\n"), {"", "chmod", []string{"/workspace/setuid", "4755"}}}, tier: workspace.Reject},
		planted{path: "setgid", do: []step{write("setgid", "#!/bin/sh\n"), {"", "chmod", []string{"/workspace/setgid", "2755"}}}, tier: workspace.Reject},
		planted{path: "fifo", do: []step{{"", "mkfifo", []string{"/workspace/fifo"}}}, tier: workspace.Warn, skip: true},
		planted{path: "new\nline", tier: workspace.Reject, allow: "new*"},
		planted{path: "tab\tulator", tier: workspace.Reject, allow: "tab*"},
		planted{path: "escape\x1b[31mcode", tier: workspace.Reject, allow: "escape*"},
		planted{path: "\u202egnp.exe", tier: workspace.Reject, allow: "*gnp.exe"},
		planted{path: notUTF8, do: []step{{"", "writehex", []string{hex.EncodeToString([]byte("/workspace/" + notUTF8)), "x"}}}, tier: workspace.Warn},
		planted{path: "readme", tier: workspace.Warn}, // the project has README
	)
}

// notUTF8 is a name that JSON can't hold.
const notUTF8 = "inv\xffalid"

// plantSteps are what the agent does, each with a name of its own.
func plantSteps(plants []planted) []step {
	var all []step
	for _, p := range plants {
		do := p.do
		if do == nil {
			do = []step{{"", "mkdir", []string{"/workspace/" + filepath.Dir(p.path)}}, write(p.path, "planted\n")}
		}
		for i, s := range do {
			s.Name = p.path + strings.Repeat("+", i)
			all = append(all, s)
		}
	}
	// A bare repository is one by the directories beside its HEAD.
	return append(all, step{"objects", "mkdir", []string{"/workspace/bare/objects"}}, step{"refs", "mkdir", []string{"/workspace/bare/refs"}})
}

// repository makes the project a git repository with some files in it, a month ago.
func repository(t *testing.T, project string) {
	t.Helper()
	for name, text := range map[string]string{
		"README": "hello\n", "src/a.go": "package a\n", "src/b.go": "package b\n", "dir/x": "x\n", "dir/sub/y": "y\n", "tool.sh": "#!/bin/sh\n", "gone": "soon\n",
	} {
		path := filepath.Join(project, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(project, "tool.sh"), 0o755), os.Symlink("README", filepath.Join(project, "link")), os.Link(filepath.Join(project, "gone"), filepath.Join(project, "gone-too"))); err != nil {
		t.Fatal(err)
	}
	git(t, project, "init", "-q", "-b", "main")
	git(t, project, "add", "-A")
	git(t, project, "commit", "-q", "-m", "first")
}

// git runs git on the host, as somebody who works in the project does.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := gitCommand(t, dir, args...).CombinedOutput()
	if err != nil {
		t.Errorf("git %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func gitCommand(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "safe.directory=*"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	return cmd
}

// TestEscapeGate: what could act on the host is marked when it is extracted, recorded, and not applied unless somebody
// names it.
func TestEscapeGate(t *testing.T) {
	l := testLab(t)
	for _, mode := range []string{"overlay", "copy"} {
		b := l.try(t, setup{policy: "workspace: {mode: " + mode + "}\n", prepare: repository}, plantSteps(plants()))
		if b.err != nil {
			t.Fatal(b.err)
		}
		cs, err := workspace.Load(b.result.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range plants() {
			l.entry(t, "workspace", mode+", "+event.Printable(p.path), "the gate: "+string(p.tier), func(t *testing.T, _ func(string)) {
				for name, a := range b.answers {
					if strings.TrimRight(name, "+") == asJSON(p.path) && a.Answer != "ok" {
						t.Fatalf("the agent could not do it: %s %s", a.Answer, a.Detail)
					}
				}
				p.check(t, b, cs.Find(p.path))
			})
		}
	}
}

func (p planted) check(t *testing.T, b *box, c *workspace.Change) {
	t.Helper()
	if c == nil {
		t.Fatal("it is not in the change set")
	}
	if c.Tier != p.tier {
		t.Errorf("tier %q (%s), want %q", c.Tier, c.Reason, p.tier)
	}
	if !b.has(func(e event.Event) bool {
		x, ok := e.(event.ProtectedTouched)
		return ok && x.Path == asJSON(p.path) && x.Tier == string(p.tier)
	}) {
		t.Error("the record does not have it")
	}
	before := stateOf(t, b.project)
	res, err := apply(t, b, p.path)
	if p.tier == workspace.Reject {
		if !errors.Is(err, workspace.ErrRefused) && !slices.ContainsFunc(res.Skipped, func(r workspace.Refusal) bool { return r.Path == p.path }) {
			t.Errorf("applied: %+v, %v", res, err)
		}
		if diff := cmp.Diff(before, stateOf(t, b.project)); diff != "" {
			t.Errorf("the host changed:\n%s", diff)
		}
		res, err = apply(t, b, p.path, p.patterns()...)
	}
	// The control: it is the gate alone that kept it away.
	if applied := slices.Contains(res.Applied, p.path); applied == p.skip || err != nil {
		t.Errorf("with the gate open: %+v, %v: the entry proves nothing", res, err)
	}
	if info, err := os.Lstat(filepath.Join(b.project, p.path)); err == nil && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 && !info.IsDir() {
		t.Errorf("applied with mode %v", info.Mode())
	}
}

// asJSON is what becomes of a path in JSON.
func asJSON(path string) string { return strings.ToValidUTF8(path, "\ufffd") }

func (p planted) patterns() (all []string) {
	if p.allow != "" {
		return []string{p.allow}
	}
	for path := p.path; path != "."; path = filepath.Dir(path) {
		all = append(all, path)
	}
	return all
}

// apply applies one path of a run, or with "" all of it but what is protected, with what the patterns allow.
func apply(t *testing.T, b *box, path string, allow ...string) (workspace.ApplyResult, error) {
	t.Helper()
	cfg := workspace.ApplyConfig{RunDir: b.result.Dir, Target: b.project, Protected: policy.Default().Workspace.Protector().Tier}
	if path != "" {
		cfg.Paths = []string{path}
	} else {
		cfg.SkipProtected = true
	}
	for _, text := range allow {
		pattern, err := policy.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		cfg.AllowProtected = append(cfg.AllowProtected, pattern)
	}
	return workspace.Apply(t.Context(), cfg)
}
