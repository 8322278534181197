package workspace

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/org/agent-sandbox/policy"
)

// agentRun is a run in which the agent worked in a copy of the repository, as the sandbox gives it to him.
type agentRun struct {
	repoCase
	cfg    CommitsConfig
	work   string // the agent's copy
	before treeState
}

func newAgentRun(t testing.TB, format string) *agentRun {
	t.Helper()
	r := &agentRun{repoCase: repoCase{dir: t.TempDir(), canary: filepath.Join(t.TempDir(), "canary")}, work: filepath.Join(t.TempDir(), "copy")}
	gitIn(t, r.dir, "init", "-q", "--object-format="+format)
	copyTree(t, treeState{"f": fileEntry("1\n", 0o644), "ci": fileEntry("c\n", 0o644)}, r.dir)
	gitIn(t, r.dir, "add", "-A")
	gitIn(t, r.dir, "commit", "-qm", "base")
	r.start(t)
	return r
}

// start takes the state of the host and makes the agent's copy.
func (r *agentRun) start(t testing.TB) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", r.dir, r.work).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v %s", err, out)
	}
	r.before = readTree(t, r.dir)
	r.cfg = CommitsConfig{RunDir: t.TempDir(), Target: r.dir, Protected: policy.Workspace{}.Protector().Tier, Branch: "agent/commits"}
}

// agent runs git in the copy, without the host's traps.
func (r *agentRun) agent(t testing.TB, args ...string) string {
	t.Helper()
	return strings.TrimSpace(gitIn(t, r.work, append([]string{"-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"}, args...)...))
}

func (r *agentRun) agentCommits(t testing.TB, path, content string) {
	t.Helper()
	at := filepath.Join(r.work, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, at, content)
	r.agent(t, "add", "-A")
	r.agent(t, "commit", "-qm", "agent: "+path)
}

// finish makes the change set of what the agent did.
func (r *agentRun) finish(t testing.TB) {
	t.Helper()
	cs := changesBetween(t, r.cfg.RunDir, r.before, readTree(t, r.work))
	cs.Base, cs.Head = r.dir, "refs/heads/main"
	cs.Commit = strings.TrimSpace(gitIn(t, r.dir, "rev-parse", "HEAD"))
	if err := (Gate{Protected: policy.Workspace{}.Protector().Tier, Project: r.dir}).Classify(cs); err != nil {
		t.Fatal(err)
	}
	if err := cs.Save(r.cfg.RunDir); err != nil {
		t.Fatal(err)
	}
}

func (r *agentRun) mustFetch(t testing.TB) CommitsResult {
	t.Helper()
	res, err := FetchCommits(t.Context(), r.cfg)
	if err != nil {
		t.Fatalf("fetch: %v, %+v", err, res)
	}
	return res
}

// tree is the host with its refs and without what a fetch may add.
func (r *agentRun) tree(t testing.TB) treeState {
	return readTree(t, r.dir, ".git/objects", ".git/refs/heads/agent", ".git/logs")
}

func TestFetchCommits(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		for _, how := range []string{"loose", "packed", "another branch", "detached"} {
			t.Run(format+" "+how, func(t *testing.T) {
				r := newAgentRun(t, format)
				if how == "another branch" {
					r.agent(t, "checkout", "-qb", "work/of-mine")
				}
				if how == "detached" {
					r.agent(t, "checkout", "-q", "--detach")
				}
				r.agentCommits(t, "f", "2\n")
				r.agentCommits(t, "dir/g", "new\n")
				if how == "packed" {
					r.agent(t, "gc", "-q")
				}
				tip := r.agent(t, "rev-parse", "HEAD")
				r.finish(t)
				trap(t, filepath.Join(r.dir, ".git"), r.canary)
				before := r.tree(t)
				res := r.mustFetch(t)
				if want := (CommitsResult{Branch: "agent/commits", Commit: tip, Count: 2}); !cmp.Equal(res, want) {
					t.Errorf("got %+v, want %+v", res, want)
				}
				if got := r.git(t, "rev-parse", "refs/heads/agent/commits"); got != tip {
					t.Errorf("branch is %s, want %s", got, tip)
				}
				if got := r.git(t, "log", "--format=%s", "agent/commits"); got != "agent: dir/g\nagent: f\nbase" {
					t.Errorf("log %q", got)
				}
				r.git(t, "fsck", "--strict")
				if d := cmp.Diff(r.tree(t), before); d != "" {
					t.Errorf("the repository (-got +want)\n%s", d)
				}
				r.wantQuiet(t)
				if _, err := FetchCommits(t.Context(), r.cfg); !errors.Is(err, ErrBranchExists) {
					t.Errorf("again: %v", err)
				}
			})
		}
	}
}

