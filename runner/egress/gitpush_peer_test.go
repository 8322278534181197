package egress

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReadPushAgainstGit: of a body that is let through, git itself changes no ref that was not read of it. The bodies are commands that
// delete, with everything around them that could make one reader see what the other doesn't.
func TestReadPushAgainstGit(t *testing.T) {
	needs(t, "git")
	dir := t.TempDir()
	repo := filepath.Join(dir, "repo.git")
	git(t, dir, "init", "-q", "--bare", repo)
	tree := strings.TrimSpace(git(t, repo, "hash-object", "-t", "tree", "-w", "/dev/null"))
	commit := strings.TrimSpace(git(t, repo, "commit-tree", "-m", "x", tree))
	refs := []string{"refs/heads/a", "refs/heads/b", "refs/heads/main"}
	for _, key := range []string{"receive.denyDeleteCurrent", "receive.denyDeletes"} {
		git(t, repo, "config", key, "false")
	}
	git(t, repo, "config", "receive.advertisePushOptions", "true")
	r := rand.New(rand.NewPCG(1, 2))
	removed := func(ref string) string { return commit + " " + strings.Repeat("0", 40) + " " + ref }
	pieces := []func() string{
		func() string { return pkts(removed(refs[r.IntN(3)])) },
		func() string { return pkts(removed(refs[r.IntN(3)]) + "\x00 report-status delete-refs push-options") },
		func() string { return pkts(removed(refs[r.IntN(3)]) + "\n") },
		func() string { return pkts(removed(refs[r.IntN(3)]) + "\n" + removed(refs[2]) + "\x00 report-status") },
		func() string { return pkts(removed(refs[0]) + "\x00report-status\x00" + refs[2]) },
		func() string { return pkts("shallow " + commit) },
		func() string {
			return pkts("push-cert\x00 report-status", "certificate version 0.1\n", "\n", removed(refs[2])+"\n", "push-cert-end\n")
		},
		func() string {
			return []string{"0000", "0001", "0002", "0004", "00", "+005x", "0005x", "PACK", "\n"}[r.IntN(9)]
		},
		func() string { return "0000" },
	}
	let, changed := 0, 0
	for _, ref := range refs {
		git(t, repo, "update-ref", ref, commit)
	}
	for range 400 {
		var body strings.Builder
		body.WriteString(pieces[1+4*r.IntN(2)]())
		for range r.IntN(5) {
			body.WriteString(pieces[r.IntN(len(pieces))]())
		}
		body.WriteString("0000")
		p, err := readPush(strings.NewReader(body.String()))
		if err != nil {
			continue
		}
		let++
		cmd := gitCommand(dir, "receive-pack", "--stateless-rpc", repo)
		cmd.Stdin = bytes.NewReader([]byte(body.String()))
		_, _ = cmd.CombinedOutput() // what it says of the rest is its own affair
		left := git(t, repo, "for-each-ref", "--format=%(refname)")
		for _, ref := range refs {
			if strings.Contains(left, ref+"\n") {
				continue
			}
			changed++
			git(t, repo, "update-ref", ref, commit)
			if !slices.Contains(p.refs, ref) {
				t.Errorf("git changed %s, and %q was read of %q", ref, p.refs, body.String())
			}
		}
	}
	if let < 20 || changed < 20 {
		t.Errorf("%d bodies were let through, and git changed %d refs: the test proves nothing", let, changed)
	}
}
