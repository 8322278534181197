package workspace

import (
	"fmt"
	"strings"
)

// Committed tells whether the agent moved a branch or HEAD of the project's repository, so that FetchCommits may find something. Git writes inside
// .git for less than that: it refreshes its index when it is asked for the status.
func (cs *ChangeSet) Committed() bool {
	for i := range cs.Changes {
		if movesBranch(cs.Changes[i].Path, ".git/") {
			return true
		}
	}
	return false
}

// movesBranch tells whether a path in a git directory is where branches are kept.
func movesBranch(path, gitDir string) bool {
	rest, ok := strings.CutPrefix(path, gitDir)
	return ok && (rest == "HEAD" || rest == "packed-refs" || strings.HasPrefix(rest, "refs/heads/"))
}

// noCommits says that there are none, and where there are some instead.
func (cs *ChangeSet) noCommits() string {
	for i := range cs.Changes {
		path := cs.Changes[i].Path
		module, _, ok := strings.Cut(strings.TrimPrefix(path, ".git/modules/"), "/refs/heads/")
		if ok && strings.HasPrefix(path, ".git/modules/") {
			return fmt.Sprintf("the agent made no commits but in the submodule %q, from which none are fetched (without --branch its files are applied)", module)
		}
	}
	return "the agent made no commits"
}
