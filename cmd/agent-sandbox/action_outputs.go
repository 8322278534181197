package main

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// tell writes outputs and summary. The outputs are whole before a later step reads them.
func (s *step) tell(sum event.Summary, applied appliedChanges, dir string, artifact actions.Artifact) error {
	var err error
	if s.job.Files.Output != "" {
		err = actions.WriteOutputs(s.job.Files.Output, s.outputs(sum, applied, dir, artifact))
	}
	return errors.Join(err, actions.WriteSummary(s.job.Files.Summary, s.report.Markdown()))
}

// outputs are those that action.yml names, each of them in every case: a later step finds it empty, and not missing.
func (s *step) outputs(sum event.Summary, applied appliedChanges, dir string, artifact actions.Artifact) []actions.Output {
	changed := 0
	if sum.Changes != nil {
		changed = sum.Changes.Total()
	}
	file := func(name string) string {
		if dir == "" {
			return ""
		}
		if _, err := os.Stat(filepath.Join(s.job.Workspace, dir, name)); err != nil {
			return ""
		}
		return path.Join(dir, name)
	}
	refused := sum.Counts.RefusedConnections + sum.Counts.RefusedNames + sum.Counts.RefusedRequests
	return []actions.Output{
		{Name: "run-id", Value: sum.Run},
		{Name: "outcome", Value: string(sum.Outcome)},
		{Name: "exit-code", Value: strconv.Itoa(sum.ExitCode)},
		{Name: "patch", Value: file(runs.PatchFile)},
		{Name: "manifest", Value: file(runs.ManifestFile)},
		{Name: "manifest-digest", Value: digestText(sum.Manifest)},
		{Name: "artifact-id", Value: idText(artifact.ID)},
		{Name: "artifact-name", Value: artifact.Name},
		{Name: "artifact-url", Value: s.job.ArtifactURL(artifact.ID)},
		{Name: "branch", Value: applied.branch},
		{Name: "pull-request", Value: applied.pull},
		{Name: "changed-files", Value: strconv.Itoa(changed)},
		{Name: "refused-connections", Value: strconv.FormatUint(refused, 10)},
	}
}

// digestText is empty where there is no manifest.
func digestText(m *event.Manifest) string {
	if m == nil {
		return ""
	}
	return "sha256:" + m.SHA256
}

// idText is empty where there is none.
func idText(id int64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatInt(id, 10)
}
