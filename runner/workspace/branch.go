package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
)

// BranchConfig says what to put on which branch.
type BranchConfig struct {
	// RunDir, Target, Paths, Protected, AllowProtected and SkipProtected are those of ApplyConfig.
	RunDir         string
	Target         string
	Paths          []string
	Protected      func(path string) (policy.Tier, string)
	AllowProtected []policy.Pattern
	SkipProtected  bool

	// Branch is the name of the new branch, without refs/heads/. Required.
	Branch string

	// Base is the commit to build on, a full id. Default: the change set's Commit, HEAD when the run started.
	// Without either the commit gets no parent.
	Base string

	// Message is the commit message without our trailer. Default: a line that names the run.
	Message string

	// Manifest is the digest of the run's manifest, such as sha256:..., for a trailer. Default: none.
	Manifest string

	// Author and Committer of the commit. Default author: agent-sandbox. Default committer: user.name and
	// user.email of the user's git configuration, else agent-sandbox.
	Author, Committer Identity

	// Now is the date of the commit. Default: the present.
	Now time.Time

	// IncludeIgnored takes new files that the project's .gitignore names. They are left out otherwise, as by git add.
	IncludeIgnored bool
}

// Identity is who made a commit.
type Identity struct{ Name, Email string }

const defaultEmail = "agent-sandbox@localhost"

// Keys of the trailers of a commit message that name the run, and the manifest of it.
const (
	RunTrailer      = "Agent-Sandbox-Run"
	ManifestTrailer = "Agent-Sandbox-Manifest"
)

// BranchResult says what became of the changes. The lists are sorted by path.
type BranchResult struct {
	Branch  string
	Commit  string    // its id
	Applied []string  // in the commit
	Skipped []Refusal // in .git, ignored, inside a submodule, no file at all, SkipProtected; directories are not listed
	Refused []Refusal // tier reject and not allowed: no branch was made

	// Mixed are files that had uncommitted changes when the run started: the commit holds those too.
	Mixed []string
}

// ErrNothing is in the error of CommitToBranch and FetchCommits when there is nothing for a branch.
var ErrNothing = errors.New("nothing to put on a branch")

// CommitToBranch puts a change set, or named paths of it, on a new branch as one commit. It touches neither the
// work tree nor the index, runs no hook and no filter, and never moves a branch. Empty directories and modes
// beyond the executable bit have no place in git. Errors wrap ErrRefused, ErrBranchExists, ErrNothing, ErrNoRepo, ErrNoGit,
// ErrBlobDamaged and fs.ErrNotExist (no change set).
func CommitToBranch(ctx context.Context, cfg BranchConfig) (res BranchResult, err error) {
	cs, err := Load(cfg.RunDir)
	if err != nil {
		return res, err
	}
	if cfg.Target == "" {
		cfg.Target = cs.Base
	}
	sel, err := choose(cs, chooseConfig{project: cfg.Target, paths: cfg.Paths, protected: cfg.Protected, allow: cfg.AllowProtected, skip: cfg.SkipProtected})
	res.Branch, res.Skipped, res.Refused = cfg.Branch, sel.skipped, sel.refused
	if err != nil {
		return res, err
	}
	scratch, err := newScratch(cfg.RunDir)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	b := &branchMaker{cfg: cfg, cs: cs, blobs: cs.Blobs(cfg.RunDir), res: &res, scratch: scratch}
	if err := b.open(ctx); err != nil {
		return res, fmt.Errorf("branch %s: %w", cfg.Branch, err)
	}
	defer b.host.Close()
	if err := b.make(ctx, sel.take); err != nil {
		return res, fmt.Errorf("branch %s: %w", cfg.Branch, err)
	}
	return res, nil
}

// branchMaker builds one commit.
type branchMaker struct {
	cfg     BranchConfig
	cs      *ChangeSet
	blobs   Blobs
	res     *BranchResult
	scratch string
	user    *userRepo
	temp    *tempRepo
	host    *hostTree
}

func (b *branchMaker) open(ctx context.Context) error {
	git, err := newGitCmd(b.scratch)
	if err != nil {
		return err
	}
	if b.user, err = openRepo(ctx, git, b.cfg.Target); err != nil {
		return err
	}
	if b.cfg.Branch != "" { // one is always named but for a tree alone
		if err := b.user.checkBranch(ctx, b.cfg.Branch); err != nil {
			return err
		}
	}
	if b.temp, err = newTempRepo(git, b.scratch, b.user); err != nil {
		return err
	}
	if b.cfg.Base == "" {
		b.cfg.Base = b.cs.Commit
	}
	if b.cfg.Base != "" && !b.user.validID(b.cfg.Base) {
		return fmt.Errorf("base %q is not a commit id", b.cfg.Base)
	}
	b.host, err = openTree(b.cfg.Target)
	return err
}

