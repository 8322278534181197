package policy

import "slices"

// gitReason judges a path with ".git" among its canonical names, at any depth: a nested repository, a submodule, or
// the file that points to a worktree. Git runs programs from so many places in there (hooks, config, info/attributes
// with filters, rebase todo lists, ...) that only what is known to be plain data passes, with "" for a reason.
// https://git-scm.com/docs/gitrepository-layout
func gitReason(names []string) (reason string, inside bool) {
	for i, name := range names {
		if name != ".git" {
			continue
		}
		inside = true
		rest := names[i+1:]
		if len(rest) == 0 {
			return "git obeys the repository that this names", true
		}
		if reason := gitRuns(rest); reason != "" {
			return reason, true
		}
	}
	return "", inside
}

// gitRuns says what git would run, or why the file is not plain data; "" means that it is.
func gitRuns(rest []string) string {
	first := rest[0]
	switch first {
	case "hooks":
		return "git runs the hooks in here"
	case "config", "config.worktree":
		return "git config can name programs to run (hooks, fsmonitor, ssh, filters, aliases)"
	case "info":
		return gitInfoReason(rest)
	case "modules", "worktrees":
		return gitNestedReason(rest)
	case "objects":
		return gitObjectsReason(rest)
	case "refs", "logs", "reftable", "lfs":
		return ""
	}
	if len(rest) == 1 && gitPlainFile(first) {
		return ""
	}
	return "git acts on its own files, and this is not one that is known to be harmless"
}

func gitPlainFile(name string) bool {
	return slices.Contains([]string{
		"head", "orig_head", "fetch_head", "merge_head", "cherry_pick_head", "revert_head", "bisect_head", "auto_merge", "merge_mode", "merge_rr", "squash_msg",
		"merge_msg", "commit_editmsg", "tag_editmsg", "index", "packed-refs", "shallow", "description", "gc.log", "gc.pid", "branches", "rr-cache",
		"objects", "refs", "logs",
	}, name)
}

func gitInfoReason(rest []string) string {
	switch {
	case len(rest) == 1:
		return ""
	case slices.Contains([]string{"exclude", "sparse-checkout", "refs", "packs", "grafts"}, rest[1]):
		return ""
	}
	return "attributes in here turn on filters and merge drivers"
}

func gitObjectsReason(rest []string) string {
	if len(rest) > 2 && rest[1] == "info" && (rest[2] == "alternates" || rest[2] == "http-alternates") {
		return "alternates make git read another object store"
	}
	if len(rest) <= 4 && (len(rest) < 3 || rest[1] == "pack" || rest[1] == "info" || len(rest[1]) == 2) {
		return ""
	}
	return "this is no place for an object, and may be a repository of its own"
}

// gitNestedReason judges the repositories of submodules and the private half of worktrees, whose names may hold slashes: data
// directories pass, unless a dangerous name stands anywhere on the path.
func gitNestedReason(rest []string) string {
	if len(rest) < 3 {
		return ""
	}
	inner := rest[2:]
	for _, name := range inner {
		if slices.Contains([]string{"hooks", "config", "config.worktree", "info", "alternates", "commondir", "gitdir"}, name) {
			return "git obeys the config and hooks of submodules and worktrees too"
		}
	}
	if slices.ContainsFunc(inner, func(n string) bool { return n == "objects" || n == "refs" || n == "logs" }) || gitPlainFile(inner[len(inner)-1]) {
		return ""
	}
	return "git acts on the files of submodules and worktrees, and this is not one that is known to be harmless"
}

// gitShortNames are the 8.3 names that git itself guards: ".git" is always "git~1", and the hashed forms appear when
// four plain ones are taken (is_ntfs_dotgitmodules and its siblings in git's path.c).
func gitShortNames() map[string]string {
	return map[string]string{
		"git~#":    ".git",
		"gi7eba~#": ".gitmodules",
		"gi7d29~#": ".gitattributes",
	}
}
