package main

import (
	"encoding/base64"
	"unicode/utf8"

	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// appliedJSON is `apply --json`: a contract, to which fields are only added.
type appliedJSON struct {
	Run       runs.ID        `json:"run"`
	Project   string         `json:"project"`
	DryRun    bool           `json:"dry_run"`
	Branch    string         `json:"branch,omitempty"`
	Commit    string         `json:"commit,omitempty"`
	Commits   int            `json:"commits,omitempty"` // how many of the agent's own
	Applied   []pathJSON     `json:"applied"`
	Already   []pathJSON     `json:"already"`
	Skipped   []pathJSON     `json:"skipped"`
	Refused   []pathJSON     `json:"refused"`
	Conflicts []pathJSON     `json:"conflicts"`
	Warned    []pathJSON     `json:"warned,omitempty"` // with --commits: paths of tier warn in them
	Recovered *recoveredJSON `json:"recovered,omitempty"`
	Error     string         `json:"error,omitempty"`
}

// pathJSON is a path as changes.json has it: with the exact bytes beside it when JSON can't hold them.
type pathJSON struct {
	Path    string `json:"path"`
	PathB64 string `json:"path_b64,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

type recoveredJSON struct {
	Target     string `json:"target"`
	RolledBack bool   `json:"rolled_back"`
	Steps      int    `json:"steps"`
}

func newAppliedJSON(about appliedRun, result workspace.ApplyResult, err error) appliedJSON {
	v := appliedJSON{
		Run: about.run, Project: about.cs.Base, DryRun: about.dryRun,
		Applied: pathsJSON(result.Applied), Already: pathsJSON(result.Already),
		Skipped: refusalsJSON(result.Skipped), Refused: refusalsJSON(result.Refused), Conflicts: refusalsJSON(result.Conflicts),
	}
	if r := result.Recovered; r != nil {
		v.Recovered = &recoveredJSON{Target: r.Target, RolledBack: r.RolledBack, Steps: r.Steps}
	}
	return v.failed(err)
}

func (v appliedJSON) failed(err error) appliedJSON {
	if err != nil {
		v.Error = err.Error()
	}
	return v
}

func pathsJSON(paths []string) []pathJSON {
	list := make([]pathJSON, len(paths))
	for i, p := range paths {
		list[i] = newPathJSON(p, "")
	}
	return list
}

func refusalsJSON(refusals []workspace.Refusal) []pathJSON {
	list := make([]pathJSON, len(refusals))
	for i, r := range refusals {
		list[i] = newPathJSON(r.Path, r.Reason)
	}
	return list
}

func newPathJSON(path, reason string) pathJSON {
	p := pathJSON{Path: path, Reason: reason}
	if !utf8.ValidString(path) {
		p.PathB64 = base64.StdEncoding.EncodeToString([]byte(path))
	}
	return p
}