// Nothing of the agent's .git but objects and one ref is used, let alone executed.
func TestFetchCommitsTrustsNothing(t *testing.T) {
	r := newAgentRun(t, "sha1")
	r.agentCommits(t, "f", "2\n")
	git := filepath.Join(r.work, ".git")
	trap(t, git, r.canary)
	write(t, filepath.Join(git, "objects", "info", "alternates"), "/nonexistent/evil\n")
	write(t, filepath.Join(git, "shallow"), strings.Repeat("0", 40)+"\n")
	if err := errors.Join(os.MkdirAll(filepath.Join(git, "refs", "replace"), 0o755), os.MkdirAll(filepath.Join(git, "worktrees", "w"), 0o755)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(git, "config.worktree"), "[core]\n\tfsmonitor = touch "+r.canary+"\n")
	write(t, filepath.Join(git, "worktrees", "w", "gitdir"), "/etc\n")
	write(t, filepath.Join(git, "commondir"), "../../evil\n")
	write(t, filepath.Join(git, "objects", "pack", "pack-evil.pack"), "evil")
	write(t, filepath.Join(git, "objects", "zz"), "evil")
	r.finish(t)
	before := r.tree(t)
	r.mustFetch(t)
	if d := cmp.Diff(r.tree(t), before); d != "" {
		t.Errorf("the repository (-got +want)\n%s", d)
	}
	for _, evil := range []string{"objects/info/alternates", "objects/zz", "objects/pack/pack-evil.pack", "shallow", "commondir"} {
		if _, err := os.Lstat(filepath.Join(r.dir, ".git", evil)); err == nil {
			t.Errorf("%s came along", evil)
		}
	}
	r.wantQuiet(t)
}

func TestFetchCommitsRefusesProtectedPaths(t *testing.T) {
	r := newAgentRun(t, "sha1")
	r.agentCommits(t, ".github/workflows/ci.yml", "on: push\n")
	r.agent(t, "rm", "-q", ".github/workflows/ci.yml") // the last state does not show it
	r.agent(t, "commit", "-qm", "innocent")
	if err := os.Symlink("../../etc/passwd", filepath.Join(r.work, "out")); err != nil {
		t.Fatal(err)
	}
	r.agentCommits(t, ".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = https://example.org/x\n")
	r.finish(t)
	res, err := FetchCommits(t.Context(), r.cfg)
	var paths []string
	for _, refused := range res.Refused {
		paths = append(paths, refused.Path)
	}
	if !errors.Is(err, ErrRefused) || !slices.Equal(paths, []string{".github/workflows/ci.yml", "out"}) {
		t.Errorf("%v, %+v", err, res)
	}
	if got := r.git(t, "for-each-ref", "--format=%(refname)"); got != "refs/heads/main" {
		t.Errorf("refs %q", got)
	}
	r.cfg.AllowProtected = patterns(t, ".github/workflows/", "out")
	if res := r.mustFetch(t); res.Count != 3 || len(res.Warned) == 0 {
		t.Errorf("allowed: %+v", res)
	}
}

