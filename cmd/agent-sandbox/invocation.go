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
	"github.com/org/agent-sandbox/runner/manifest"
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

// settled is what the flags and the environment say about a run. What they lack for what the policy asks is a refusal, and recorded.
func (a *app) settled(ctx context.Context, f runFlags, args []string) (runner.Config, error) {
	cfg, err := a.runConfig(ctx, f, args)
	if _, ok := errors.AsType[*runner.RefusedError](err); !ok || f.dryRun {
		return cfg, err
	}
	project, _, projectErr := a.project(f.workspace)
	p, policyErr := a.policy(f.policy, project)
	if projectErr != nil || policyErr != nil {
		return cfg, err // they were there a moment ago
	}
	return cfg, a.refused(ctx, f, args, project, p, err)
}

// refused leaves the record of a run that was refused before it began: for its policy, which is nil if it did not load, or because something
// that the policy asks for is not to be had here. The caller hears of the refusal itself.
func (a *app) refused(ctx context.Context, f runFlags, args []string, project string, p *policy.Policy, err error) error {
	problems, _ := errors.AsType[policy.Problems](err)
	refusal, lacking := errors.AsType[*runner.RefusedError](err)
	if len(problems) == 0 && !lacking {
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
		Signer: a.refusalSigner(p, f.signKey),
	}
	if !f.command && len(args) == 1 {
		cfg.Task = args[0]
	}
	reason := ""
	if lacking {
		cfg.RefusedExit, reason = exitFailure, refusal.Reason
	} else {
		reason = "the policy was refused: " + problems[0].Error()
	}
	result, recordErr := runner.Refuse(ctx, cfg, reason, problems)
	if p != nil && !lacking { // else what is lacking may be just this
		_, attestErr := a.attest(ctx, cfg, result)
		recordErr = errors.Join(recordErr, attestErr)
	}
	return errors.Join(err, recordErr)
}

// refusalSigner signs the record of a refusal. A policy that did not load leaves it to what is at hand, and so does one that asks for what is
// not; nobody is asked for a passphrase.
func (a *app) refusalSigner(p *policy.Policy, keyFile string) manifest.Signer {
	if p == nil {
		p = policy.Default()
	}
	s, err := a.signerOf(p, keyFile, false)
	if err == nil {
		return s
	}
	if s, err := a.keySigner(cmp.Or(keyFile, a.env(signingKeyVariable)), false); err == nil {
		return s
	}
	why, _, _ := strings.Cut(err.Error(), "\n")
	return manifest.Unsigned{Why: why}
}
