package runner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
)

func TestGitElsewhere(t *testing.T) {
	for text, want := range map[string]string{
		"gitdir: /srv/shop/.git/worktrees/fix\n": "/srv/shop/.git/worktrees/fix",
		"gitdir: ../.git/modules/sub\n":          "PARENT/.git/modules/sub",
		"gitdir: .real\n":                        "", // in the project
		"gitdir: ./..data/.git\n":                "",
		"something else\n":                       "",
		"gitdir: /" + strings.Repeat("x", 5000):  "",
	} {
		dir := filepath.Join(t.TempDir(), "project")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if got := gitElsewhere(dir); got != "" {
			t.Errorf("without .git: %q", got)
		}
		if err := os.WriteFile(filepath.Join(dir, ".git"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		want = strings.Replace(want, "PARENT", filepath.Dir(dir), 1)
		if got := gitElsewhere(dir); got != want {
			t.Errorf("gitElsewhere with %.60q = %q, want %q", text, got, want)
		}
	}
}

// A linked worktree is told of before the agent starts, unless the policy shows its repository inside.
func TestWarnOfGit(t *testing.T) {
	project := t.TempDir()
	if err := os.WriteFile(filepath.Join(project, ".git"), []byte("gitdir: /srv/shop/.git/worktrees/fix\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]int{"": 1, "/srv/shop/.git": 0, "/srv/shop/.github": 1} {
		var log events
		rec, err := event.NewRecorder(event.Config{Run: "20260101-100000-aaaaaa", Handlers: []event.Handler{&log}})
		if err != nil {
			t.Fatal(err)
		}
		p := policy.Default()
		if target != "" {
			p.Mounts = []policy.Mount{{Source: "/srv/shop/.git", Target: target}}
		}
		(&run{rec: rec, cfg: Config{Project: project, Policy: p}}).warnOfGit()
		warned := log.of("warning")
		if len(warned) != want || want == 1 && !strings.Contains(warned[0].(event.Warning).Message, "/srv/shop/.git/worktrees/fix") {
			t.Errorf("with a mount at %q: %v, want %d", target, warned, want)
		}
	}
}
