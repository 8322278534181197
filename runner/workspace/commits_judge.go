package workspace

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// judge looks at every path that the new commits touch, one by one: a protected file that is changed in one commit
// and changed back in the next is in the history all the same. Of a merge it sees what differs from all parents.
func (f *commitFetcher) judge(ctx context.Context, commits []string) error {
	touched, err := f.touched(ctx, commits)
	if err != nil {
		return err
	}
	gate := Gate{Protected: f.cfg.Protected, Project: f.cfg.Target}
	all := &ChangeSet{Version: Version, Base: f.cs.Base, Changes: touched}
	verdicts := map[string]verdict{}
	for i := range touched {
		v := verdicts[touched[i].Path]
		v.add(touched[i].Tier, touched[i].Reason)
		gate.judge(&v, &touched[i], f.cs.Base)
		verdicts[touched[i].Path] = v
	}
	all.Sort()
	all.Changes = slices.CompactFunc(all.Changes, func(a, b Change) bool { return a.Path == b.Path })
	for i := range all.Changes {
		v := verdicts[all.Changes[i].Path]
		all.Changes[i].Tier, all.Changes[i].Reason = v.tier, strings.Join(v.reasons, "; ")
	}
	if err := gate.Classify(all); err != nil { // what depends on the paths together
		return err
	}
	allow := newAllowance(f.cfg.AllowProtected)
	for i := range all.Changes {
		c := &all.Changes[i]
		switch {
		case (c.Tier == Reject || c.Git) && !allow.covers(c, f.cfg.Protected):
			f.res.Refused = append(f.res.Refused, Refusal{c.Path, refusalReason(c)})
		case c.Tier != NoTier:
			f.res.Warned = append(f.res.Warned, Refusal{c.Path, c.Reason})
		}
	}
	if n := len(f.res.Refused); n > 0 {
		return fmt.Errorf("the agent's commits touch %d of them: %w", n, ErrRefused)
	}
	return nil
}

// touched gives a change for each path and each state that a commit gives it. In a project that is not the top of its
// repository there are no commits, so the paths are the project's.
func (f *commitFetcher) touched(ctx context.Context, commits []string) ([]Change, error) {
	seen := map[string]bool{}
	var changes []Change
	var links []int // indexes in changes
	var ids strings.Builder
	ask := strings.NewReader(strings.Join(commits, "\n") + "\n")
	header := ""
	err := f.temp.git.records(ctx, ask, func(record string) error {
		if header == "" {
			header = record
			return nil
		}
		mode, id, err := parseRaw(header)
		header = ""
		if err != nil || seen[mode+id+record] {
			return err
		}
		if len(changes) >= MaxChanges {
			return fmt.Errorf("the commits touch more than %d paths", MaxChanges)
		}
		seen[mode+id+record] = true
		c := rawChange(mode, record)
		if err := checkPath(record); err != nil {
			return err
		}
		if c.New != nil && c.New.Type == Symlink {
			links = append(links, len(changes))
			ids.WriteString(id + "\n")
		}
		changes = append(changes, c)
		return nil
	}, "diff-tree", "--stdin", "--no-commit-id", "--raw", "-r", "-c", "--root", "--no-renames", "--no-abbrev", "--no-ext-diff", "--no-textconv", "-z")
	if err != nil || len(links) == 0 {
		return changes, err
	}
	err = f.temp.git.blobs(ctx, ids.String(), func(i int, content io.Reader) error {
		target, err := io.ReadAll(io.LimitReader(content, maxPath+1))
		changes[links[i]].New.Target = string(target)
		return err
	})
	return changes, err
}

// parseRaw reads the new mode and id from ":old new oldid newid status", or from the form with more colons
// that a merge has, one for each parent (git-diff-tree(1), "Raw output format").
func parseRaw(header string) (mode, id string, err error) {
	rest := strings.TrimLeft(header, ":")
	parents := len(header) - len(rest)
	fields := strings.Fields(rest)
	if parents == 0 || len(fields) != 2*(parents+1)+1 {
		return "", "", fmt.Errorf("git diff-tree: unexpected %q", header)
	}
	return fields[parents], fields[2*parents+1], nil
}

// rawChange is what the gate is to see of an entry of a tree.
func rawChange(mode, p string) Change {
	c := Change{Path: p, Kind: Added}
	switch mode {
	case "000000":
		return Change{Path: p, Kind: Deleted, Old: &Node{Type: File}}
	case "120000":
		c.New = &Node{Type: Symlink}
	case "100755":
		c.New = &Node{Type: File, Mode: 0o755}
	case "160000":
		c.New, c.Tier, c.Reason = &Node{Type: Dir}, Warn, "a submodule: the commit that it is at now may be the agent's own, and of a submodule none are fetched"
	default:
		c.New = &Node{Type: File, Mode: 0o644}
	}
	return c
}
