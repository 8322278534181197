package main

import (
	"os"
	"path/filepath"
)

// policyFile is the name of a project's policy.
const policyFile = ".agent-sandbox.yaml"

// project finds the directory that the agent sees: dir if given, else the closest one above the current directory
// that has a policy or a git repository, else the current one. sub is where below it the caller stands.
func (a *app) project(dir string) (project, sub string, err error) {
	here, err := os.Getwd()
	if err != nil {
		return "", "", err
	}
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", "", err
		}
		st, err := os.Stat(abs)
		if err != nil {
			return "", "", usage("--workspace: %w", err)
		}
		if !st.IsDir() {
			return "", "", usage("--workspace: %s is not a directory", dir)
		}
		return abs, "", nil
	}
	project = here
	for at := here; ; at = filepath.Dir(at) {
		if isProject(at) {
			project = at
			break
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	rel, err := filepath.Rel(project, here)
	return project, filepath.ToSlash(rel), err
}

// isProject tells whether a directory was meant as a project, and is not merely where somebody stands.
func isProject(dir string) bool {
	return exists(filepath.Join(dir, policyFile)) || exists(filepath.Join(dir, ".git"))
}

// isHome tells whether a directory is the user's home, and nobody has made it a project.
func isHome(dir string) bool {
	home, err := os.UserHomeDir()
	return err == nil && sameDir(home, dir) && !isProject(dir)
}

// sameDir tells whether two paths are one directory: one of them may be through a symbolic link.
func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
