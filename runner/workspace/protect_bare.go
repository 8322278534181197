package workspace

import (
	"os"
	"path"
	"strings"
)

// bareDirs are the directories that git would take for a repository without being called .git. A user who
// enters one and runs git, or whose prompt does, executes what its config names (core.fsmonitor); see
// safe.bareRepository in git-config(1).
type bareDirs map[string]bool

// bareRepos finds the directories that are a repository once the change set is applied and weren't untouched
// before: those in which it changes one of the files that decide.
func bareRepos(root *os.Root, cs *ChangeSet) bareDirs {
	dirs := bareDirs{}
	for i := range cs.Changes {
		c := &cs.Changes[i]
		dir, name := path.Split(c.Path)
		switch strings.ToLower(name) {
		case "head", "config", "objects", "refs", "commondir", "config.worktree":
			if c.New != nil && !inGit(c.Path) {
				dirs[path.Clean(dir)] = false
			}
		}
	}
	for dir := range dirs {
		after := func(name string) bool { return existsAfter(root, cs, path.Join(dir, name)) }
		dirs[dir] = after("HEAD") && (after("commondir") || after("objects") && after("refs"))
	}
	return dirs
}

// existsAfter reports whether a path is there once the change set is applied, or might be.
func existsAfter(root *os.Root, cs *ChangeSet, p string) bool {
	if c := cs.Find(p); c != nil {
		return c.New != nil
	}
	_, err := root.Lstat(p)
	return err == nil
}

// governs reports whether a change is of a file that tells git what to run in such a directory.
func (b bareDirs) governs(c *Change) bool {
	dir, name := path.Split(c.Path)
	if c.New == nil {
		return false
	}
	switch strings.ToLower(name) {
	case "head", "config", "commondir", "config.worktree":
		return b[path.Clean(dir)]
	}
	return path.Base(dir) == "hooks" && b[path.Dir(path.Clean(dir))]
}
