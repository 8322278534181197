package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// outputDir is where a step leaves the files of its run, in the workspace.
const outputDir = ".agent-sandbox-runs"

// kept are the files of a run that a step leaves behind; all of them are redacted.
func kept() []string {
	return []string{runs.PlanFile, runs.EventsFile, runs.StdoutFile, runs.StderrFile, runs.ChangesFile, runs.PatchFile, runs.ResultFile}
}

// finish says what came of the run, in all the places that there are, and decides whether the step has failed.
func (s *step) finish(ctx context.Context, cfg runner.Config, result runner.Result, runErr error) error {
	sum := result.Summary
	s.annotate(sum)
	applied := appliedChanges{}
	var applyErr error
	if runErr == nil && sum.Outcome == event.Success {
		applied, applyErr = s.apply(ctx, cfg, result)
	}
	dir, keepErr := s.keep(result)
	s.report = actions.Report{Summary: sum, Applied: applied.text, Files: dir, Argv: localCommand(s.in)}
	err := errors.Join(runErr, applyErr, keepErr, s.tell(sum, applied, dir), s.verdict(sum, runErr))
	s.log.EndGroup()
	return err
}

// localCommand is what does the same on somebody's machine.
func localCommand(in actions.Inputs) string {
	argv := []string{"agent-sandbox", "run"}
	if in.Image != "" {
		argv = append(argv, "--image", in.Image)
	}
	if in.Agent != "" {
		argv = append(argv, "--agent", in.Agent)
	}
	switch {
	case in.Command != "":
		argv = append(argv, "--", "bash", "-euo", "pipefail", "-c", in.Command)
	case in.PromptFile != "":
		argv = append(argv, "-", "<"+in.PromptFile)
	default:
		argv = append(argv, in.Task)
	}
	return commandLine(argv)
}

// maxAnnotations is how many of a kind GitHub shows for a step.
const maxAnnotations = 10

// annotate shows refusals and protected paths on the page of the run.
func (s *step) annotate(sum event.Summary) {
	shown := map[string]bool{} // a name is asked for twice, for both kinds of address
	for _, r := range sum.Refused {
		target := actions.Target(r)
		if shown[target] || len(shown) == maxAnnotations {
			continue
		}
		shown[target] = true
		text := target + ": " + cmp.Or(r.Reason, "the policy does not allow it")
		if r.Add != "" {
			text += "; to allow it, add to network.allow of the policy: " + r.Add
		}
		s.log.Annotate(actions.Annotation{Level: actions.Warning, Title: "refused", Text: text})
	}
	for _, p := range sum.Protected[:min(len(sum.Protected), maxAnnotations)] {
		s.log.Annotate(actions.Annotation{Level: actions.Warning, Title: "protected path changed (" + p.Tier + ")", Text: p.Path + ": " + p.Reason, File: p.Path})
	}
}

// appliedChanges is what became of the changes.
type appliedChanges struct {
	text   string
	branch string
	pull   string // address of the pull request
}

// apply puts the changes where the input says. Nothing of the agent's git configuration is in force: see runner/workspace.
func (s *step) apply(ctx context.Context, cfg runner.Config, result runner.Result) (appliedChanges, error) {
	protected := cfg.Policy.Workspace.Protector().Tier
	switch {
	case s.in.Apply == actions.ApplyNone:
		return appliedChanges{}, nil
	case result.Summary.Changes == nil || result.Summary.Changes.Total() == 0:
		return appliedChanges{text: "the task changed nothing"}, nil
	case s.in.Apply == actions.ApplyWorkspace:
		res, err := workspace.Apply(ctx, workspace.ApplyConfig{RunDir: result.Dir, Target: cfg.Project, Protected: protected})
		if err != nil {
			return appliedChanges{text: "nothing"}, notApplied(res.Refused, res.Conflicts, err)
		}
		return appliedChanges{text: plural(len(res.Applied), "change") + " to the workspace"}, nil
	}
	branch := cmp.Or(s.in.Branch, "agent/"+result.Run)
	manifest, err := manifestDigest(result.Dir)
	if err != nil {
		return appliedChanges{text: "nothing"}, err
	}
	res, err := workspace.CommitToBranch(ctx, workspace.BranchConfig{
		RunDir: result.Dir, Target: cfg.Project, Protected: protected, Branch: branch,
		Committer: workspace.Identity{Name: "agent-sandbox", Email: "agent-sandbox@localhost"}, Manifest: manifest,
	})
	if err != nil {
		return appliedChanges{text: "nothing"}, notApplied(res.Refused, nil, err)
	}
	if s.in.Apply.Pushes() {
		return s.publish(ctx, cfg, result, branch, res.Commit)
	}
	return appliedChanges{text: "commit " + res.Commit + " on the branch " + branch, branch: branch}, nil
}

