package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// ApplyConfig says what of a run to put into the host's project.
type ApplyConfig struct {
	// RunDir is the run directory, with changes.json and blobs. The journal of an apply under way lives here too. Required.
	RunDir string

	// Target is the host's project. Default: the change set's Base.
	Target string

	// Paths limits the apply to these files, and to everything below these directories; relative to the
	// project, slash-separated. A rename counts by either name. nil and "." take everything.
	Paths []string

	// Protected is that of Gate. Required.
	Protected func(path string) (policy.Tier, string)

	// AllowProtected names the changes of tier reject to apply all the same. What is inside .git needs a
	// pattern that says .git itself.
	AllowProtected []policy.Pattern

	// SkipProtected leaves out what is refused instead of refusing everything because of it.
	SkipProtected bool

	// Check stops before anything is changed: the result says what would be applied.
	Check bool

	// fault is called before each step. An error from it is one of that step; tests kill the process in it.
	fault func(step string) error

	// noSwap stands for a file system that can't let two paths change places. For tests.
	noSwap bool
}

// ApplyResult says what became of each selected change. All lists are sorted by path.
type ApplyResult struct {
	Applied   []string   // changed on the host now (or would be, with Check)
	Already   []string   // the host was already as the change set wants it
	Skipped   []Refusal  // left out: in .git, no file at all, a directory that is not empty, SkipProtected
	Refused   []Refusal  // tier reject and not allowed: nothing was applied
	Conflicts []Refusal  // changed on the host meanwhile: nothing was applied
	Recovered *Recovered // what was first done about an apply of this run that had been interrupted; nil for none
}

// AlreadyApplied reports whether there was nothing left to do.
func (r ApplyResult) AlreadyApplied() bool {
	return len(r.Applied) == 0 && len(r.Already) > 0 && len(r.Conflicts) == 0 && len(r.Refused) == 0
}

// Refusal is a path and why it was not applied.
type Refusal struct {
	Path   string
	Reason string
}

var (
	errBusy = errors.New("another apply is at work in this project")

	// ErrRefused is in the error of Apply, CommitToBranch and FetchCommits when a protected path was not allowed.
	// Their result has the list.
	ErrRefused = errors.New("protected paths are not allowed")

	// ErrConflict is in the error of Apply when the host's files are not what the run started from.
	// ApplyResult.Conflicts has the list.
	ErrConflict = errors.New("the host's files changed meanwhile")
)

// Apply puts a change set, or named paths of it, into the host's project: all of it or, with an error,
// nothing. Every file that it replaces must still be what the run started from. Contents are hashed again while they are
// staged, directories are never followed through symlinks, setuid, setgid and sticky bits are taken off. A process that
// dies in the middle leaves a journal, from which the next Apply or Recover puts everything back. Errors
// wrap ErrRefused, ErrConflict, ErrBlobDamaged and fs.ErrNotExist (no change set).
func Apply(ctx context.Context, cfg ApplyConfig) (ApplyResult, error) {
	var res ApplyResult
	cs, err := Load(cfg.RunDir)
	if err != nil {
		return res, err
	}
	if cfg.Target == "" {
		cfg.Target = cs.Base
	}
	tree, err := openTree(cfg.Target)
	if err != nil {
		return res, fmt.Errorf("apply: %w", err)
	}
	defer tree.Close()
	if err := lockDir(tree.top.file); err != nil {
		return res, fmt.Errorf("apply to %s: %w", cfg.Target, err)
	}
	if cfg.Check {
		err = noJournal(cfg.RunDir)
	} else {
		res.Recovered, err = recoverIn(cfg.RunDir, tree)
	}
	if err != nil {
		return res, fmt.Errorf("recover the interrupted apply: %w", err)
	}
	a := &applier{cfg: cfg, cs: cs, tree: tree, blobs: cs.Blobs(cfg.RunDir), res: &res, seen: map[string]fs.FileInfo{}}
	return res, a.run(ctx)
}

// applier is one apply.
type applier struct {
	cfg   ApplyConfig
	cs    *ChangeSet
	tree  *hostTree
	blobs Blobs
	res   *ApplyResult
	todo  []*Change // selected, allowed and not yet so on the host
	sel   selection

	// seen is what the check found at each path, nil for nothing. The steps are planned from it: what is
	// there later and isn't that is a conflict.
	seen map[string]fs.FileInfo
}

func (a *applier) run(ctx context.Context) error {
	if err := a.choose(); err != nil {
		return err
	}
	if err := a.checkAll(ctx); err != nil {
		return err
	}
	if a.cfg.Check || len(a.todo) == 0 {
		a.report()
		return nil
	}
	if err := a.carryOut(ctx); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	a.report()
	return nil
}

func (a *applier) report() {
	for _, c := range a.todo {
		a.res.Applied = append(a.res.Applied, c.Path)
	}
	slices.Sort(a.res.Applied)
}

// choose finds the changes to apply, by Paths and by tier.
func (a *applier) choose() error {
	sel, err := choose(a.cs, chooseConfig{
		project: a.cfg.Target, paths: a.cfg.Paths, protected: a.cfg.Protected, allow: a.cfg.AllowProtected, skip: a.cfg.SkipProtected,
	})
	a.sel, a.todo = sel, sel.take
	a.res.Skipped, a.res.Refused = sel.skipped, sel.refused
	return err
}

