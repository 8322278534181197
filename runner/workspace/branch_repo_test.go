package workspace

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestCommitToBranchRefusesDamagedBlobs(t *testing.T) {
	r, cfg := branchCase(t, "sha1", treeState{"f": fileEntry("1\n", 0o644)}, treeState{"f": fileEntry("good", 0o644)})
	write(t, filepath.Join(cfg.RunDir, BlobsDir, hashString("good")), "evil")
	if _, err := CommitToBranch(t.Context(), cfg); !errors.Is(err, ErrBlobDamaged) {
		t.Errorf("err %v", err)
	}
	if got := r.git(t, "for-each-ref", "--format=%(refname)"); got != "refs/heads/main" {
		t.Errorf("refs %q", got)
	}
}

// A branch that somebody makes after the check is not moved.
func TestPublishNeverMovesABranch(t *testing.T) {
	r := newRepo(t, "sha1", treeState{"f": fileEntry("1\n", 0o644)})
	scratch := t.TempDir()
	git, err := newGitCmd(scratch)
	if err != nil {
		t.Skip(err)
	}
	user, err := openRepo(t.Context(), git, r.dir)
	if err != nil {
		t.Fatal(err)
	}
	temp, err := newTempRepo(git, scratch, user)
	if err != nil {
		t.Fatal(err)
	}
	first := r.git(t, "rev-parse", "HEAD")
	r.git(t, "commit", "-q", "--allow-empty", "-m", "second")
	second := r.git(t, "rev-parse", "HEAD")
	if err := temp.publish(t.Context(), user, first, "main", "note"); err == nil {
		t.Error("no error")
	}
	if got := r.git(t, "rev-parse", "main"); got != second {
		t.Errorf("main is %s, was %s", got, second)
	}
}
