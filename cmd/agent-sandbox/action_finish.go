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
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// outputDir is where a step leaves the files of its run, in the workspace.
const outputDir = ".agent-sandbox-runs"

// kept are the files of a run that a step leaves behind; all of them are redacted.
func kept() []string {
	return []string{runs.PlanFile, runs.EventsFile, runs.StdoutFile, runs.StderrFile, runs.ChangesFile, runs.PatchFile, runs.ResultFile, runs.ManifestFile}
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
	err := errors.Join(runErr, applyErr, s.leave(ctx, cfg.Policy, result, applied), s.verdict(sum, runErr))
	s.log.EndGroup()
	return err
}

// leave puts the run's files where they outlive this process, and says where.
func (s *step) leave(ctx context.Context, p *policy.Policy, result runner.Result, applied appliedChanges) error {
	dir, keepErr := s.keep(result)
	artifact, uploadErr := s.upload(ctx, p, result, dir)
	s.report = actions.Report{
		Summary: result.Summary, Applied: applied.text, Files: dir, Artifact: artifact, URL: s.job.ArtifactURL(artifact.ID),
		Verify: s.verifyHint(result.Summary.Manifest, artifact), Local: s.localCommands(),
	}
	return errors.Join(keepErr, uploadErr, s.save(stateEnded, "true"), s.tell(result.Summary, applied, dir, artifact))
}

// mayNot makes the record of a run that the job may not have under its policy.
func (s *step) mayNot(ctx context.Context, a *app, cfg runner.Config, why error) error {
	if s.in.DryRun {
		return why
	}
	if cfg.Signer == nil { // who was to sign is what is lacking
		cfg.Signer = a.refusalSigner(cfg.Policy, "")
	}
	reason, _, _ := strings.Cut(why.Error(), "\n")
	cfg.RefusedExit = exitFailure
	_, err := runner.Refuse(ctx, cfg, reason, nil)
	return errors.Join(why, err)
}

// refused leaves the record of a run that was refused before it began, if there is one: there is of every refusal for what the policy says.
func (s *step) refused(ctx context.Context, why error) error {
	if s.in.DryRun {
		return why
	}
	store, err := s.inner().store()
	if err != nil {
		return errors.Join(why, err)
	}
	defer store.Close()
	list, err := store.List(1)
	if err != nil || len(list) == 0 {
		return errors.Join(why, err)
	}
	sum, err := list[0].Summary()
	if err != nil {
		return errors.Join(why, err)
	}
	result := runner.Result{Run: string(list[0].ID), Dir: list[0].Dir(), ExitCode: sum.ExitCode, Summary: sum}
	return errors.Join(why, s.leave(ctx, policy.Default(), result, appliedChanges{}))
}

// localCommands do the same on somebody's machine.
func (s *step) localCommands() []string {
	var lines []string
	if s.job.SHA != "" {
		lines = append(lines, commandLine([]string{"git", "checkout", s.job.SHA}))
	}
	if s.in.Directory != "" {
		lines = append(lines, commandLine([]string{"cd", s.in.Directory}))
	}
	argv := []string{"agent-sandbox", "run"}
	flag := func(name, value string) {
		if value != "" {
			argv = append(argv, "--"+name, value)
		}
	}
	flag("image", s.in.Image)
	flag("agent", s.in.Agent)
	flag("policy", s.in.Policy)
	flag("ceiling", s.in.Ceiling)
	if s.in.Timeout > 0 {
		flag("timeout", s.in.Timeout.String())
	}
	switch {
	case s.in.Command != "":
		argv = append(argv, "--", "bash", "-euo", "pipefail", "-c", s.in.Command)
	case s.in.PromptFile != "":
		return append(lines, commandLine(append(argv, "-"))+" <"+commandLine([]string{s.in.PromptFile}))
	default:
		argv = append(argv, s.in.Task)
	}
	return append(lines, commandLine(argv))
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
	for _, name := range kept() {
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
