package policy

import (
	"strings"
	"testing"
)

func TestProtected(t *testing.T) {
	tests := map[Tier][]string{
		TierReject: {
			".git", ".git/hooks/pre-commit", ".git/config", ".git/config.worktree", ".git/info/attributes", ".git/objects/info/alternates", ".git/rebase-merge/git-rebase-todo",
			".git/new-thing", ".git/modules/lib/config", ".git/modules/a/b/hooks/post-checkout", ".git/worktrees/w/gitdir", ".git/objects/evil/.git/config", ".git/objects/evil/sub/config",
			"vendor/lib/.git", "vendor/lib/.git/config", "a/b/c/.git/hooks/x",
			".husky/pre-commit", ".githooks/pre-push", ".pre-commit-config.yaml", "lefthook.yml", ".lintstagedrc.json",
			".github/workflows/ci.yml", ".github/actions/x/action.yml", ".gitlab-ci.yml", ".circleci/config.yml", "Jenkinsfile", "azure-pipelines.yml", ".buildkite/pipeline.yml",
			".github/CODEOWNERS", "CODEOWNERS", ".agent-sandbox.yaml", ".agent-sandbox.lock", ".sops.yaml",
			"CLAUDE.md", "pkg/AGENTS.md", ".claude/settings.json", ".claude/commands/x.md", ".mcp.json", ".cursor/rules/x.mdc", ".cursorrules", ".github/copilot-instructions.md", ".aider.conf.yml", "opencode.json",
			".vscode/tasks.json", "sub/.vscode/settings.json", ".vscode/launch.json", "x.code-workspace", ".idea/runConfigurations/x.xml", ".devcontainer/devcontainer.json", ".devcontainer.json", ".exrc", ".dir-locals.el",
			".envrc", "sub/.envrc", ".mise.toml", "mise.toml", ".cargo/config.toml", ".npmrc", ".yarnrc.yml", ".yarn/releases/yarn.cjs", ".pnpmfile.cjs", ".gdbinit", ".Rprofile", ".hg/hgrc",
		},
		TierWarn: {
			".gitmodules", ".gitattributes", "sub/.gitattributes", "package.json", "web/package.json", ".env", "build.rs", "gradle/wrapper/gradle-wrapper.jar", ".mvn/extensions.xml", "compose.yaml", "docker-compose.prod.yml",
			".vscode/extensions.json", ".github/dependabot.yml", "action.yml", "flake.nix", "eslint.config.mjs", "node_modules/.bin/tsc", "desktop.ini", "HEAD", "x/HEAD", ".tool-versions",
		},
		TierNone: {
			"main.go", "Makefile", "README.md", "Dockerfile", "go.mod", ".gitignore", ".gitkeep", "docs/git/config", "hooks/pre-commit", "src/config", "github/workflows/x", ".github/ISSUE_TEMPLATE/bug.md",
			"a.git/config", "x.gitmodules", ".git/objects/ab/cdef", ".git/objects/pack/pack-1.idx", ".git/refs/heads/main", ".git/HEAD", ".git/index", ".git/logs/HEAD", ".git/logs/refs/heads/x", ".git/COMMIT_EDITMSG",
			".git/packed-refs", ".git/refs/remotes/origin/HEAD", ".git/modules/lib/objects/ab/cd", ".git/modules/lib/HEAD", ".git/info/exclude", "components/Head/index.tsx", "idea/x", "package.jsonc", "claude.go", "",
			"tools/bazel2", "src/tools/bazel",
		},
	}
	protected := byDefault()
	for want, paths := range tests {
		for _, path := range paths {
			tier, reason := protected(path)
			if tier != want {
				t.Errorf("Tier(%q) = %q (%s), want %q", path, tier, reason, want)
			}
			if (reason == "") != (tier == TierNone) {
				t.Errorf("Tier(%q) = %q with the reason %q", path, tier, reason)
			}
		}
	}
}

