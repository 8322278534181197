package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/engine"
)

// actionPost is what comes after the job. Of a step that was killed it revokes the tokens, removes what is in the engine and ends the record;
// of any other nothing is left. All that it knows is what the step saved.
func (a *app) actionPost(ctx context.Context) error {
	log := actions.NewLog(a.stdout)
	saved, err := a.savedState()
	if err != nil {
		return err
	}
	run := saved[stateRun]
	if run == "" { // the step never got as far as a run
		return removeRecord(saved)
	}
	log.Group("Cleaning up after the sandbox")
	tokenErr := errors.Join(revokeSaved(ctx, log, saved[stateTokens]), revokeSaved(ctx, log, saved[statePush]))
	n, sweepErr := a.sweep(ctx, run)
	if n > 0 {
		log.Printf("removed %s of run %s", plural(n, "container or volume"), run)
	}
	log.EndGroup()
	var recordErr error
	if saved[stateEnded] == "" {
		var text string
		text, recordErr = a.endKilled(ctx, log, saved)
		log.Annotate(actions.Annotation{Level: actions.Warning, Title: "agent-sandbox", Text: text})
	}
	if unreadRecord(saved) { // what nobody could read is not thrown away
		log.Printf("what the agent of run %s wrote stays, unread, in %s", run, saved[stateRecord])
		saved[stateRecord] = ""
	}
	if err := errors.Join(tokenErr, sweepErr, recordErr, removeRecord(saved)); err != nil {
		log.Annotate(actions.Annotation{Level: actions.Error, Title: "agent-sandbox", Text: err.Error()})
		return &statusError{code: exitError}
	}
	return log.Err()
}

// revokeSaved revokes the tokens that the step did not.
func revokeSaved(ctx context.Context, log *actions.Log, saved string) error {
	if saved == "" {
		return nil
	}
	var kept []credential.Kept
	if err := json.Unmarshal([]byte(saved), &kept); err != nil {
		return errors.New("the tokens that the step saved can't be read") // the text of err has a part of them
	}
	if len(kept) == 0 {
		return nil
	}
	n, err := credential.Revoke(ctx, kept, webClient(nil))
	log.Printf("revoked %s that the step left", plural(n, "token"))
	if err != nil {
		return fmt.Errorf("%s of a killed run could not be revoked, and end by themselves within the hour: %w", plural(len(kept)-n, "token"), err)
	}
	return nil
}

// sweep removes what a run has in the engine.
func (a *app) sweep(ctx context.Context, run string) (n int, err error) {
	cfg, err := a.engineConfig()
	if err != nil {
		return 0, err
	}
	e, err := engine.Connect(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return e.Sweep(ctx, run)
}
