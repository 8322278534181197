package workspace

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/org/agent-sandbox/policy"
)

// repoCase is a git repository with one commit and every program that git could start set to a canary.
type repoCase struct {
	dir, canary string
}

func newRepo(t testing.TB, format string, files treeState) repoCase {
	t.Helper()
	r := repoCase{dir: t.TempDir(), canary: filepath.Join(t.TempDir(), "canary")}
	gitIn(t, r.dir, "init", "-q", "--object-format="+format)
	copyTree(t, files, r.dir)
	gitIn(t, r.dir, "add", "-A")
	gitIn(t, r.dir, "commit", "-qm", "base")
	trap(t, filepath.Join(r.dir, ".git"), r.canary)
	return r
}

// trap makes everything in a git directory that git would execute touch the canary.
func trap(t testing.TB, gitDir, canary string) {
	t.Helper()
	script := filepath.Join(t.TempDir(), "evil")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$0 $*\" >>"+canary+"\ncat\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, hook := range []string{"reference-transaction", "post-index-change", "pre-commit", "post-checkout", "post-merge", "pre-auto-gc", "post-rewrite"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(gitDir, "hooks"), 0o755), os.Link(script, filepath.Join(gitDir, "hooks", hook))); err != nil {
			t.Fatal(err)
		}
	}
	config, err := os.OpenFile(filepath.Join(gitDir, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.WriteString(strings.ReplaceAll(`
[core]
	fsmonitor = EVIL
	sshCommand = EVIL
	pager = EVIL
	editor = EVIL
[filter "evil"]
	clean = EVIL
	smudge = EVIL
	process = EVIL
	required = true
[diff "evil"]
	textconv = EVIL
	command = EVIL
[diff]
	external = EVIL
[merge "evil"]
	driver = EVIL
[uploadpack]
	packObjectsHook = EVIL
[credential]
	helper = !EVIL
[gpg]
	program = EVIL
[commit]
	gpgSign = true
[gc]
	auto = 1
`, "EVIL", script))
	attributes := filepath.Join(gitDir, "info", "attributes")
	err = errors.Join(err, config.Close(), os.MkdirAll(filepath.Dir(attributes), 0o755), os.WriteFile(attributes, []byte("* filter=evil diff=evil merge=evil\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

func (r repoCase) wantQuiet(t testing.TB) {
	t.Helper()
	if data, err := os.ReadFile(r.canary); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("git ran a program: %s (%v)", data, err)
	}
}

// git asks the repository with every setting of its own switched off.
func (r repoCase) git(t testing.TB, args ...string) string {
	t.Helper()
	off := []string{
		"-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "diff.external=", "-c", "commit.gpgSign=false", "-c", "core.pager=cat", "-c", "gc.auto=0",
		"-c", "filter.evil.process=", "-c", "filter.evil.clean=cat", "-c", "filter.evil.smudge=cat", "-c", "filter.evil.required=false",
	}
	return strings.TrimSuffix(gitIn(t, r.dir, append(off, args...)...), "\n")
}

// committed gives what a commit holds, as asGitSees does.
func (r repoCase) committed(t testing.TB, commit string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for entry := range strings.SplitSeq(r.git(t, "ls-tree", "-r", "-z", commit), "\x00") {
		meta, p, ok := strings.Cut(entry, "\t")
		if !ok {
			continue
		}
		fields := strings.Fields(meta)
		out[p] = fields[0] + " " + gitIn(t, r.dir, "cat-file", "blob", fields[2])
	}
	return out
}

// branchCase is a finished run in a repository.
func branchCase(t testing.TB, format string, before, after treeState) (repoCase, BranchConfig) {
	t.Helper()
	r := newRepo(t, format, before)
	cfg := BranchConfig{RunDir: t.TempDir(), Target: r.dir, Protected: policy.Workspace{}.Protector().Tier, Branch: "agent/work", Now: time.Unix(1800000000, 0)}
	cs := changesBetween(t, cfg.RunDir, before, after)
	cs.Base, cs.Commit = r.dir, r.git(t, "rev-parse", "HEAD")
	if err := cs.Save(cfg.RunDir); err != nil {
		t.Fatal(err)
	}
	return r, cfg
}

func TestCommitToBranch(t *testing.T) {
	before := treeState{
		"edit": fileEntry("1\n", 0o644), "del": fileEntry("2\n", 0o644), "mv": fileEntry("moved\n", 0o644), "x": fileEntry("x\n", 0o644), "l": linkEntry("edit"),
		"todir": fileEntry("t\n", 0o644), "tofile": dirEntry(0o755), "tofile/a": fileEntry("a\n", 0o644), "dos": fileEntry("a\r\n", 0o644),
	}
	after := treeState{
		"edit": fileEntry("one\n", 0o644), "moved to": fileEntry("moved\n", 0o644), "x": fileEntry("x\n", 0o755), "l": linkEntry("x"), "todir": dirEntry(0o755),
		"todir/in\xff": fileEntry("in\n", 0o644), "tofile": fileEntry("f\n", 0o644), "bin": fileEntry("\x00\r\n\x01", 0o644), "empty": dirEntry(0o755), "dos": fileEntry("a\r\nb\r\n", 0o644),
	}
	for _, format := range []string{"sha1", "sha256"} {
		r, cfg := branchCase(t, format, before, after)
		tree := readTree(t, r.dir, ".git")
		index, err := os.ReadFile(filepath.Join(r.dir, ".git/index"))
		if err != nil {
			t.Fatal(err)
		}
		head := r.git(t, "rev-parse", "HEAD")
		res, err := CommitToBranch(t.Context(), cfg)
		if err != nil {
			t.Fatalf("%s: %v (%+v)", format, err, res)
		}
		if d := cmp.Diff(r.committed(t, "agent/work"), asGitSees(after)); d != "" {
			t.Errorf("%s: branch (-got +want)\n%s", format, d)
		}
		want := head + "\nagent-sandbox <agent-sandbox@localhost> 1800000000\nChanges of agent-sandbox run test-run\n\nAgent-Sandbox-Run: test-run\n"
		if got := r.git(t, "log", "-1", "--format=%P%n%an <%ae> %at%n%B", res.Commit); got != want {
			t.Errorf("%s: commit %q, want %q", format, got, want)
		}
		if got := r.git(t, "log", "-1", "--format=%(trailers:key="+RunTrailer+",valueonly)", "agent/work"); strings.TrimSpace(got) != "test-run" {
			t.Errorf("%s: trailer %q", format, got)
		}
		now, err := os.ReadFile(filepath.Join(r.dir, ".git/index"))
		if err != nil || !slices.Equal(now, index) || r.git(t, "rev-parse", "HEAD") != head {
			t.Errorf("%s: the index or HEAD was touched (%v)", format, err)
		}
		if d := cmp.Diff(readTree(t, r.dir, ".git"), tree); d != "" {
			t.Errorf("%s: the work tree was touched\n%s", format, d)
		}
		r.wantQuiet(t)
		if left := readTree(t, cfg.RunDir, BlobsDir, ChangesFile); len(left) != 0 {
			t.Errorf("%s: left in the run directory: %q", format, left.paths())
		}
		if len(res.Mixed) != 0 {
			t.Errorf("%s: mixed %q", format, res.Mixed)
		}
	}
}

// randomTrees are a tree, and what became of it.
func randomTrees(t *testing.T, seed uint64) (before, after treeState) {
	t.Helper()
	m, dir := newTreeMaker(t, seed), t.TempDir()
	for _, content := range []string{"s", "t"} {
		for range 30 {
			m.step(dir)
		}
		before, after = after, readTree(t, dir)
		after["seed"] = fileEntry(content, 0o644) // differs, whatever the steps were
	}
	return before, after
}

// The property: the branch holds what the agent saw, for random trees.
func TestCommitToBranchGivesWhatTheAgentSaw(t *testing.T) {
	for seed := range uint64(6) {
		before, after := randomTrees(t, 500+seed)
		r, cfg := branchCase(t, "sha1", before, after)
		cfg.AllowProtected = patterns(t, "*")
		if _, err := CommitToBranch(t.Context(), cfg); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := cmp.Diff(r.committed(t, cfg.Branch), asGitSees(after)); d != "" {
			t.Fatalf("seed %d (-got +want)\n%s", seed, d)
		}
		r.wantQuiet(t)
	}
}

func TestCommitToBranchRefuses(t *testing.T) {
	before := treeState{"f": fileEntry("1\n", 0o644)}
	after := treeState{"f": fileEntry("2\n", 0o644), ".envrc": fileEntry("evil", 0o644)}
	r, cfg := branchCase(t, "sha1", before, after)
	res, err := CommitToBranch(t.Context(), cfg)
	if !errors.Is(err, ErrRefused) || len(res.Refused) != 1 || res.Refused[0].Path != ".envrc" {
		t.Errorf("protected: %v, %+v", err, res)
	}
	cfg.SkipProtected = true
	for _, name := range []string{"", "HEAD", "-d", "a..b", "a b", "x.lock", "@{-1}", "a//b", "refs/heads/x", "a\nb", "/a", "a/"} {
		cfg.Branch = name
		if _, err := CommitToBranch(t.Context(), cfg); err == nil {
			t.Errorf("branch %q: no error", name)
		}
	}
	if got := r.git(t, "for-each-ref", "--format=%(refname)"); got != "refs/heads/main" {
		t.Errorf("refs %q", got)
	}
	cfg.Branch = "main"
	if _, err := CommitToBranch(t.Context(), cfg); !errors.Is(err, ErrBranchExists) {
		t.Errorf("existing branch: %v", err)
	}
	cfg.Branch = "main/sub" // a directory in the place of a ref
	if _, err := CommitToBranch(t.Context(), cfg); err == nil {
		t.Error("main/sub: no error")
	}
	cfg.Branch = "ok"
	if res, err := CommitToBranch(t.Context(), cfg); err != nil || len(res.Skipped) != 1 || !slices.Equal(res.Applied, []string{"f"}) {
		t.Errorf("without the protected one: %v, %+v", err, res)
	}
	cfg.Target = t.TempDir()
	if _, err := CommitToBranch(t.Context(), cfg); !errors.Is(err, ErrNoRepo) {
		t.Errorf("no repository: %v", err)
	}
	r.wantQuiet(t)
}

func TestCommitToBranchLeavesOut(t *testing.T) {
	before := treeState{".gitignore": fileEntry("build/\n", 0o644), "sub": dirEntry(0o755), "sub/f": fileEntry("f\n", 0o644), "un": fileEntry("committed\n", 0o644)}
	after := maps.Clone(before)
	after["build"], after["build/out"] = dirEntry(0o755), fileEntry("o", 0o644)
	after["un"], after["fifo"] = fileEntry("agent\n", 0o644), treeEntry{Node: Node{Type: Other}}
	r, cfg := branchCase(t, "sha1", before, after)
	cs, err := Load(cfg.RunDir)
	if err != nil {
		t.Fatal(err)
	}
	was := fileEntry("not committed\n", 0o644) // what the user had when the run started
	cs.Find("un").Old = &was.Node
	if err := cs.Save(cfg.RunDir); err != nil {
		t.Fatal(err)
	}
	res, err := CommitToBranch(t.Context(), cfg)
	if err != nil || !slices.Equal(res.Applied, []string{"un"}) || !slices.Equal(res.Mixed, []string{"un"}) || len(res.Skipped) != 2 || res.Skipped[0].Path != "build/out" {
		t.Errorf("%v, %+v", err, res)
	}
	cfg.Branch, cfg.IncludeIgnored = "all", true
	if res, err := CommitToBranch(t.Context(), cfg); err != nil || !slices.Equal(res.Applied, []string{"build/out", "un"}) {
		t.Errorf("%v, %+v", err, res)
	}
	cfg.Branch, cfg.Paths = "none", []string{"build"}
	cfg.IncludeIgnored = false
	if _, err := CommitToBranch(t.Context(), cfg); !errors.Is(err, ErrNothing) {
		t.Errorf("nothing: %v", err)
	}
	r.wantQuiet(t)
}

// Changes below a submodule would replace it by a directory.
func TestCommitToBranchKeepsSubmodules(t *testing.T) {
	before := treeState{"f": fileEntry("f\n", 0o644)}
	r := newRepo(t, "sha1", before)
	r.git(t, "update-index", "--add", "--cacheinfo", "160000,"+r.git(t, "rev-parse", "HEAD")+",mod")
	r.git(t, "commit", "-qm", "module")
	cfg := BranchConfig{RunDir: t.TempDir(), Target: r.dir, Protected: policy.Workspace{}.Protector().Tier, Branch: "b"}
	cs := changesBetween(t, cfg.RunDir, before, treeState{"f": fileEntry("F\n", 0o644), "mod": dirEntry(0o755), "mod/x": fileEntry("x", 0o644)})
	cs.Commit = r.git(t, "rev-parse", "HEAD")
	if err := cs.Save(cfg.RunDir); err != nil {
		t.Fatal(err)
	}
	res, err := CommitToBranch(t.Context(), cfg)
	if err != nil || len(res.Skipped) != 1 || res.Skipped[0].Path != "mod/x" {
		t.Errorf("%v, %+v", err, res)
	}
	if got := r.git(t, "ls-tree", "b", "mod"); !strings.HasPrefix(got, "160000 commit") {
		t.Errorf("mod is %q", got)
	}
}

// A project may be a directory of a larger repository, a linked worktree, or a shallow clone.
func TestCommitToBranchElsewhere(t *testing.T) {
	before := treeState{"pkg": dirEntry(0o755), "pkg/f": fileEntry("1\n", 0o644), "top": fileEntry("t\n", 0o644)}
	r := newRepo(t, "sha1", before)
	run := func(target, base string) map[string]string {
		cfg := BranchConfig{RunDir: t.TempDir(), Target: target, Protected: policy.Workspace{}.Protector().Tier, Branch: "b/" + filepath.Base(target)}
		cs := changesBetween(t, cfg.RunDir, treeState{"f": fileEntry("1\n", 0o644)}, treeState{"f": fileEntry("2\n", 0o644), "g": fileEntry("3\n", 0o644)})
		cs.Commit = base
		if err := cs.Save(cfg.RunDir); err != nil {
			t.Fatal(err)
		}
		if _, err := CommitToBranch(t.Context(), cfg); err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		return repoCase{dir: target}.committed(t, cfg.Branch)
	}
	base := r.git(t, "rev-parse", "HEAD")
	want := map[string]string{"top": "100644 t\n", "pkg/f": "100644 2\n", "pkg/g": "100644 3\n"}
	got := run(filepath.Join(r.dir, "pkg"), base)
	// ls-tree in a directory names what is below it.
	if d := cmp.Diff(got, map[string]string{"f": "100644 2\n", "g": "100644 3\n"}); d != "" {
		t.Errorf("subdirectory (-got +want)\n%s", d)
	}
	if d := cmp.Diff(r.committed(t, "b/pkg"), want); d != "" {
		t.Errorf("repository of it (-got +want)\n%s", d)
	}
	worktree := filepath.Join(t.TempDir(), "linked")
	r.git(t, "worktree", "add", "-q", "--no-checkout", worktree, "HEAD")
	got = run(worktree, base)
	if got["f"] != "100644 2\n" || got["pkg/f"] != "100644 1\n" {
		t.Errorf("linked worktree: %v", got)
	}
	shallow := filepath.Join(t.TempDir(), "shallow")
	r.git(t, "commit", "-q", "--allow-empty", "-m", "second")
	r.git(t, "-c", "protocol.file.allow=always", "clone", "-q", "--no-checkout", "--depth=1", "file://"+r.dir, shallow)
	got = run(shallow, repoCase{dir: shallow}.git(t, "rev-parse", "HEAD"))
	if got["f"] != "100644 2\n" {
		t.Errorf("shallow clone: %v", got)
	}
}

// When root applies for somebody, what is written into the repository stays that user's.
func TestCommitToBranchAsRootKeepsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r, cfg := branchCase(t, "sha1", treeState{"f": fileEntry("1\n", 0o644)}, treeState{"f": fileEntry("2\n", 0o644)})
	const nobody = 65534
	chown := func(p string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Lchown(p, nobody, nobody)) }
	if err := filepath.WalkDir(r.dir, chown); err != nil {
		t.Fatal(err)
	}
	for dir := r.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := CommitToBranch(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(r.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && statOf(info).owner.UID != nobody {
			t.Errorf("%s belongs to %d", p, statOf(info).owner.UID)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
