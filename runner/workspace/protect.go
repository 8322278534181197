package workspace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// Gate decides how careful somebody must be with each change. It is asked at extraction, after the agent has
// stopped, and again by Apply and the commits: what a change set says of itself only ever adds to that.
type Gate struct {
	// Protected says which tier a path has and why: the Tier method of policy.Workspace.Protector, which has
	// the default table and the policy file's own patterns. Required, so that forgetting it is an error. It is
	// called on all processors at once.
	Protected func(path string) (policy.Tier, string)

	// Project is the host's directory, in whose directories names are looked up that differ from a new one
	// only by case. Required.
	Project string
}

// Classify sets Tier, Reason and Git of every change. A tier that a change already has is never lowered.
// An error means that nothing may be said about the set.
func (g Gate) Classify(cs *ChangeSet) error {
	if g.Protected == nil {
		return errors.New("classify changes: no protected paths given")
	}
	root, err := os.OpenRoot(g.Project)
	if err != nil {
		return fmt.Errorf("classify changes: %w", err)
	}
	defer root.Close()
	taken, err := takenBy(root, cs)
	if err != nil {
		return fmt.Errorf("classify changes: %w", err)
	}
	bare := bareRepos(root, cs)
	share(cs.Changes, func(part []Change) {
		for i := range part {
			g.classify(&part[i], cs.Base, taken, bare)
		}
	})
	return nil
}

// classify judges one change. What is known of the others is only read.
func (g Gate) classify(c *Change, base string, taken takenNames, bare bareDirs) {
	v := verdict{tier: c.Tier}
	if c.Reason != "" {
		v.reasons = strings.Split(c.Reason, "; ")
	}
	g.judge(&v, c, base)
	if c.New != nil && taken.collides(c.Path) {
		v.add(Warn, "another name here differs only by case: one file on macOS and Windows")
	}
	if bare.governs(c) {
		v.add(Reject, "makes its directory a git repository, whose configuration git obeys in there")
	}
	c.Tier, c.Reason = v.tier, strings.Join(v.reasons, "; ")
	c.Git = inGit(c.Path) || (c.From != "" && inGit(c.From))
}

// verdict collects the reasons of the highest tier found so far.
type verdict struct {
	tier    Tier
	reasons []string
}

func (v *verdict) add(t Tier, reason string) {
	if t == NoTier || (t == Warn && v.tier == Reject) {
		return
	}
	if t != v.tier {
		v.tier, v.reasons = t, nil
	}
	for _, r := range v.reasons {
		if r == reason {
			return
		}
	}
	v.reasons = append(v.reasons, reason)
}

func (g Gate) judge(v *verdict, c *Change, base string) {
	g.judgePath(v, c.Path)
	if c.From != "" {
		g.judgePath(v, c.From)
	}
	if c.New == nil {
		return
	}
	if c.Old == nil || c.From != "" {
		judgeName(v, c.Path)
	}
	judgeNode(v, c)
	if c.New.Type == Symlink && (c.Old == nil || c.Old.Target != c.New.Target) {
		judgeTarget(v, c.Path, c.New.Target, base)
	}
}

// judgePath looks the path up. Protected sees through the names that macOS and Windows fold.
func (g Gate) judgePath(v *verdict, p string) {
	switch tier, reason := g.Protected(p); tier {
	case policy.TierNone:
	case policy.TierWarn:
		v.add(Warn, reason)
	default: // an unknown tier is treated as the strictest
		v.add(Reject, reason)
	}
	for name := range strings.SplitSeq(p, "/") {
		if name != ".git" && isGitName(name) {
			v.add(Reject, "macOS or Windows takes the name "+printable(name)+" for .git")
		}
	}
}

func judgeNode(v *verdict, c *Change) {
	n := c.New
	fresh := n.Mode
	if c.Old != nil && c.Old.Type == n.Type {
		fresh &^= c.Old.Mode
	}
	// A directory inherits setgid from the one above on many hosts: nothing that the agent did.
	if n.Type == File && fresh&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		v.add(Reject, "setuid or setgid bit (apply takes it off)")
	}
	if n.Type == File && fresh&0o111 != 0 && inCI(c.Path) {
		v.add(Warn, "executable in a directory that CI runs from")
	}
	if n.Type == Other {
		v.add(Warn, "a FIFO, socket or device: never applied")
	}
}