func notApplied(refused, conflicts []workspace.Refusal, err error) error {
	if len(refused)+len(conflicts) == 0 {
		return err
	}
	return fmt.Errorf("nothing was applied: %w\n%s", err, refusalList(append(refused, conflicts...)))
}

// keep copies the run's files into the workspace, for later steps, as files of whoever owns that. The repository can't lead them elsewhere by
// a link, and git ignores them.
func (s *step) keep(result runner.Result) (string, error) {
	if result.Dir == "" {
		return "", nil
	}
	root, err := os.OpenRoot(s.job.Workspace)
	if err != nil {
		return "", err
	}
	defer root.Close()
	dir := path.Join(outputDir, result.Run)
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("leave the run's files in the workspace: %w", err)
	}
	owner, err := workspace.AgentIDs(s.job.Workspace, workspace.IDs{})
	if err != nil {
		return "", err
	}
	err = writeIn(root, path.Join(outputDir, result.Run, ".gitignore"), nil, owner)
	for _, name := range append(kept(), "manifest.json") {
		f, openErr := os.Open(filepath.Join(result.Dir, name))
		if errors.Is(openErr, fs.ErrNotExist) {
			continue
		}
		if openErr != nil {
			return "", openErr
		}
		err = errors.Join(err, writeIn(root, path.Join(dir, name), f, owner), f.Close())
	}
	for _, d := range []string{outputDir, dir} {
		err = errors.Join(err, chownIn(root, d, owner))
	}
	if err != nil {
		return "", fmt.Errorf("leave the run's files in the workspace: %w", err)
	}
	return dir, nil
}

// writeIn makes a new file; without a reader it is the .gitignore of its directory.
func writeIn(root *os.Root, name string, r io.Reader, owner workspace.IDs) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if r == nil {
		_, err = f.WriteString("*\n")
	} else {
		_, err = io.Copy(f, r)
	}
	return errors.Join(err, f.Close(), chownIn(root, name, owner))
}

func chownIn(root *os.Root, name string, owner workspace.IDs) error {
	if os.Geteuid() != 0 || owner == (workspace.IDs{}) {
		return nil
	}
	return root.Lchown(name, owner.UID, owner.GID)
}

// tell writes outputs and summary. The outputs are whole before a later step reads them.
func (s *step) tell(sum event.Summary, applied appliedChanges, dir string) error {
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
	outputs := []actions.Output{
		{Name: "run-id", Value: sum.Run},
		{Name: "outcome", Value: string(sum.Outcome)},
		{Name: "exit-code", Value: strconv.Itoa(sum.ExitCode)},
		{Name: "patch", Value: file(runs.PatchFile)},
		{Name: "manifest", Value: file("manifest.json")},
		{Name: "branch", Value: applied.branch},
		{Name: "pull-request", Value: applied.pull},
		{Name: "changed-files", Value: strconv.Itoa(changed)},
		{Name: "refused-connections", Value: strconv.FormatUint(refused, 10)},
	}
	var err error
	if s.job.Files.Output != "" {
		err = actions.WriteOutputs(s.job.Files.Output, outputs)
	}
	return errors.Join(err, actions.WriteSummary(s.job.Files.Summary, s.report.Markdown()))
}

// verdict is whether the step has failed, by the input fail-on.
func (s *step) verdict(sum event.Summary, runErr error) error {
	fails := func(f actions.FailOn) bool { return slices.Contains(s.in.FailOn, f) }
	refused := sum.Counts.RefusedConnections + sum.Counts.RefusedNames + sum.Counts.RefusedRequests
	switch {
	case runErr != nil || fails(actions.FailOnNever):
		return nil // the first has been said
	case sum.Outcome != event.Success:
		return fmt.Errorf("the task ended with %s, exit status %d", sum.Outcome, sum.ExitCode)
	case fails(actions.FailOnRefusal) && refused > 0:
		return fmt.Errorf("the task tried what the policy refuses, %d times (fail-on: refusal)", refused)
	case fails(actions.FailOnProtected) && sum.Counts.Protected > 0:
		return fmt.Errorf("the task changed %d protected paths (fail-on: changes-protected)", sum.Counts.Protected)
	}
	return nil
}

// actionPost removes what a step that was killed left in the engine, and revokes its tokens.
func (a *app) actionPost(ctx context.Context) error {
	run := a.env("STATE_run")
	if run == "" {
		return nil // the step never got as far as a run
	}
	return errors.Join(a.revokeTokens(ctx, run), a.sweep(ctx, run))
}

func (a *app) sweep(ctx context.Context, run string) error {
	cfg, err := a.engineConfig()
	if err != nil {
		return err
	}
	e, err := engine.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	_, err = e.Sweep(ctx, run)
	return errors.Join(err, e.Close())
}
