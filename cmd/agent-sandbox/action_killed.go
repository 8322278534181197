package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// endKilled ends the record of a run whose step was killed, and leaves it where the step would have. It says what is known.
func (a *app) endKilled(ctx context.Context, log *actions.Log, saved map[string]string) (text string, err error) {
	run := saved[stateRun]
	text = "the step was killed before its run " + run + " had ended: there is no record of it, and nothing of it was applied"
	s := &step{app: a, log: log}
	if s.job, err = actions.FromEnv(a.lookupEnv); err != nil {
		return text, err
	}
	s.job.Files.State = "" // nothing comes after this
	s.mask()
	if s.in, err = actions.ParseInputs(actions.InputsFromEnv(os.Environ())); err != nil { // a runner that hands none on
		s.in = actions.Inputs{Upload: actions.UploadAuto}
	}
	if s.temp, err = os.MkdirTemp("", "agent-sandbox-action-*"); err != nil {
		return text, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.temp)) }()
	if !exists(saved[stateRecord]) {
		return text, nil // it was in the container
	}
	store, err := runs.Open(filepath.Join(saved[stateRecord], "agent-sandbox", "runs"))
	if err != nil {
		return text, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	r, err := store.Resolve(run)
	if err != nil {
		return text, err
	}
	p, err := savedPolicy(saved)
	if err != nil {
		return text, err
	}
	sum, text, err := a.settleKilled(ctx, r, p)
	if sum.Outcome == "" { // else there is a record, whatever it lacks
		return text, err
	}
	if err := errors.Join(err, s.clearFiles(run)); err != nil && exists(filepath.Join(s.job.Workspace, outputDir, run)) {
		return text, err
	}
	return text, errors.Join(err, s.leave(ctx, p, runner.Result{Run: run, Dir: r.Dir(), ExitCode: sum.ExitCode, Summary: sum}, appliedChanges{}))
}

// savedPolicy is the default policy with what the run's says of its record.
func savedPolicy(saved map[string]string) (*policy.Policy, error) {
	p := *policy.Default()
	if text := saved[stateProof]; text != "" {
		var of proof
		if err := json.Unmarshal([]byte(text), &of); err != nil {
			return nil, fmt.Errorf("what the step saved of the policy: %w", err)
		}
		p.Evidence.Sign, p.Evidence.Retain = of.Sign, of.Retain
	}
	return &p, nil
}

// settleKilled gives the run a result, unless it has one, takes an apply back that stopped half-way, and says how far all of it got.
func (a *app) settleKilled(ctx context.Context, r *runs.Run, p *policy.Policy) (sum event.Summary, text string, err error) {
	state, err := r.State()
	if err != nil {
		return sum, "", err
	}
	text = "the step was killed after its run " + string(r.ID) + " had ended: its record is whole, and whether its changes were applied is not known"
	if state == runs.Interrupted {
		text = "the step was killed before its run " + string(r.ID) + " had ended: its record says so, and nothing of it was applied"
		sealer := a.sealer()
		if signer, err := a.signer(p, ""); err == nil { // else who signs is who can
			sealer.Signer = signer
		}
		if runner.Unread(r) {
			changes := "what the agent had changed by then is in it"
			if sum, err = a.recoverKilled(ctx, r, sealer); err != nil {
				changes, err = "what the agent had changed by then could not be read", fmt.Errorf("read the changes of run %s: %w", r.ID, err)
			}
			text = "the step was killed before its run " + string(r.ID) + " had ended: its record says so, " + changes + ", and nothing of it was applied"
		} else {
			sealer.Seal(ctx, r)
			sum, err = r.Recover()
		}
		sum.Manifest = r.Sealed()
	} else {
		sum, err = r.Summary()
	}
	if exists(filepath.Join(r.Dir(), applyJournal)) {
		text += "; an apply that was half done was taken back"
		err = errors.Join(err, locked(r, func() error { _, err := workspace.Recover(r.Dir()); return err }))
	}
	return sum, text, err
}

// recoverKilled reads what the agent had changed.
func (a *app) recoverKilled(ctx context.Context, r *runs.Run, sealer runner.Sealer) (sum event.Summary, err error) {
	cfg, err := a.engineConfig()
	if err != nil {
		return sum, err
	}
	e, err := engine.Connect(ctx, cfg)
	if err == nil {
		defer func() { err = errors.Join(err, e.Close()) }()
	} // else there is none to ask, and the record is ended all the same
	return runner.Recover(ctx, runner.RecoverConfig{Version: version, Dir: r, Engine: e, Sealer: sealer})
}

// unreadRecord tells whether the record of a killed step has changes that nobody could read.
func unreadRecord(saved map[string]string) bool {
	dir := saved[stateRecord]
	if !strings.HasPrefix(filepath.Base(dir), recordPrefix) {
		return false
	}
	left, err := filepath.Glob(filepath.Join(dir, "agent-sandbox", "runs", "*", runs.RecoveryFile))
	return err == nil && len(left) > 0
}

// clearFiles removes what the step may have left of the run's files in the workspace before it was killed.
func (s *step) clearFiles(run string) error {
	root, err := os.OpenRoot(s.job.Workspace)
	if err != nil {
		return err
	}
	return errors.Join(root.RemoveAll(path.Join(outputDir, run)), root.Close())
}

// removeRecord removes the directory of the record, from which everything has been taken.
func removeRecord(saved map[string]string) error {
	dir := saved[stateRecord]
	if !strings.HasPrefix(filepath.Base(dir), recordPrefix) { // what was saved is not worth the removal of anything else
		return nil
	}
	return os.RemoveAll(dir)
}