func (b *branchMaker) make(ctx context.Context, changes []*Change) error {
	before, tree, changes, err := b.tree(ctx, changes)
	if err != nil {
		return err
	}
	if tree == before {
		return ErrNothing
	}
	if b.res.Commit, err = b.commit(ctx, tree); err != nil {
		return err
	}
	if err := b.temp.publish(ctx, b.user, b.res.Commit, b.cfg.Branch, "agent-sandbox: changes of run "+b.cs.Run); err != nil {
		return err
	}
	for _, c := range changes {
		b.res.Applied = append(b.res.Applied, c.Path)
	}
	slices.SortFunc(b.res.Skipped, byPath)
	return nil
}

// tree gives the ids of the base's tree and of the one with the changes, and those that are in it.
func (b *branchMaker) tree(ctx context.Context, changes []*Change) (before, after string, taken []*Change, err error) {
	file := "GIT_INDEX_FILE=" + b.scratch + string(os.PathSeparator) + "index"
	index, writer := b.temp.git.with(file), b.temp.writer.with(file)
	write := []string{"write-tree"}
	if b.temp.lent { // the writer can't see what is the user's
		write = append(write, "--missing-ok")
	}
	if b.cfg.Base != "" {
		if _, err := index.run(ctx, nil, "read-tree", b.cfg.Base); err != nil {
			return "", "", nil, fmt.Errorf("the commit that the run started from can't be read: %w", err)
		}
	}
	if before, err = writer.line(ctx, write...); err != nil {
		return "", "", nil, err
	}
	if taken, err = b.leaveOut(ctx, index, changes); err != nil {
		return "", "", nil, err
	}
	entries, err := b.store(ctx, taken)
	if err != nil {
		return "", "", nil, err
	}
	if err := b.findMixed(ctx, index, taken); err != nil {
		return "", "", nil, err
	}
	if _, err := index.run(ctx, strings.NewReader(entries), "update-index", "-z", "--index-info"); err != nil {
		return "", "", nil, err
	}
	after, err = writer.line(ctx, write...)
	return before, after, taken, err
}

func (b *branchMaker) commit(ctx context.Context, tree string) (string, error) {
	if err := checkRunID(b.cs.Run); err != nil {
		return "", err
	}
	author, committer := b.cfg.Author, b.cfg.Committer
	if committer == (Identity{}) {
		committer = b.userIdentity(ctx)
	}
	if author == (Identity{}) {
		author = Identity{"agent-sandbox", defaultEmail}
	}
	now := b.cfg.Now
	if now.IsZero() {
		now = time.Now()
	}
	date := fmt.Sprintf("@%d +0000", now.Unix())
	git := b.temp.git.with(
		"GIT_AUTHOR_NAME="+author.Name, "GIT_AUTHOR_EMAIL="+author.Email, "GIT_AUTHOR_DATE="+date,
		"GIT_COMMITTER_NAME="+committer.Name, "GIT_COMMITTER_EMAIL="+committer.Email, "GIT_COMMITTER_DATE="+date)
	args := []string{"commit-tree", tree}
	if b.cfg.Base != "" {
		args = append(args, "-p", b.cfg.Base)
	}
	out, err := git.run(ctx, strings.NewReader(b.message()), append(args, "-F", "-")...)
	return strings.TrimSuffix(out, "\n"), err
}

func (b *branchMaker) message() string {
	m := strings.TrimRight(b.cfg.Message, " \n")
	if m == "" {
		m = "Changes of agent-sandbox run " + b.cs.Run
	}
	m += "\n\n" + RunTrailer + ": " + b.cs.Run + "\n"
	if b.cfg.Manifest != "" {
		m += ManifestTrailer + ": " + b.cfg.Manifest + "\n"
	}
	return m
}

// checkRunID keeps a run's id from being more than one line of a message.
func checkRunID(id string) error {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if id == "" || len(id) > 128 || strings.Trim(id, plain) != "" {
		return fmt.Errorf("the change set names the run %q", id)
	}
	return nil
}

// userIdentity asks the user's own configuration. Reading a setting runs nothing.
func (b *branchMaker) userIdentity(ctx context.Context) Identity {
	git := *b.user.git
	git.as, git.asks = nil, true
	name, errName := git.line(ctx, "config", "--get", "user.name")
	email, errEmail := git.line(ctx, "config", "--get", "user.email")
	if errName != nil || errEmail != nil || name == "" || email == "" {
		return Identity{"agent-sandbox", defaultEmail}
	}
	return Identity{name, email}
}
