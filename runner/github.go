package runner

import (
	"context"
	"slices"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/event"
)

// gitHubScope is what a credential of GitHub's is held to on the wire; nil for one whose policy names no repositories.
func (r *run) gitHubScope(name string, granted []event.CredentialRepository, shared bool) *egress.GitHub {
	i := slices.IndexFunc(r.cfg.Policy.Credentials, func(c policy.Credential) bool { return c.Name == name })
	if i < 0 || len(r.cfg.Policy.Credentials[i].Repositories) == 0 {
		return nil
	}
	c := r.cfg.Policy.Credentials[i]
	issued := c.From.Kind == "github-oidc" || c.From.Kind == "github-app"
	scope := &egress.GitHub{Push: c.Push, Scoped: issued, PublicRead: c.PublicRead, Shared: shared, ReadOnly: issued && !changes(c.Permissions)}
	for _, g := range granted {
		scope.Repositories = append(scope.Repositories, egress.GitHubRepository{ID: g.ID, Name: g.Name})
	}
	if len(granted) == 0 {
		for _, name := range c.Repositories {
			scope.Repositories = append(scope.Repositories, egress.GitHubRepository{Name: name})
		}
	}
	return scope
}

// changes tells whether one of the permissions is more than to read.
func changes(permissions map[string]string) bool {
	for _, level := range permissions {
		if level != "read" {
			return true
		}
	}
	return false
}

// used tells what the credentials were used for.
func (r *run) used(ctx context.Context) {
	if r.gateway == nil {
		return
	}
	for _, u := range r.gateway.Usage() {
		r.rec.Emit(event.CredentialUsed{Name: u.Credential, Requests: u.Requests, Permissions: u.Permissions, PerHost: u.PerHost})
		if u.Requests > 0 {
			i := slices.IndexFunc(r.grants, func(g credential.Grant) bool { return g.Label() == u.Credential })
			r.usedKept(ctx, r.grants[i].Name)
		}
	}
}
