package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/agent-sandbox/runner/event"
)

// maxGitFile bounds a .git that is a file: one path, which Linux has no longer than that.
const maxGitFile = 4096 + len(gitFilePrefix)

const gitFilePrefix = "gitdir: "

// warnOfGit tells that git finds no repository inside, which an agent would find out by failing: that of a linked worktree or a submodule is not in
// the project. A mount of the policy can bring it in.
func (r *run) warnOfGit() {
	dir := gitElsewhere(r.cfg.Project)
	if dir == "" {
		return
	}
	for _, m := range r.cfg.Policy.Mounts {
		if isBelow(m.Target, dir) {
			return
		}
	}
	r.rec.Emit(event.Warning{
		Message: fmt.Sprintf("git does not work inside: the project is a linked worktree or a submodule, and its repository is outside, at %s", dir),
		Mend:    "run in the main worktree or in a clone; files can be changed and applied all the same",
	})
}

// gitElsewhere is where the repository of a linked worktree or a submodule is, empty for other projects: their .git is no file, or one that names
// a directory of the project (gitrepository-layout(5)).
func gitElsewhere(project string) string {
	name := filepath.Join(project, ".git")
	if st, err := os.Lstat(name); err != nil || !st.Mode().IsRegular() || st.Size() > int64(maxGitFile) {
		return ""
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	dir, ok := strings.CutPrefix(strings.TrimSpace(string(b)), gitFilePrefix)
	if !ok {
		return ""
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(project, dir)
	}
	if isBelow(project, dir) {
		return ""
	}
	return filepath.Clean(dir)
}

// isBelow tells whether path is dir or below it.
func isBelow(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