// What a merge brings in from the user's own branches is not the agent's doing; what it adds itself is.
func TestFetchCommitsLooksIntoMerges(t *testing.T) {
	for _, evil := range []bool{false, true} {
		r := newAgentRun(t, "sha1")
		r.git(t, "checkout", "-qb", "upstream")
		workflow := ".github/workflows/theirs.yml"
		if err := os.MkdirAll(filepath.Join(r.dir, ".github/workflows"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(r.dir, workflow), "on: push\n")
		r.git(t, "add", "-A")
		r.git(t, "commit", "-qm", "theirs")
		r.git(t, "checkout", "-q", "main")
		r.work = filepath.Join(t.TempDir(), "copy")
		r.start(t)
		r.agentCommits(t, "f", "2\n")
		r.agent(t, "merge", "-q", "--no-commit", "--no-ff", "upstream")
		if evil {
			write(t, filepath.Join(r.work, workflow), "on: push # and more\n")
			r.agent(t, "add", "-A")
		}
		r.agent(t, "commit", "-qm", "merge")
		r.finish(t)
		res, err := FetchCommits(t.Context(), r.cfg)
		if errors.Is(err, ErrRefused) != evil || (err != nil && !evil) {
			t.Errorf("evil=%v: %v, %+v", evil, err, res)
		}
		if !evil && res.Count != 2 {
			t.Errorf("%+v", res)
		}
	}
}

// What a submodule is at after the agent's commits may be a commit that nobody else has.
func TestFetchCommitsWarnsOfSubmodules(t *testing.T) {
	r := newAgentRun(t, "sha1")
	r.agent(t, "update-index", "--add", "--cacheinfo", "160000,"+r.agent(t, "rev-parse", "HEAD")+",mod")
	r.agent(t, "commit", "-qm", "agent: mod")
	r.finish(t)
	res := r.mustFetch(t)
	if len(res.Warned) != 1 || res.Warned[0].Path != "mod" || !strings.HasPrefix(res.Warned[0].Reason, "a submodule: ") {
		t.Errorf("warned of %+v, want of the submodule", res.Warned)
	}
}

func TestFetchCommitsNothingThere(t *testing.T) {
	r := newAgentRun(t, "sha1")
	write(t, filepath.Join(r.work, "f"), "changed, not committed\n")
	r.agent(t, "checkout", "-qb", "empty")
	r.finish(t)
	if _, err := FetchCommits(t.Context(), r.cfg); !errors.Is(err, ErrNothing) {
		t.Errorf("err %v", err)
	}
}

// An object whose content is not that of its name would show the gate another tree than the user gets.
func TestFetchCommitsRefusesForgedObjects(t *testing.T) {
	r := newAgentRun(t, "sha1")
	r.agentCommits(t, "f", "2\n")
	tree := r.agent(t, "rev-parse", "HEAD^{tree}")
	object := filepath.Join(r.work, ".git/objects", tree[:2], tree[2:])
	var forged bytes.Buffer
	z := zlib.NewWriter(&forged)
	fmt.Fprintf(z, "tree 0\x00")
	if err := errors.Join(z.Close(), os.Remove(object), os.WriteFile(object, forged.Bytes(), 0o444)); err != nil {
		t.Fatal(err)
	}
	r.finish(t)
	if _, err := FetchCommits(t.Context(), r.cfg); err == nil || !strings.Contains(err.Error(), "not that of its name") {
		t.Errorf("err %v", err)
	}
	if err := os.Remove(object); err != nil {
		t.Fatal(err)
	}
	r.cfg.RunDir = t.TempDir()
	r.finish(t)
	if _, err := FetchCommits(t.Context(), r.cfg); err == nil {
		t.Error("a missing tree: no error")
	}
	if got := r.git(t, "for-each-ref", "--format=%(refname)"); got != "refs/heads/main" {
		t.Errorf("refs %q", got)
	}
}

// git refuses what it would not check out safely: here a tree with an entry .git.
func TestFetchCommitsChecksObjects(t *testing.T) {
	r := newAgentRun(t, "sha1")
	blob := r.agent(t, "hash-object", "-w", "f")
	cmd := exec.CommandContext(t.Context(), "git", "mktree")
	cmd.Dir, cmd.Env = r.work, gitEnviron(t.TempDir())
	cmd.Stdin = strings.NewReader("100644 blob " + blob + "\t.GIT\n")
	tree, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	r.agent(t, "update-ref", "refs/heads/main", r.agent(t, "commit-tree", "-m", "evil", strings.TrimSpace(string(tree))))
	r.finish(t)
	r.cfg.AllowProtected = patterns(t, ".git", "*") // not even then
	if _, err := FetchCommits(t.Context(), r.cfg); err == nil || !strings.Contains(err.Error(), "hasDotgit") {
		t.Errorf("err %v", err)
	}
}

func TestFetchCommitsFromAShallowClone(t *testing.T) {
	origin := newAgentRun(t, "sha1")
	gitIn(t, origin.dir, "commit", "-q", "--allow-empty", "-m", "second")
	r := &agentRun{repoCase: repoCase{dir: filepath.Join(t.TempDir(), "clone")}, work: filepath.Join(t.TempDir(), "copy")}
	gitIn(t, origin.dir, "clone", "-q", "--depth=1", "file://"+origin.dir, r.dir)
	r.start(t)
	r.agentCommits(t, "f", "2\n")
	tip := r.agent(t, "rev-parse", "HEAD")
	r.finish(t)
	if res := r.mustFetch(t); res.Commit != tip || res.Count != 1 {
		t.Errorf("%+v", res)
	}
	if got := r.git(t, "rev-list", "--count", "agent/commits"); got != "2" {
		t.Errorf("%s commits", got)
	}
}

func TestFetchCommitsExplainsOtherLayouts(t *testing.T) {
	r := newAgentRun(t, "sha1")
	r.finish(t)
	worktree := filepath.Join(t.TempDir(), "linked")
	r.git(t, "worktree", "add", "-q", worktree, "HEAD")
	if err := os.Mkdir(filepath.Join(r.dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{worktree: "linked worktree or a submodule", filepath.Join(r.dir, "sub"): "above the project"} {
		r.cfg.Target = target
		_, err := FetchCommits(t.Context(), r.cfg)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "hint: ") {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// A HEAD or a ref that is no plain text is refused, in words that name it.
func TestFetchCommitsRefusesOddRefs(t *testing.T) {
	for _, tt := range []struct{ file, content string }{
		{"HEAD", "ref: refs/heads/../../../etc/passwd\n"},
		{"HEAD", "ref: ../evil\n"},
		{"HEAD", "garbage\n"},
		{"HEAD", strings.Repeat("x", 10_000)},
		{"refs/heads/main", "--upload-pack=evil\n"},
		{"refs/heads/main", "ref: refs/heads/main\n"},
		{"refs/heads/main", "deadbeef\n"},
		{"refs/heads/main", strings.Repeat("1", 40) + "\n"},
	} {
		r := newAgentRun(t, "sha1")
		write(t, filepath.Join(r.work, ".git", tt.file), tt.content)
		r.finish(t)
		if res, err := FetchCommits(t.Context(), r.cfg); err == nil {
			t.Errorf("%s %q: %+v", tt.file, tt.content, res)
		}
	}
}
