package runner

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// credentials obtains what the policy names, before anything is made that would have to be removed.
func (r *run) credentials(ctx context.Context) error {
	p := r.cfg.Policy
	set, err := credential.Resolve(ctx, p.Credentials, r.credentialConfig())
	if err != nil {
		return err
	}
	r.issued, r.grants = set, set.Grants
	if err := r.hold(ctx); err != nil {
		return err
	}
	if err := r.ages(ctx); err != nil {
		return err
	}
	set.Announce()
	for i, g := range r.grants {
		r.lowerInside(g)
		if g.Broad != "" && (i == 0 || r.grants[i-1].Name != g.Name) {
			r.lower("credential", g.Name+": "+g.Broad, "use a token for this project alone")
		}
	}
	return nil
}

// lowerInside puts on record that a secret itself is inside, and warns of one that ends before the task may: nothing replaces it there.
func (r *run) lowerInside(g credential.Grant) {
	where := "in the file " + credentialPath(g.Name)
	switch g.Deliver {
	case policy.DeliverEnv:
		where = "in the environment (" + strings.Join(g.Env, ", ") + ")"
	case policy.DeliverFile:
	default:
		return
	}
	r.lower("credential", fmt.Sprintf("%s: the policy says deliver: %s: the secret itself is inside, %s, where the agent can read and keep it", g.Name, g.Deliver, where), "use `deliver: inject`")
	if end := time.Now().Add(r.timeout()); !g.Expires.IsZero() && g.Expires.Before(end) {
		r.rec.Emit(event.Warning{
			Message: fmt.Sprintf("the credential %s ends at %s, and the task may run until %s: what is inside is not replaced", g.Name, g.Expires.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339)),
			Mend:    "set a shorter `resources.timeout`, or use `deliver: inject`",
		})
	}
}

// credentialPath is where a secret is inside that the policy wants there as a file: in memory, mode 0400, the agent's own.
func credentialPath(name string) string { return path.Join("/run/credentials", name) }

func (r *run) credentialConfig() credential.Config {
	from := r.cfg.Credentials
	cfg := credential.Config{
		LookupEnv: r.cfg.LookupEnv, Env: r.cfg.Policy.Env, CI: r.cfg.CI, Dir: r.cfg.Project, Visible: r.visible, Dry: r.dry,
		Run: r.id, Self: from.Self, OIDC: r.identity(from.OIDC), HTTP: from.HTTP, GitHubAPI: from.GitHubAPI, Emit: r.rec.Emit, Permissions: map[string]string{}, Now: r.cfg.clock(),
	}
	if r.cfg.Ceiling != nil {
		for _, c := range r.cfg.Ceiling.Credentials {
			for name, level := range c.Permissions {
				cfg.Permissions[name] = level
			}
		}
	}
	switch {
	case from.KeepWith != nil:
		cfg.Keeper = credential.NewKeeperWith(from.KeepWith)
	case from.Keep != "":
		cfg.Keeper = credential.NewKeeper(from.Keep, r.id)
	}
	return cfg
}

// identity has the job's identity looked for in what the run says: a service that refuses it may quote it.
func (r *run) identity(get func(context.Context, string) (secret.Value, error)) func(context.Context, string) (secret.Value, error) {
	if get == nil {
		return nil
	}
	return func(ctx context.Context, audience string) (secret.Value, error) {
		v, err := get(ctx, audience)
		r.secrets.add("identity", v)
		return v, err
	}
}

// visible tells whether the agent can read a file of the host: one of the project that is not hidden, or of a mount.
func (r *run) visible(path string) bool {
	below := func(dir string) (string, bool) {
		rel, err := filepath.Rel(dir, path)
		rel = filepath.ToSlash(rel)
		return rel, err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
	}
	for _, dir := range append([]string{r.cfg.Project}, realPaths(r.cfg.Project)...) {
		if rel, in := below(dir); in {
			return !policy.NewPatternSet(r.cfg.Policy.Workspace.Hide).Match(rel, false)
		}
	}
	for _, m := range r.cfg.Policy.Mounts {
		if !filepath.IsAbs(m.Source) { // below the home directory or the project; which one does not matter
			if _, in := below(filepath.Join(r.cfg.Project, filepath.FromSlash(m.Source))); in {
				return true
			}
			if home, ok := r.cfg.LookupEnv("HOME"); ok {
				if _, in := below(filepath.Join(home, strings.TrimPrefix(m.Source, "~/"))); in {
					return true
				}
			}
			continue
		}
		for _, dir := range append([]string{m.Source}, realPaths(m.Source)...) {
			if _, in := below(dir); in {
				return true
			}
		}
	}
	return false
}

// realPaths is where a path leads through its links, if that can be told.
func realPaths(path string) []string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil
	}
	return []string{real}
}

// giveBack revokes what was issued for the run. A token that can't be revoked is no failure of the task: it is told of, and ends by itself.
func (r *run) giveBack(ctx context.Context) {
	if r.cfg.keepsTokens() {
		return
	}
	if err := r.issued.Close(ctx); err != nil {
		r.rec.Emit(event.Warning{Message: err.Error(), Mend: "`agent-sandbox doctor --clean` tries again; a token of GitHub's ends after an hour"})
	}
}
