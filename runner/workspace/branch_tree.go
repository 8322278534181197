package workspace

import (
	"context"
	"errors"
	"os"
)

// ErrNoBase is in the error of ResultTree for a run that started from no commit.
var ErrNoBase = errors.New("the run started from no commit")

// ResultTree is the id of the git tree that the commit which the run started from has with all of its changes: the one that
// CommitToBranch commits if no change is refused. What that leaves out is not in it. Nothing is written but below runDir.
func ResultTree(ctx context.Context, runDir string, cs *ChangeSet) (id string, err error) {
	if cs.Commit == "" {
		return "", ErrNoBase
	}
	var take []*Change
	for i := range cs.Changes {
		if c := &cs.Changes[i]; !c.Git && !isOther(c.Old) && !isOther(c.New) {
			take = append(take, c)
		}
	}
	scratch, err := newScratch(runDir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	b := &branchMaker{cfg: BranchConfig{RunDir: runDir, Target: cs.Base}, cs: cs, blobs: cs.Blobs(runDir), res: &BranchResult{}, scratch: scratch}
	if err := b.open(ctx); err != nil {
		return "", err
	}
	defer b.host.Close()
	if err := b.temp.lend(b.user); err != nil {
		return "", err
	}
	_, id, _, err = b.tree(ctx, take)
	return id, err
}
