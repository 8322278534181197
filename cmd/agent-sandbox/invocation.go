package main

import (
	"cmp"
	"context"
	"errors"
	osuser "os/user"
	"path/filepath"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/event"
)

// invocation is who or what started this run, as the environment says. A job's own variables are no proof; a signature with the job's
// identity is.
func (a *app) invocation() event.Invocation {
	if a.env("GITHUB_ACTIONS") != "true" {
		i := event.Invocation{Trigger: event.TriggerLocal}
		if u, err := osuser.Current(); err == nil {
			i.Actor = u.Username
		}
		return i
	}
	i := event.Invocation{
		Trigger: event.TriggerActions, Actor: a.env("GITHUB_TRIGGERING_ACTOR"), ActorID: a.env("GITHUB_ACTOR_ID"),
		Repository: a.env("GITHUB_REPOSITORY"), RepositoryID: a.env("GITHUB_REPOSITORY_ID"), RepositoryOwnerID: a.env("GITHUB_REPOSITORY_OWNER_ID"),
		Workflow: a.env("GITHUB_WORKFLOW_REF"), WorkflowSHA: a.env("GITHUB_WORKFLOW_SHA"), Job: a.env("GITHUB_JOB"),
		Event: a.env("GITHUB_EVENT_NAME"), Ref: a.env("GITHUB_REF"), SHA: a.env("GITHUB_SHA"),
	}
	if i.Actor == "" {
		i.Actor = a.env("GITHUB_ACTOR")
	}
	if server, run := a.env("GITHUB_SERVER_URL"), a.env("GITHUB_RUN_ID"); server != "" && run != "" {
		i.RunURL = strings.Join([]string{server, i.Repository, "actions/runs", run}, "/")
	}
	if a.env("ACT") == "true" {
		i.Trigger = event.TriggerAct
	}
	return i
}

// policyOrigin says where the policy of a run was read from.
func policyOrigin(file string, p *policy.Policy) string {
	switch {
	case file != "":
		return "file"
	case p != nil && p.Name() == "":
		return "default"
	}
	return "project"
}

// refused leaves the record of a run whose policy was refused; p is nil if it did not load. The caller hears of the refusal itself.
func (a *app) refused(ctx context.Context, f runFlags, args []string, project string, p *policy.Policy, err error) error {
	problems, ok := errors.AsType[policy.Problems](err)
	if !ok || len(problems) == 0 {
		return err
	}
	store, storeErr := a.store()
	if storeErr != nil {
		return errors.Join(err, storeErr)
	}
	defer store.Close()
	cfg := runner.Config{
		Version: version, Argv: args, Project: project, TTY: f.tty, Policy: p, Store: store, Invocation: a.invocation(), RefusedExit: exitUsage,
		PolicyFile: displayPath(cmp.Or(f.policy, filepath.Join(project, policyFile))), PolicyOrigin: policyOrigin(f.policy, p),
	}
	if !f.command && len(args) == 1 {
		cfg.Task = args[0]
	}
	// Signed if a key is at hand: what the policy says of it may be what is wrong.
	if key := cmp.Or(f.signKey, a.env(signingKeyVariable)); key != "" {
		if s, keyErr := a.keySigner(key, false); keyErr == nil {
			cfg.Signer = s
		}
	}
	if _, recordErr := runner.Refuse(ctx, cfg, problems); recordErr != nil {
		return errors.Join(err, recordErr)
	}
	return err
}
