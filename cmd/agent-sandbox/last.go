package main

import (
	"fmt"

	"github.com/org/agent-sandbox/runner/runs"
)

// newest is what names a run without an id: the newest one.
const newest = "last"

// findRun is the run that name means. Two projects are often worked on at a time: where "last" is a run of another project than the one around the
// current directory, a line says so, and which the last one of this project is.
func (a *app) findRun(store *runs.Store, name string) (*runs.Run, error) {
	r, err := store.Resolve(name)
	if err != nil || name != newest {
		return r, err
	}
	project, _, err := a.project("")
	if err != nil || !isProject(project) || sameDir(projectOf(r), project) {
		return r, nil //nolint:nilerr // the current directory is gone, and with it the question which project it is of
	}
	own, err := lastOf(store, project)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.stderr, "agent-sandbox: the last run is %s, of %s; %s\n", r.ID, printableLine(projectOf(r)), own)
	return r, nil
}

// lastOf says which run of a project is its newest.
func lastOf(store *runs.Store, project string) (string, error) {
	list, err := store.List(0)
	if err != nil {
		return "", err
	}
	for _, r := range list {
		if sameDir(projectOf(r), project) {
			return "of this project it is " + string(r.ID), nil
		}
	}
	return "this project has none", nil
}

// projectOf is the directory that a run worked on, empty if its record does not tell.
func projectOf(r *runs.Run) string {
	s, err := r.Summary()
	if err != nil || s.Start == nil {
		return ""
	}
	return s.Start.Project
}