// TestProtectedSpellings are other names of the same files on macOS and Windows.
func TestProtectedSpellings(t *testing.T) {
	protected := byDefault()
	for path, want := range map[string]Tier{
		".GIT/hooks/x":                     TierReject,
		".Git/config":                      TierReject,
		"git~1/hooks/x":                    TierReject,
		"GIT~1/config":                     TierReject,
		"git~1":                            TierReject,
		".git./config":                     TierReject,
		".git /config":                     TierReject,
		".git . ./config":                  TierReject,
		".git::$INDEX_ALLOCATION/config":   TierReject,
		".git:stream":                      TierReject,
		".git/config:x":                    TierReject,
		".git\\hooks\\x":                   TierReject,
		"a\\.git\\config":                  TierReject,
		".g\u200cit/config":                TierReject,
		"\ufeff.git/hooks/x":               TierReject,
		".gi\u200dt/hooks/x":               TierReject,
		".git\u202e/config":                TierReject,
		".giT/HOOKS/x":                     TierReject,
		".git/./hooks/x":                   TierReject,
		".GITHUB/Workflows/x.yml":          TierReject,
		"GITHUB~1/workflows/x.yml":         TierReject,
		".github/WORKFL~1/x.yml":           TierReject,
		"GITLAB~1.YML":                     TierReject,
		"PRE-CO~1.YAM":                     TierReject,
		"HUSKY~1/pre-commit":               TierReject,
		".envrc.":                          TierReject,
		".ENVRC":                           TierReject,
		".envrc::$DATA":                    TierReject,
		"ENVRC~1":                          TierReject,
		".vs\u212aode/tasks.json":          TierNone, // the Kelvin sign is k, not c
		".hus\u212ay/pre-commit":           TierReject,
		".vscode/ta\u017f\u212as.json":     TierReject, // long s and Kelvin sign
		"claude.MD":                        TierReject,
		"agents.md ":                       TierReject,
		"gi7eba~1":                         TierWarn,
		"GITMOD~1":                         TierWarn,
		"gi7d29~2":                         TierWarn,
		"gitatt~1":                         TierWarn,
		"PACKAG~1.JSO":                     TierWarn,
		"git~10":                           TierNone,
		"git~":                             TierNone,
		"a~1":                              TierNone,
		"...":                              TierNone,
		".git\xff/config":                  TierNone,
		strings.Repeat("a/", 500) + "x.go": TierNone,
	} {
		if tier, reason := protected(path); tier != want {
			t.Errorf("Tier(%q) = %q (%s), want %q", path, tier, reason, want)
		}
	}
}

func TestWorkspaceProtector(t *testing.T) {
	p := mustLoad(t, "version: 1\nworkspace: {protect: {reject: [deploy/, package.json], warn: [\"*.sql\", .git/hooks]}}\n")
	protector := p.Workspace.Protector()
	for path, want := range map[string]Tier{
		"deploy":          TierReject,
		"x/deploy/a":      TierReject,
		"DEPLOY/a":        TierReject,
		"package.json":    TierReject, // raised from warn
		"db/x.sql":        TierWarn,
		".git/hooks/x":    TierReject, // not lowered
		"x.go":            TierNone,
		".git/refs/x":     TierNone,
		"sub/.gitmodules": TierWarn,
	} {
		if tier, reason := protector.Tier(path); tier != want {
			t.Errorf("Tier(%q) = %q (%s), want %q", path, tier, reason, want)
		}
	}
}

// FuzzProtected: whatever is done to the spelling of a protected path, it stays protected; and no path panics.
func FuzzProtected(f *testing.F) {
	for _, s := range []string{"", "\u200c", ".", " ", ":x", "::$DATA", "~1", "\\", "\xff"} {
		f.Add("sub", s, 3)
	}
	protected := byDefault()
	f.Fuzz(func(t *testing.T, dir, junk string, at int) {
		protected(dir + junk)
		if strings.ContainsAny(dir, "/\\") || dir == "" {
			return
		}
		for _, name := range []string{".git/hooks/x", ".github/workflows/ci.yml", ".envrc"} {
			first, rest, _ := strings.Cut(name, "/")
			spelled := strings.ToUpper(first) + strings.Repeat(".", len(junk)%3) + strings.Repeat(" ", len(dir)%3)
			if at = at % (len(first) + 1); at < 0 {
				at = -at
			}
			hidden := first[:at] + "\u200d" + first[at:]
			for _, variant := range []string{spelled, hidden, first + ":" + strings.ReplaceAll(strings.ReplaceAll(junk, "/", ""), "\\", "")} {
				path := strings.TrimSuffix(dir+"/"+variant+"/"+rest, "/")
				if tier, _ := protected(path); tier != TierReject {
					t.Errorf("Tier(%q) = %q", path, tier)
				}
			}
		}
	})
}

func BenchmarkProtected(b *testing.B) {
	protected := byDefault()
	for b.Loop() {
		protected("services/module/src/main/file.go")
	}
}

// byDefault is what a policy protects that says nothing of it.
func byDefault() func(string) (Tier, string) { return Workspace{}.Protector().Tier }