// chooseConfig is what Apply and CommitToBranch choose changes by.
type chooseConfig struct {
	project   string
	paths     []string
	protected func(path string) (policy.Tier, string)
	allow     []policy.Pattern
	skip      bool
}

// selection is what was chosen of a change set.
type selection struct {
	take    []*Change
	skipped []Refusal
	refused []Refusal
}

// choose classifies the set anew and splits it up. Its error wraps ErrRefused, or says that a path has no change.
func choose(cs *ChangeSet, cfg chooseConfig) (selection, error) {
	var sel selection
	if err := (Gate{Protected: cfg.protected, Project: cfg.project}).Classify(cs); err != nil {
		return sel, err
	}
	named, err := namedChanges(cs, cfg.paths)
	if err != nil {
		return sel, err
	}
	allow := newAllowance(cfg.allow)
	for i := range cs.Changes {
		c := &cs.Changes[i]
		if !named[i] {
			continue
		}
		switch {
		case isOther(c.Old) || isOther(c.New):
			sel.skipped = append(sel.skipped, Refusal{c.Path, "a FIFO, socket or device is never applied"})
		case c.Git && !allow.covers(c, cfg.protected) && !slices.ContainsFunc(cfg.paths, inGit):
			sel.skipped = append(sel.skipped, Refusal{c.Path, "inside .git"})
		case (c.Git || c.Tier == Reject) && !allow.covers(c, cfg.protected):
			sel.refused = append(sel.refused, Refusal{c.Path, refusalReason(c)})
		default:
			sel.take = append(sel.take, c)
		}
	}
	if cfg.skip {
		sel.skipped, sel.refused = append(sel.skipped, sel.refused...), nil
		slices.SortFunc(sel.skipped, byPath)
	}
	if len(sel.refused) > 0 {
		return sel, fmt.Errorf("%d of the changes: %w", len(sel.refused), ErrRefused)
	}
	return sel, nil
}

func isOther(n *Node) bool { return n != nil && n.Type == Other }

func byPath(a, b Refusal) int { return strings.Compare(a.Path, b.Path) }

func refusalReason(c *Change) string {
	if c.Reason == "" {
		return "inside .git"
	}
	return c.Reason
}

// namedChanges marks the changes that paths name, with the directories that those need.
func namedChanges(cs *ChangeSet, paths []string) ([]bool, error) {
	named := make([]bool, len(cs.Changes))
	if paths == nil {
		for i := range named {
			named[i] = true
		}
		return named, nil
	}
	for _, raw := range paths {
		p, found := path.Clean(raw), false
		for i := range cs.Changes {
			c := &cs.Changes[i]
			if under(p, c.Path) || (c.From != "" && under(p, c.From)) {
				named[i], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("the run changed nothing at %q", raw)
		}
	}
	addParents(cs, named)
	return named, nil
}

// under reports whether p is dir or below it.
func under(dir, p string) bool {
	return dir == "." || p == dir || strings.HasPrefix(p, dir+"/")
}

// addParents marks the directories that the agent made and that marked changes lie in.
func addParents(cs *ChangeSet, named []bool) {
	index := make(map[string]int)
	for i := range cs.Changes {
		if n := cs.Changes[i].New; n != nil && n.Type == Dir {
			index[cs.Changes[i].Path] = i
		}
	}
	for i := range cs.Changes {
		if !named[i] || cs.Changes[i].New == nil {
			continue
		}
		for d := path.Dir(cs.Changes[i].Path); d != "."; d = path.Dir(d) {
			if j, ok := index[d]; ok {
				named[j] = true
			}
		}
	}
}

// allowance holds the patterns of --allow-protected.
type allowance struct {
	all, git *policy.PatternSet
}

func newAllowance(patterns []policy.Pattern) allowance {
	var git []policy.Pattern
	for _, p := range patterns {
		if inGit(strings.TrimPrefix(p.String(), "!")) {
			git = append(git, p)
		}
	}
	return allowance{all: policy.NewPatternSet(patterns), git: policy.NewPatternSet(git)}
}

// covers reports whether every protected name of a change is allowed: both of a rename.
func (a allowance) covers(c *Change, protected func(string) (policy.Tier, string)) bool {
	isDir := c.New != nil && c.New.Type == Dir
	if !a.allows(c.Path, isDir) {
		return false
	}
	if c.From == "" {
		return true
	}
	tier, _ := protected(c.From)
	return (tier != policy.TierReject && !inGit(c.From)) || a.allows(c.From, false)
}

func (a allowance) allows(p string, isDir bool) bool {
	if inGit(p) {
		return a.git.Match(p, isDir)
	}
	return a.all.Match(p, isDir)
}

// Discard removes a run's change data: changes.json, changes.patch and the blobs. It refuses while an interrupted
// apply still needs them, see Recover.
func Discard(runDir string) error {
	if err := noJournal(runDir); err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	var errs []error
	for _, name := range []string{ChangesFile, PatchFile, BlobsDir} {
		errs = append(errs, os.RemoveAll(filepath.Join(runDir, name)))
	}
	return errors.Join(errs...)
}

// noJournal returns an error when an apply of the run was interrupted.
func noJournal(runDir string) error {
	if _, err := os.Lstat(journalPath(runDir)); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, errors.New("an apply of this run was interrupted\nhint: apply it again, or run `agent-sandbox doctor --clean`"))
	}
	return nil
}
