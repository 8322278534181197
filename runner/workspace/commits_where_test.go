package workspace

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The first commit of all has no parent, and no repository of the user's that knows any.
func TestFetchCommitsOfAnEmptyRepository(t *testing.T) {
	r := &agentRun{repoCase: repoCase{dir: t.TempDir(), canary: filepath.Join(t.TempDir(), "canary")}, work: filepath.Join(t.TempDir(), "copy")}
	gitIn(t, r.dir, "init", "-q")
	r.start(t)
	if cs := changesBetween(t, t.TempDir(), r.before, readTree(t, r.work)); cs.Committed() {
		t.Error("nothing was committed yet, and it is told so")
	}
	r.agentCommits(t, "f", "1\n")
	tip := r.agent(t, "rev-parse", "HEAD")
	cs := changesBetween(t, r.cfg.RunDir, r.before, readTree(t, r.work))
	cs.Base, cs.Head = r.dir, strings.TrimSpace(gitIn(t, r.dir, "symbolic-ref", "HEAD"))
	if err := cs.Save(r.cfg.RunDir); err != nil {
		t.Fatal(err)
	}
	if !cs.Committed() {
		t.Error("the commit is not told of")
	}
	if got, want := r.mustFetch(t), (CommitsResult{Branch: "agent/commits", Commit: tip, Count: 1}); !cmp.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What was committed in a submodule alone is not fetched: that is said, and not that there are no commits.
func TestFetchCommitsNamesTheSubmodule(t *testing.T) {
	cs := ChangeSet{Changes: []Change{{Path: ".git/modules/lib/x/logs/HEAD"}, {Path: ".git/modules/lib/x/refs/heads/main"}}}
	if got := cs.noCommits(); !strings.Contains(got, `in the submodule "lib/x"`) || cs.Committed() {
		t.Errorf("%s; committed %v", got, cs.Committed())
	}
	if got := (&ChangeSet{}).noCommits(); got != "the agent made no commits" {
		t.Error(got)
	}
}
