package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/org/agent-sandbox/runner/runs"
)

// newest is what names a run without an id: the newest one.
const newest = "last"

// findRun is the run that name means. Two projects are often worked on at a time, so "last" is the newest run of the project around the current
// directory; where that has none, the newest of all. Whenever these differ, a line says so.
func (a *app) findRun(store *runs.Store, name string) (*runs.Run, error) {
	r, err := store.Resolve(name)
	if err != nil || name != newest {
		return r, err
	}
	project, _, err := a.project("")
	if err != nil {
		return r, nil //nolint:nilerr // the current directory is gone, and with it the question which project it is of
	}
	of := projectOf(r)
	if sameDir(of, project) {
		return r, nil
	}
	list, err := store.List(0)
	if err != nil {
		return nil, err
	}
	for _, own := range list {
		if sameDir(projectOf(own), project) {
			fmt.Fprintf(a.stderr, "agent-sandbox: run %s, the last one of this project; %s of %s is newer\n", own.ID, r.ID, printableLine(of))
			return own, nil
		}
	}
	if isProject(project) {
		fmt.Fprintf(a.stderr, "agent-sandbox: this project has no run; the last one of all is %s, of %s\n", r.ID, printableLine(of))
	}
	return r, nil
}

// ownRun refuses what "last" means where the current directory's project has no run: to change another project takes its run's id.
func (a *app) ownRun(r *runs.Run, name string) error {
	if name != newest {
		return nil
	}
	project, _, err := a.project("")
	if err != nil || !isProject(project) || sameDir(projectOf(r), project) {
		return err
	}
	return fmt.Errorf("nothing was done: run %s is of another project\nhint: name it by its id, if that is what you mean", r.ID)
}

// projectOf is the directory that a run worked on, empty if its record does not tell.
func projectOf(r *runs.Run) string {
	s, err := r.Summary()
	if err != nil || s.Start == nil {
		return ""
	}
	return s.Start.Project
}

// isProject tells whether a directory was meant as a project, and is not merely where somebody stands.
func isProject(dir string) bool {
	return exists(filepath.Join(dir, policyFile)) || exists(filepath.Join(dir, ".git"))
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
