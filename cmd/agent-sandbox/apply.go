package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// applyFlags are the flags of apply.
type applyFlags struct {
	allow                                []string
	branch                               string
	commits, skipProtected, dryRun, json bool
}

func (a *app) applyCommand() *cobra.Command {
	var f applyFlags
	c := &cobra.Command{
		Use:   "apply RUN [PATH...]",
		Short: "Take over what a run changed",
		Long: `apply makes the changes of a run in the project: all of them, or those of the named files
and directories; either completely or not at all. It refuses to overwrite what was changed
in the project since the run started, and paths that would run code on this machine or in CI
(git hooks, workflows, editor tasks, ...) unless --allow-protected names them.

--branch puts the changes on a new branch as one commit that names the run, and leaves the
work tree alone. With --commits it is the agent's own commits that get the branch; they are
fetched without trusting anything that the agent could configure.

An earlier apply that was interrupted is first taken back.

Exit status: 1 when nothing was applied because of a conflict or a protected path.`,
		Example: `  agent-sandbox apply last
  agent-sandbox apply last src docs/index.md
  agent-sandbox apply last --allow-protected .github/workflows/ci.yml
  agent-sandbox apply last --branch agent/fix
  agent-sandbox apply last --commits --branch agent/fix`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeRuns(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args[1:]); err != nil {
				return err
			}
			return a.withRun(args[0], func(r *runs.Run) error { return a.apply(cmd.Context(), r, args[1:], f) })
		},
	}
	flags := c.Flags()
	flags.StringArrayVar(&f.allow, "allow-protected", nil, "apply protected paths that match `PATTERN` too; can be given again")
	flags.BoolVar(&f.skipProtected, "skip-protected", false, "leave protected paths out instead of refusing all")
	flags.StringVar(&f.branch, "branch", "", "put the changes on a new branch `NAME`, not into the work tree")
	flags.BoolVar(&f.commits, "commits", false, "with --branch: the agent's own commits instead of one of ours")
	flags.BoolVar(&f.dryRun, "dry-run", false, "check everything, change nothing")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	return c
}

func (f applyFlags) check(paths []string) error {
	switch {
	case f.commits && f.branch == "":
		return usage("--commits needs --branch\nhint: agent-sandbox apply RUN --commits --branch NAME")
	case f.commits && len(paths) > 0:
		return usage("--commits takes whole commits, not paths\nhint: leave out the paths, or --commits")
	case f.commits && f.skipProtected:
		return usage("--commits takes whole commits: --skip-protected can leave nothing out\nhint: allow paths with --allow-protected, or leave out --commits")
	case f.dryRun && f.branch != "":
		return usage("--dry-run does not go with --branch\nhint: a branch changes nothing in the work tree, and can be deleted")
	}
	return nil
}

func (a *app) apply(ctx context.Context, r *runs.Run, args []string, f applyFlags) error {
	// Two commands must not work on one run, and neither while it runs.
	if err := r.Lock(); err != nil {
		return err
	}
	defer r.Close()
	cs, err := changeSet(r)
	if err != nil {
		return err
	}
	if !exists(cs.Base) {
		return fmt.Errorf("the project of run %s was at %s, and is not there any more\nhint: move it back, or take the patch to where it is now: git apply %s",
			r.ID, event.Printable(cs.Base), r.Path(workspace.PatchFile))
	}
	cfg, err := a.applyConfig(r, cs, args, f)
	if err != nil {
		return err
	}
	if f.commits { // git checks what it gets for completeness
		return a.applyCommits(ctx, r, cs, cfg, f)
	}
	if err := complete(r, args); err != nil {
		return err
	}
	if f.branch != "" {
		return a.applyToBranch(ctx, r, cs, cfg, f)
	}
	if len(cs.Changes) == 0 {
		fmt.Fprintf(a.stderr, "agent-sandbox: run %s changed nothing\n", r.ID)
	}
	result, err := workspace.Apply(ctx, cfg)
	return a.applied(appliedRun{run: r.ID, cs: cs, dryRun: f.dryRun, json: f.json}, result, err)
}

// applyConfig is what the arguments say about the changes to take.
func (a *app) applyConfig(r *runs.Run, cs *workspace.ChangeSet, args []string, f applyFlags) (workspace.ApplyConfig, error) {
	cfg := workspace.ApplyConfig{RunDir: r.Dir(), SkipProtected: f.skipProtected, Check: f.dryRun}
	var err error
	if cfg.Paths, err = projectPaths(cs.Base, args); err != nil {
		return cfg, err
	}
	for _, s := range f.allow {
		pattern, err := policy.ParsePattern(s)
		if err != nil {
			return cfg, usage("--allow-protected: %q: %w", s, err)
		}
		cfg.AllowProtected = append(cfg.AllowProtected, pattern)
	}
	// The policy of the run has marked the change set already; the project's own, as it is now, can only add to that.
	p, err := a.policy("", cs.Base)
	if err != nil {
		return cfg, err
	}
	cfg.Protected = p.Workspace.Protector().Tier
	return cfg, nil
}