// inCI reports whether a path lies where CI systems and their scripts usually run programs from.
func inCI(p string) bool {
	first, _, found := strings.Cut(strings.ToLower(p), "/")
	switch first {
	case ".github", ".gitlab", ".circleci", ".buildkite", ".ci", "ci", ".azure-pipelines":
		return found
	}
	return false
}

// judgeTarget looks at a symlink. Everything is decided on the text of the target, because the tree can
// change after the check: a target that climbs after it has gone down is refused, since the name that it
// goes down through may itself be a link.
func judgeTarget(v *verdict, link, target, base string) {
	if hasControl(target) {
		v.add(Warn, "symlink target with control characters")
	}
	rest := target
	if strings.HasPrefix(target, "/") {
		in, ok := strings.CutPrefix(target, strings.TrimSuffix(base, "/")+"/")
		if !ok || base == "" || strings.Contains(in+"/", "../") {
			v.add(Reject, "symlink out of the project: "+printable(target))
			return
		}
		v.add(Warn, "symlink with an absolute target")
		rest = in
	} else if climbsOut(path.Dir(link), target) {
		v.add(Reject, "symlink out of the project: "+printable(target))
		return
	}
	// Windows reads both slashes, and drive letters.
	if strings.Contains(rest, `..\`) || strings.HasPrefix(rest, `\`) || (len(rest) > 1 && rest[1] == ':') {
		v.add(Warn, "symlink that leaves the project on Windows")
	}
	if inGit(rest) {
		v.add(Reject, "symlink into .git")
	}
}

// climbsOut reports whether a relative target, seen from dir, can leave the tree.
func climbsOut(dir, target string) bool {
	depth := 0
	if dir != "." {
		depth = strings.Count(dir, "/") + 1
	}
	down := false
	for name := range strings.SplitSeq(target, "/") {
		switch name {
		case "", ".":
		case "..":
			if depth--; depth < 0 || down {
				return true
			}
		default:
			down = true
		}
	}
	return false
}

// takenNames holds, for each folded path, the real names of it: those on the host and those in the set.
type takenNames map[string][]string

func (t takenNames) add(p string) {
	key := foldPath(p)
	for _, have := range t[key] {
		if have == p {
			return
		}
	}
	t[key] = append(t[key], p)
}

func (t takenNames) collides(p string) bool {
	return len(t[foldPath(p)]) > 1
}

// takenBy collects the names that new ones could collide with.
func takenBy(root *os.Root, cs *ChangeSet) (takenNames, error) {
	names, listed := takenNames{}, map[string]bool{}
	gone := map[string]bool{}
	for i := range cs.Changes {
		c := &cs.Changes[i]
		if c.New == nil {
			gone[c.Path] = true
			continue
		}
		if c.From != "" {
			gone[c.From] = true
		}
		names.add(c.Path)
	}
	for i := range cs.Changes {
		c := &cs.Changes[i]
		dir := path.Dir(c.Path)
		if c.New == nil || (c.Old != nil && c.From == "") || listed[dir] {
			continue
		}
		listed[dir] = true
		if err := listNames(root, dir, gone, names); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// maxListed bounds how many names of one host directory are looked at.
const maxListed = 200_000

func listNames(root *os.Root, dir string, gone map[string]bool, names takenNames) error {
	f, err := root.Open(dir)
	if err != nil {
		return nil // new with the change set, or gone, or a way out: no names to collide with
	}
	defer f.Close()
	for range maxListed / 1000 {
		list, err := f.Readdirnames(1000)
		for _, name := range list {
			if p := path.Join(dir, name); !gone[p] {
				names.add(p)
			}
		}
		if err != nil {
			return ignoreEOF(err, f)
		}
	}
	return nil
}

// ignoreEOF lets a file that is no directory pass too: it is about to become one.
func ignoreEOF(err error, f *os.File) error {
	info, statErr := f.Stat()
	if errors.Is(err, io.EOF) || (statErr == nil && !info.IsDir()) {
		return nil
	}
	return err
}
