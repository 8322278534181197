package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/manifest"
)

// replayFlags are the flags of replay.
type replayFlags struct {
	run          runFlags
	task         string
	dryRun, json bool
}

func (a *app) replayCommand() *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:   "replay [flags] [RUN | FILE]",
		Short: "Run again what a manifest describes, and compare",
		Long: `replay runs the command of a manifest again, with the same image, policy and commit, and puts the
two runs side by side. It refuses when one of these is not at hand; --dry-run says which, and runs nothing.

A task that was given in words is in a manifest by digest alone, so --task has to say it again.
The command's output goes to standard error.

Exit status: 0 when both runs are the same, 1 when they differ or something is missing.`,
		Example: `  agent-sandbox replay last
  agent-sandbox replay --dry-run manifest.json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeRuns(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "last"
			if len(args) == 1 {
				name = args[0]
			}
			return a.replay(cmd.Context(), f, name)
		},
	}
	c.Flags().StringVar(&f.run.policy, "policy", "", "policy file, instead of the project's "+policyFile)
	c.Flags().StringVar(&f.run.workspace, "workspace", "", "project directory, instead of the one around the current directory")
	c.Flags().StringVar(&f.run.ceiling, "ceiling", "", "the organisation's policy, as for run")
	c.Flags().StringVar(&f.task, "task", "", "the task, if the run had one in words")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what is missing to run it again, and run nothing")
	c.Flags().BoolVar(&f.json, "json", false, "print the report as JSON")
	return c
}

// lack is something that a replay needs and that is not at hand.
type lack struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// replayReport is `replay --json`: a contract, to which fields are only added.
type replayReport struct {
	First   string                `json:"first"`            // the run that was replayed
	Second  string                `json:"second,omitempty"` // the new one; empty: there is none
	Missing []lack                `json:"missing"`
	Same    bool                  `json:"same"`
	Compare []manifest.Comparison `json:"compare"`
}

func (a *app) replay(ctx context.Context, f replayFlags, name string) error {
	file, err := a.readManifest(name)
	if err != nil {
		return err
	}
	old := file.Statement.Predicate
	report := replayReport{First: old.Run, Missing: []lack{}, Compare: []manifest.Comparison{}}
	cfg, err := a.replayConfig(ctx, f, old, &report)
	if err != nil {
		return err
	}
	if cfg != nil {
		defer cfg.Store.Close()
	}
	if f.dryRun || len(report.Missing) > 0 {
		return a.reportReplay(f, report)
	}
	cfg.Stdout, cfg.Stderr = a.stderr, a.stderr
	result, err := a.execute(ctx, *cfg, f.run)
	if err != nil {
		return failure(err)
	}
	again, err := a.readManifest(result.Run)
	if err != nil {
		return err
	}
	report.Second, report.Compare = result.Run, manifest.Compare(old, again.Statement.Predicate)
	report.Same = !slices.ContainsFunc(report.Compare, func(c manifest.Comparison) bool { return !c.Same && !c.Varies })
	return a.reportReplay(f, report)
}

// replayConfig is the run of a manifest, as far as it can be had here; what is not is added to the report. Nil: not even a policy.
func (a *app) replayConfig(ctx context.Context, f replayFlags, old manifest.Predicate, report *replayReport) (*runner.Config, error) {
	missing := func(what, format string, args ...any) {
		report.Missing = append(report.Missing, lack{what, fmt.Sprintf(format, args...)})
	}
	args := old.Invocation.Command
	f.run.command, f.run.dryRun = true, true // no record of a refusal, and nothing is built
	if old.Invocation.Agent != "" {
		f.run.command, f.run.agent, args = false, old.Invocation.Agent, []string{f.task}
	}
	switch image := old.Environment.Image; {
	case !old.Policy.Loaded:
		missing("policy", "the run had none: it was refused")
	case image == nil:
		missing("image", "the run ended before its image was settled")
	case old.Invocation.Terminal:
		missing("terminal", "somebody talked with the agent, and nobody can repeat that")
	case old.Invocation.TaskSHA256 != "" && f.task == "":
		missing("task", "the manifest has its digest alone: give it with --task")
	default:
		f.run.image = image.ID
	}
	if len(report.Missing) > 0 {
		return nil, nil
	}
	cfg, err := a.settled(ctx, f.run, args)
	if err != nil {
		missing("policy", "%s", err)
		return nil, nil
	}
	if limit := time.Duration(old.Invocation.TimeoutNS); limit > 0 && limit < cfg.Policy.Resources.Timeout {
		cfg.Timeout = limit
	}
	if got := manifest.CommandSHA256(cfg.Argv); got != old.Invocation.CommandSHA256 {
		missing("command", "its digest is %s, not %s: arguments were shortened or redacted in the manifest, or the task is another", got, old.Invocation.CommandSHA256)
	}
	if got := cfg.Policy.Digest(); got != old.Policy.Digest {
		missing("policy", "the one at hand has the digest %s, the run's had %s", got, old.Policy.Digest)
	}
	a.replaySource(ctx, cfg.Project, old, missing)
	if err := a.replayImage(ctx, cfg.Engine, f.run.image, missing); err != nil || len(report.Missing) > 0 {
		return &cfg, err
	}
	// The rest, such as the credentials, is what a run would be refused for.
	if _, err := runner.DryRun(ctx, cfg); err != nil {
		if refused, ok := errors.AsType[*runner.RefusedError](err); ok {
			err = errors.New(refused.Reason)
		}
		missing("run", "%s", err)
	}
	return &cfg, nil
}

func (a *app) replaySource(ctx context.Context, project string, old manifest.Predicate, missing func(what, format string, args ...any)) {
	if old.Source == nil {
		missing("commit", "the manifest does not know it")
		return
	}
	now := runner.SourceState(ctx, project)
	switch {
	case now.Commit != old.Source.Commit:
		missing("commit", "the project is at %q, the run's was at %q", now.Commit, old.Source.Commit)
	case old.Source.Commit != "" && (now.Dirty == nil || old.Source.Dirty == nil):
		missing("commit", "nobody can tell whether files differ from it")
	case now.DirtySHA256 != old.Source.DirtySHA256:
		missing("commit", "other files differ from it than did then")
	}
}

func (a *app) replayImage(ctx context.Context, cfg engine.Config, id string, missing func(what, format string, args ...any)) (err error) {
	e, err := engine.Connect(ctx, cfg)
	if err != nil {
		missing("engine", "%s", err)
		return nil
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	_, err = e.Image(ctx, id)
	if errors.Is(err, engine.ErrNoImage) {
		missing("image", "the engine does not have %s", id)
		return nil
	}
	return err
}

// reportReplay prints the report, and gives the exit status.
func (a *app) reportReplay(f replayFlags, report replayReport) error {
	var err error
	if f.json {
		err = a.answerJSON(report)
	} else {
		err = a.answer(func(w io.Writer) error { return printReplay(w, report) })
	}
	if err == nil && (len(report.Missing) > 0 || report.Second != "" && !report.Same) {
		return &statusError{code: exitError}
	}
	return err
}

func printReplay(out io.Writer, report replayReport) error {
	if report.Second == "" && len(report.Missing) == 0 {
		_, err := fmt.Fprintf(out, "nothing is missing to run %s again\n", report.First)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, m := range report.Missing {
		fmt.Fprintf(w, "missing\t%s\t%s\n", m.What, printableLine(strings.ReplaceAll(m.Why, "\n", "; ")))
	}
	if report.Second != "" {
		fmt.Fprintf(w, "\t\t%s\t%s\n", report.First, report.Second)
	}
	for _, c := range report.Compare {
		word := "same"
		switch {
		case c.Varies:
			word = ""
		case !c.Same:
			word = "DIFFERS"
		}
		second := clip(c.Second, commandWidth)
		if c.Same {
			second = ""
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.What, word, clip(c.First, commandWidth), second)
	}
	return w.Flush()
}