// complete refuses to take all of a change set that may not be all: the run failed while it was made. Named paths
// are the caller's own judgement. What was recovered is all that there was.
func complete(r *runs.Run, paths []string) error {
	s, err := r.Summary()
	if err != nil || len(paths) > 0 || s.Recovered != nil || (s.Outcome != event.Errored && s.Outcome != event.Interrupted) {
		return err
	}
	return fmt.Errorf("run %s did not end well, and its change set may lack something: %s\nhint: look at it with `agent-sandbox diff %s`, and name the paths to apply", r.ID, event.Printable(s.Reason), r.ID)
}

// appliedRun is what the report of an apply is about.
type appliedRun struct {
	run          runs.ID
	cs           *workspace.ChangeSet
	dryRun, json bool
}

// applied reports the result: what was done to standard output, what stood in the way as the error.
func (a *app) applied(about appliedRun, result workspace.ApplyResult, err error) error {
	if rec := result.Recovered; rec != nil {
		fmt.Fprintf(a.stderr, "agent-sandbox: an interrupted apply to %s was %s first\n", printableLine(rec.Target), recoveredText(rec))
	}
	if about.json {
		return errors.Join(a.answerJSON(newAppliedJSON(about, result, err)), silent(err))
	}
	if err != nil {
		return explainRefusal(about.run, result.Refused, result.Conflicts, err)
	}
	return a.answer(func(w io.Writer) error {
		about.print(w, painter(a.color(a.stdout)), result)
		return nil
	})
}

func recoveredText(rec *workspace.Recovered) string {
	if rec.RolledBack {
		return fmt.Sprintf("taken back (%d steps)", rec.Steps)
	}
	return "tidied up"
}

// explainRefusal lists what stood in the way, and says what to do about it.
func explainRefusal(run runs.ID, refused, conflicts []workspace.Refusal, err error) error {
	switch {
	case len(conflicts) > 0:
		return fmt.Errorf("nothing was applied: the project has changed since the run started\n%s"+
			"hint: put the changes on a branch to merge, `agent-sandbox apply %s --branch NAME`, or name the paths to apply",
			refusalList(conflicts), run)
	case len(refused) > 0:
		return fmt.Errorf("nothing was applied: protected paths would change\n%s"+
			"hint: look at them with `agent-sandbox diff %s`; then allow them by name with --allow-protected PATTERN, or leave them out with --skip-protected",
			refusalList(refused), run)
	}
	return err
}

func refusalList(list []workspace.Refusal) string {
	const most = 50
	text := ""
	for i, r := range list {
		if i == most {
			return text + fmt.Sprintf("  and %d more\n", len(list)-most)
		}
		text += "  " + event.Printable(r.Path) + ": " + event.Printable(r.Reason) + "\n"
	}
	return text
}

// print lists what was applied, and what was not.
func (about appliedRun) print(w io.Writer, p painter, result workspace.ApplyResult) {
	for _, path := range result.Applied {
		fmt.Fprintln(w, describe(about.cs.Find(path), p))
	}
	for _, s := range result.Skipped {
		if c := about.cs.Find(s.Path); c != nil && c.Git {
			continue // counted below
		}
		fmt.Fprintf(w, "%s %s: %s\n", p.paint(yellow, "skipped "), event.Printable(s.Path), event.Printable(s.Reason))
	}
	verb := "applied"
	if about.dryRun {
		verb = "would be applied"
	}
	switch {
	case result.AlreadyApplied():
		fmt.Fprintf(w, "the project %s already has all of run %s\n", printableLine(about.cs.Base), about.run)
	case len(result.Already) > 0:
		fmt.Fprintf(w, "%s of run %s %s to %s; %d were there already\n", plural(len(result.Applied), "change"), about.run, verb, printableLine(about.cs.Base), len(result.Already))
	default:
		fmt.Fprintf(w, "%s of run %s %s to %s\n", plural(len(result.Applied), "change"), about.run, verb, printableLine(about.cs.Base))
	}
	if n := about.cs.Counts().Git; n > 0 {
		text := plural(n, "change") + " inside .git left out"
		if about.cs.Committed() {
			text += fmt.Sprintf("; `agent-sandbox apply %s --commits --branch NAME` fetches the agent's commits", about.run)
		}
		fmt.Fprintln(w, text)
	}
}

// describe is a line about one change, with a warning where there is one.
func describe(c *workspace.Change, p painter) string {
	if c == nil {
		return ""
	}
	color := map[workspace.Kind]string{workspace.Added: green, workspace.Deleted: red}[c.Kind]
	text := p.paint(color, fmt.Sprintf("%-8s", c.Kind)) + " "
	if c.From != "" {
		text += event.Printable(c.From) + " -> "
	}
	text += event.Printable(c.Path)
	if c.IsDir() {
		text += "/"
	}
	if c.Tier != workspace.NoTier {
		text += p.paint(yellow, "  ("+string(c.Tier)+": "+event.Printable(c.Reason)+")")
	}
	return text
}
