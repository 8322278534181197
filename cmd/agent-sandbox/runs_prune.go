package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/runs"
)

// pruneFlags are the flags of runs prune.
type pruneFlags struct {
	olderThan    string
	dryRun, json bool
}

func (a *app) runsPruneCommand() *cobra.Command {
	var f pruneFlags
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove the runs whose evidence need not be kept any longer",
		Long: `prune removes each run that is older than evidence.retain of the policy that it ran under (90d, if that
says nothing), with its manifest, its logs and its changes. Nothing else removes runs by their age; a run that
goes on is never removed.`,
		Example: `  agent-sandbox runs prune --dry-run
  agent-sandbox runs prune --older-than 30d`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.pruneRuns(f) },
	}
	c.Flags().StringVar(&f.olderThan, "older-than", "", "age such as 30d, instead of what the policies say")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say which runs would go, and remove nothing")
	c.Flags().BoolVar(&f.json, "json", false, "print the ids as JSON")
	return c
}

func (a *app) pruneRuns(f pruneFlags) error {
	cfg := runs.PruneConfig{Now: time.Now(), Keep: retention, DryRun: f.dryRun}
	if f.olderThan != "" {
		age, err := policy.ParseDuration(f.olderThan)
		if err != nil {
			return usage("--older-than: %w", err)
		}
		cfg.Keep = func(*runs.Run) (time.Duration, error) { return age, nil }
	}
	store, err := a.store()
	if err != nil {
		return err
	}
	defer store.Close()
	list, err := store.List(0)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range list {
		_, err := a.settle(r)
		errs = append(errs, err)
	}
	gone, err := store.Prune(cfg)
	errs = append(errs, err)
	return errors.Join(append(errs, a.tellPruned(f, gone))...)
}

func (a *app) tellPruned(f pruneFlags, gone []runs.ID) error {
	if f.json {
		return a.answerJSON(gone)
	}
	word := "removed"
	if f.dryRun {
		word = "would be removed"
	}
	return a.answer(func(w io.Writer) error {
		for _, id := range gone {
			if _, err := fmt.Fprintf(w, "%s %s\n", id, word); err != nil {
				return err
			}
		}
		return nil
	})
}

// retention is how long a run's evidence is kept, by the policy in its plan. A run that did not get as far as a plan is kept as
// long as one without a policy.
func retention(r *runs.Run) (time.Duration, error) {
	var plan struct {
		Policy struct {
			Compiled struct {
				Evidence struct {
					Retain string `json:"retain"`
				} `json:"evidence"`
			} `json:"compiled"`
		} `json:"policy"`
	}
	err := r.ReadJSON(runs.PlanFile, &plan)
	if errors.Is(err, runs.ErrNotFound) {
		return policy.Default().Evidence.Retain, nil
	}
	if err != nil {
		return 0, err
	}
	keep, err := policy.ParseDuration(plan.Policy.Compiled.Evidence.Retain)
	if err != nil {
		return 0, fmt.Errorf("run %s: how long its evidence is kept: %w", r.ID, err)
	}
	return keep, nil
}
