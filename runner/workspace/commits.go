package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// CommitsConfig says which of the agent's own commits to fetch, and to where.
type CommitsConfig struct {
	// RunDir, Target, Protected and AllowProtected are those of ApplyConfig.
	RunDir         string
	Target         string
	Protected      func(path string) (policy.Tier, string)
	AllowProtected []policy.Pattern

	// Branch is the name of the new branch, without refs/heads/. Required.
	Branch string

	// Ref is what the agent committed to, such as refs/heads/work. Default: what its HEAD names.
	Ref string
}

// CommitsResult says what was fetched.
type CommitsResult struct {
	Branch  string
	Commit  string    // the agent's last commit
	Count   int       // commits that the user's repository did not have
	Warned  []Refusal // what they touch of tier warn, sorted by path
	Refused []Refusal // what they touch of tier reject and that is not allowed: nothing was fetched
}

const (
	maxCommits  = 10_000   // commits of one run
	maxRefFile  = 4 << 10  // a ref, HEAD
	maxPacked   = 16 << 20 // packed-refs
	maxInflated = 8 << 30  // all loose objects
)

// FetchCommits makes a branch of the commits that the agent made itself. Of the agent's .git it takes the objects and
// the one ref, nothing else: not its config, hooks, attributes, alternates, worktrees or submodules. The objects go into a
// temporary repository of ours, each under the id that its content has; git checks them once more on the way into
// the user's repository. Commits that touch paths of tier reject are refused unless allowed. Errors wrap ErrRefused,
// ErrBranchExists, ErrNothing, ErrNoRepo, ErrNoGit, ErrBlobDamaged and fs.ErrNotExist (no change set).
func FetchCommits(ctx context.Context, cfg CommitsConfig) (res CommitsResult, err error) {
	cs, err := Load(cfg.RunDir)
	if err != nil {
		return res, err
	}
	if cfg.Target == "" {
		cfg.Target = cs.Base
	}
	if cfg.Protected == nil {
		return res, errors.New("fetch commits: no protected paths given")
	}
	scratch, err := newScratch(cfg.RunDir)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	res.Branch = cfg.Branch
	f := &commitFetcher{cfg: cfg, cs: cs, res: &res, scratch: scratch, blobs: cs.Blobs(cfg.RunDir), inflatable: maxInflated}
	if err := f.open(ctx); err != nil {
		return res, fmt.Errorf("fetch the agent's commits: %w", err)
	}
	defer f.host.Close()
	if err := f.fetch(ctx); err != nil {
		return res, fmt.Errorf("fetch the agent's commits: %w", err)
	}
	return res, nil
}

// commitFetcher is one fetch.
type commitFetcher struct {
	cfg     CommitsConfig
	cs      *ChangeSet
	res     *CommitsResult
	scratch string
	blobs   Blobs
	user    *userRepo
	temp    *tempRepo
	host    *hostTree

	inflatable int64 // bytes that loose objects may still have
}

func (f *commitFetcher) open(ctx context.Context) error {
	git, err := newGitCmd(f.scratch)
	if err != nil {
		return err
	}
	if f.user, err = openRepo(ctx, git, f.cfg.Target); err != nil {
		return err
	}
	if err := f.checkLayout(); err != nil {
		return err
	}
	if err := f.user.checkBranch(ctx, f.cfg.Branch); err != nil {
		return err
	}
	if f.temp, err = newTempRepo(git, f.scratch, f.user); err != nil {
		return err
	}
	f.host, err = openTree(f.cfg.Target)
	return err
}

// checkLayout explains why there can be no commits where the repository is not in the project.
func (f *commitFetcher) checkLayout() error {
	info, err := os.Lstat(filepath.Join(f.cfg.Target, ".git"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("the repository lies above the project, where the agent could not commit\nhint: run with --workspace set to the top of the repository, or use `agent-sandbox apply --branch` without --commits")
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New("the project is a linked worktree or a submodule: its .git is a file that points outside the project, so the agent could not commit\nhint: run in the main worktree, or use `agent-sandbox apply --branch` without --commits")
	}
	if _, err := os.Lstat(filepath.Join(f.user.common, "reftable")); err == nil {
		return errors.New("the repository keeps its refs in a reftable, which is not supported\nhint: use `agent-sandbox apply --branch` without --commits")
	}
	return nil
}

func (f *commitFetcher) fetch(ctx context.Context) error {
	tip, err := f.agentTip()
	if err != nil {
		return err
	}
	if tip == "" || tip == f.cs.Commit {
		return fmt.Errorf("%s: %w", f.cs.noCommits(), ErrNothing)
	}
	if err := f.copyObjects(ctx); err != nil {
		return err
	}
	// "tip^{commit}" is not asked for: a tag as a branch would be one more thing to follow.
	kind, err := f.temp.git.line(ctx, "cat-file", "-t", tip)
	if err != nil || kind != "commit" {
		return errors.Join(fmt.Errorf("the agent's %s is not a commit that can be read", tip), err)
	}
	commits, err := f.newCommits(ctx, tip)
	if err != nil {
		return err
	}
	if len(commits) == 0 {
		return fmt.Errorf("the agent's last commit is in the repository already: %w", ErrNothing)
	}
	if err := f.judge(ctx, commits); err != nil {
		return err
	}
	if err := checkRunID(f.cs.Run); err != nil {
		return err
	}
	if err := f.temp.publish(ctx, f.user, tip, f.cfg.Branch, "agent-sandbox: commits of run "+f.cs.Run); err != nil {
		return err
	}
	f.res.Commit, f.res.Count = tip, len(commits)
	return nil
}

// newCommits lists what the tip has and no ref of the user does.
func (f *commitFetcher) newCommits(ctx context.Context, tip string) ([]string, error) {
	refs, err := f.user.git.run(ctx, nil, "for-each-ref", "--format=^%(objectname)")
	if err != nil {
		return nil, err
	}
	ask := tip + "\n" + refs
	if f.cs.Commit != "" && f.user.validID(f.cs.Commit) {
		ask += "^" + f.cs.Commit + "\n"
	}
	out, err := f.temp.git.run(ctx, strings.NewReader(ask), "rev-list", "--ignore-missing", fmt.Sprintf("--max-count=%d", maxCommits+1), "--stdin")
	if err != nil {
		return nil, err
	}
	commits := strings.Fields(out)
	if len(commits) > maxCommits {
		return nil, fmt.Errorf("the agent made more than %d commits", maxCommits)
	}
	return commits, nil
}
