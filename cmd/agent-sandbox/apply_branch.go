package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// applyToBranch puts the changes, or the agent's own commits, on a new branch.
func (a *app) applyToBranch(ctx context.Context, r *runs.Run, cs *workspace.ChangeSet, cfg workspace.ApplyConfig, f applyFlags) error {
	result, err := workspace.CommitToBranch(ctx, workspace.BranchConfig{
		RunDir: cfg.RunDir, Paths: cfg.Paths, Protected: cfg.Protected, AllowProtected: cfg.AllowProtected,
		SkipProtected: cfg.SkipProtected, Branch: f.branch,
	})
	if f.json {
		v := appliedJSON{
			Run: r.ID, Project: cs.Base, Branch: result.Branch, Commit: result.Commit,
			Applied: pathsJSON(result.Applied), Already: []pathJSON{},
			Skipped: refusalsJSON(result.Skipped), Refused: refusalsJSON(result.Refused), Conflicts: []pathJSON{},
		}
		return errors.Join(a.answerJSON(v.failed(err)), silent(err))
	}
	if err != nil {
		return explainBranch(r.ID, result.Refused, err)
	}
	return a.answer(func(w io.Writer) error {
		p := painter(a.color(a.stdout))
		for _, path := range result.Applied {
			fmt.Fprintln(w, describe(cs.Find(path), p))
		}
		for _, s := range result.Skipped {
			if c := cs.Find(s.Path); c == nil || !c.Git {
				fmt.Fprintf(w, "%s %s: %s\n", p.paint(yellow, "skipped "), event.Printable(s.Path), event.Printable(s.Reason))
			}
		}
		for _, path := range result.Mixed {
			fmt.Fprintf(w, "%s %s had uncommitted changes of yours when the run started; the commit holds them too\n", p.paint(yellow, "note    "), event.Printable(path))
		}
		_, err := fmt.Fprintf(w, "%s of run %s: commit %s on the new branch %s; the work tree is as it was\nreview it with `git log -p %s`\n",
			plural(len(result.Applied), "change"), r.ID, shortID(result.Commit), result.Branch, result.Branch)
		return err
	})
}

// applyCommits makes a branch of the agent's own commits.
func (a *app) applyCommits(ctx context.Context, r *runs.Run, cs *workspace.ChangeSet, cfg workspace.ApplyConfig, f applyFlags) error {
	result, err := workspace.FetchCommits(ctx, workspace.CommitsConfig{
		RunDir: cfg.RunDir, Protected: cfg.Protected, AllowProtected: cfg.AllowProtected, Branch: f.branch,
	})
	if f.json {
		v := appliedJSON{
			Run: r.ID, Project: cs.Base, Branch: result.Branch, Commit: result.Commit, Commits: result.Count,
			Applied: []pathJSON{}, Already: []pathJSON{}, Skipped: []pathJSON{}, Conflicts: []pathJSON{},
			Refused: refusalsJSON(result.Refused), Warned: refusalsJSON(result.Warned),
		}
		return errors.Join(a.answerJSON(v.failed(err)), silent(err))
	}
	if err != nil {
		return explainBranch(r.ID, result.Refused, err)
	}
	return a.answer(func(w io.Writer) error {
		p := painter(a.color(a.stdout))
		for _, s := range result.Warned {
			fmt.Fprintf(w, "%s %s: %s\n", p.paint(yellow, "warning "), event.Printable(s.Path), event.Printable(s.Reason))
		}
		_, err := fmt.Fprintf(w, "%s of run %s on the new branch %s, the last one %s; the work tree is as it was\nreview them with `git log -p %s`\n",
			plural(result.Count, "commit"), r.ID, result.Branch, shortID(result.Commit), result.Branch)
		return err
	})
}

// explainBranch says what stood in the way of a branch.
func explainBranch(run runs.ID, refused []workspace.Refusal, err error) error {
	switch {
	case len(refused) > 0:
		return fmt.Errorf("no branch was made: protected paths would change\n%s"+
			"hint: look at them with `agent-sandbox diff %s`; then allow them by name with --allow-protected PATTERN, or leave them out with --skip-protected",
			refusalList(refused), run)
	case errors.Is(err, workspace.ErrNothing):
		return fmt.Errorf("%w\nhint: `agent-sandbox diff %s --stat` lists what the run changed", err, run)
	case errors.Is(err, workspace.ErrNoRepo):
		return fmt.Errorf("%w\nhint: apply without --branch", err)
	}
	return err
}

// silent is the status of a failure that the JSON has told.
func silent(err error) error {
	if err == nil {
		return nil
	}
	return &statusError{code: exitError}
}
