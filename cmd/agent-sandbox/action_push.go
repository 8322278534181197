package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/secret"
	"github.com/org/agent-sandbox/runner/workspace"
)

// canApply refuses, before the agent starts, a branch that can't be made or pushed: the work would be lost.
func (s *step) canApply(ctx context.Context, p *policy.Policy) error {
	if s.in.Branch != "" {
		if err := workspace.CheckBranch(ctx, s.in.Branch); err != nil {
			return fmt.Errorf("branch: %w", err)
		}
	}
	if !s.in.Apply.Pushes() {
		return nil
	}
	if s.job.Repository == "" {
		return fmt.Errorf("apply: %s: the job names no repository\nhint: outside of a workflow, set GITHUB_REPOSITORY", s.in.Apply)
	}
	_, err := s.pusher(p, cmp.Or(s.in.Branch, "agent/run"))
	return err
}

// pusher is the credential of the policy with which a branch can be pushed. The limits are those that the agent has with it: its
// repositories, permissions and refs.
func (s *step) pusher(p *policy.Policy, branch string) (policy.Credential, error) {
	ref := "refs/heads/" + branch
	var patterns []string
	for _, c := range p.Credentials {
		here := slices.ContainsFunc(c.Repositories, func(name string) bool { return name == "self" || strings.EqualFold(name, s.job.Repository) })
		if !here {
			continue
		}
		patterns = append(patterns, c.Push...)
		if !slices.ContainsFunc(c.Push, func(pattern string) bool { return policy.MatchRef(pattern, ref) }) {
			continue
		}
		if s.in.Apply == actions.ApplyPull && c.Permissions["pull_requests"] != "write" {
			return c, fmt.Errorf("the credential %s of the policy can't open a pull request\nhint: add `pull_requests: write` to its permissions", c.Name)
		}
		if c.From.Kind == "github-app" || c.From.Kind == "github-oidc" {
			c.Repositories = []string{s.job.Repository} // nothing else is pushed to
		}
		return c, nil
	}
	if len(patterns) > 0 {
		return policy.Credential{}, fmt.Errorf("the policy does not allow a push of %s: its credentials may push %s", ref, strings.Join(patterns, ", "))
	}
	return policy.Credential{}, fmt.Errorf("apply: %s takes a credential in the policy that may push to this repository\n"+
		"hint: credentials: {github: {from: github-oidc, repositories: [self], permissions: {contents: write, pull_requests: write}, push: [\"refs/heads/agent/*\"]}}", s.in.Apply)
}

// publish pushes a commit, and opens a pull request if that is wanted. The token is issued for this alone, since those of the run were
// given back with its end, and is given back when it is done. What the agent made of git's configuration has no part in it.
func (s *step) publish(ctx context.Context, cfg runner.Config, result runner.Result, branch, commit string) (applied appliedChanges, err error) {
	applied = appliedChanges{text: "commit " + commit + " on the branch " + branch + ", which was not pushed", branch: branch}
	c, err := s.pusher(cfg.Policy, branch)
	if err != nil {
		return applied, err
	}
	token, giveBack, err := s.token(ctx, cfg, c)
	if err != nil {
		return applied, fmt.Errorf("push: %w", err)
	}
	defer func() { err = errors.Join(err, giveBack()) }()
	server := strings.TrimRight(cmp.Or(s.job.ServerURL, "https://github.com"), "/")
	err = workspace.Push(ctx, workspace.PushConfig{
		Target: cfg.Project, Commit: commit, Branch: branch, URL: server + "/" + s.job.Repository + ".git", Token: token,
		CAFile: s.app.env("SSL_CERT_FILE"), Proxy: cfg.Proxy.HTTPS, NoProxy: cfg.Proxy.No,
	})
	if err != nil {
		return applied, err
	}
	applied.text = "commit " + commit + " pushed to the branch " + branch
	if s.in.Apply != actions.ApplyPull {
		return applied, nil
	}
	spec := actions.PullSpec{
		HTTP: cfg.Credentials.HTTP, API: s.job.APIURL, Token: token, Repository: s.job.Repository, Base: s.job.BaseBranch(), Head: branch,
		Title: "Changes of agent-sandbox run " + result.Run,
	}
	if spec.Body, err = s.pullBody(result); err != nil {
		return applied, err
	}
	if applied.pull, err = actions.OpenPull(ctx, spec); err != nil {
		return applied, err
	}
	applied.text += ", pull request " + applied.pull
	return applied, nil
}

// token issues a token for the push. The function that comes with it revokes the token.
func (s *step) token(ctx context.Context, cfg runner.Config, c policy.Credential) (secret.Value, func() error, error) {
	from := cfg.Credentials
	set, err := credential.Resolve(ctx, []policy.Credential{c}, credential.Config{
		LookupEnv: cfg.LookupEnv, CI: cfg.CI, Dir: cfg.Project, Self: from.Self, OIDC: from.OIDC, HTTP: from.HTTP, GitHubAPI: from.GitHubAPI,
		Emit: s.tellToken, Keeper: credential.NewKeeperWith(s.keepTokens(statePush)),
	})
	if err != nil {
		return secret.Value{}, nil, err
	}
	token, err := set.Grants[0].Value(ctx)
	if err != nil {
		return secret.Value{}, nil, errors.Join(err, set.Close(ctx))
	}
	s.log.Mask(token)
	set.Announce()
	return token, func() error { return set.Close(ctx) }, nil
}

// tellToken says in the log what became of a token, by the name that it has in GitHub's audit log.
func (s *step) tellToken(e event.Event) {
	switch e := e.(type) {
	case event.CredentialIssued:
		s.log.Printf("a token of the credential %s was issued for the push: %s", e.Name, e.TokenSHA256)
	case event.CredentialRevoked:
		s.log.Printf("the token %s was given back: %s", e.TokenSHA256, e.Status)
	}
}

// pullBody describes a run for who reviews its changes. Nothing in it is the agent's own words.
func (s *step) pullBody(result runner.Result) (string, error) {
	digest, err := manifestDigest(result.Dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("A coding agent made these changes in a sandbox.\n\n| | |\n|---|---|\n")
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", name, actions.Code(value))
		}
	}
	row("Run", result.Run)
	row("Manifest", digest)
	if start := result.Summary.Start; start != nil {
		row("Policy", start.Policy.Digest)
	}
	if n := result.Summary.Changes; n != nil {
		row("Changes", plural(n.Total(), "file"))
	}
	row("Workflow", s.job.RunURL())
	return b.String(), nil
}

// manifestDigest is that of a run's manifest as it was written; empty for a run without one.
func manifestDigest(dir string) (string, error) {
	sum, err := fileDigest(filepath.Join(dir, runs.ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return "sha256:" + sum, err
}
