package runnertest

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/box"
)

// secretStore has the Actions secrets of a repository, an environment or an organisation.
type secretStore struct {
	keyID           string
	public, private *[32]byte
	secrets         map[string]*storedSecret
}

type storedSecret struct {
	value            string
	created, updated time.Time
	visibility       string
	repositories     []int64
}

func newSecretStore(t testing.TB) *secretStore {
	t.Helper()
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &secretStore{keyID: itoa(int(public[0])<<24 | int(public[1])<<16 | int(public[2])<<8 | int(public[3])), public: public, private: private, secrets: map[string]*storedSecret{}}
}

// Secret is what a secret of the repository holds, and when it was last set. GitHub itself never tells the value.
func (r *Repository) Secret(name string) (value string, updated time.Time) {
	return r.g.secretIn(r.secrets, name)
}

// EnvironmentSecret is the same for an environment, which [Repository.AddEnvironment] makes.
func (r *Repository) EnvironmentSecret(environment, name string) (value string, updated time.Time) {
	return r.g.secretIn(r.environments[environment], name)
}

// OrganizationSecret is the same for an organisation.
func (g *GitHub) OrganizationSecret(org, name string) (value string, updated time.Time) {
	g.mu.Lock()
	store := g.owner(org).secrets
	g.mu.Unlock()
	return g.secretIn(store, name)
}

// AddEnvironment makes an environment.
func (r *Repository) AddEnvironment(name string) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	r.environments[name] = newSecretStore(r.g.t)
}

// SetSecret sets a secret of the repository, as at this time.
func (r *Repository) SetSecret(name, value string, updated time.Time) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	r.secrets.secrets[name] = &storedSecret{value: value, created: updated, updated: updated}
}

// SetEnvironmentSecret is the same for an environment.
func (r *Repository) SetEnvironmentSecret(environment, name, value string, updated time.Time) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	r.environments[environment].secrets[name] = &storedSecret{value: value, created: updated, updated: updated}
}

// SetOrganizationSecret is the same for an organisation, and selected repositories of it.
func (g *GitHub) SetOrganizationSecret(org, name, value string, updated time.Time, repositories ...*Repository) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &storedSecret{value: value, created: updated, updated: updated, visibility: "selected"}
	for _, r := range repositories {
		s.repositories = append(s.repositories, r.ID)
	}
	g.owner(org).secrets.secrets[name] = s
}

// OrganizationSecretRepositories are the ids of the repositories that it is for.
func (g *GitHub) OrganizationSecretRepositories(org, name string) []int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.owner(org).secrets.secrets[name]; s != nil {
		return s.repositories
	}
	return nil
}

func (g *GitHub) secretIn(store *secretStore, name string) (string, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if store == nil || store.secrets[name] == nil {
		return "", time.Time{}
	}
	return store.secrets[name].value, store.secrets[name].updated
}

// secretScope finds the store of a request, nil after it has answered.
type secretScope func(c *call, level string) *secretStore

func repositorySecrets(c *call, level string) *secretStore {
	if r := c.repository("secrets", level); r != nil {
		return r.secrets
	}
	return nil
}

func environmentSecrets(c *call, level string) *secretStore {
	r := c.repository("environments", level)
	if r == nil {
		return nil
	}
	store := r.environments[c.value("environment")]
	if store == nil {
		c.fail(http.StatusNotFound, "Not Found")
	}
	return store
}

func organizationSecrets(c *call, level string) *secretStore {
	org := c.value("org")
	switch {
	case c.token == nil:
		c.fail(http.StatusUnauthorized, "Requires authentication")
	case c.token.owner != "" && !strings.EqualFold(c.token.owner, org):
		c.fail(http.StatusNotFound, "Not Found")
	case !c.token.may("organization_secrets", level):
		c.fail(http.StatusForbidden, "Resource not accessible by integration")
	default:
		return c.g.owner(org).secrets
	}
	return nil
}

func secretEndpoints() []endpoint {
	var list []endpoint
	for base, scope := range map[string]struct {
		permission string
		find       secretScope
	}{
		"/repos/{owner}/{repo}/actions/secrets":                    {"secrets", repositorySecrets},
		"/repos/{owner}/{repo}/environments/{environment}/secrets": {"environments", environmentSecrets},
		"/repositories/{id}/environments/{environment}/secrets":    {"environments", environmentSecrets}, // as go-github v60 has it
		"/orgs/{org}/actions/secrets":                              {"organization_secrets", organizationSecrets},
	} {
		read, write := scope.permission+"=read", scope.permission+"=write"
		list = append(
			list,
			endpoint{"GET " + base, byToken, read, func(c *call) { c.listSecrets(scope.find(c, "read")) }},
			endpoint{"GET " + base + "/public-key", byToken, read, func(c *call) { c.secretKey(scope.find(c, "read")) }},
			endpoint{"GET " + base + "/{name}", byToken, read, func(c *call) { c.secret(scope.find(c, "read")) }},
			endpoint{"PUT " + base + "/{name}", byToken, write, func(c *call) { c.setSecret(scope.find(c, "write"), scope.permission == "organization_secrets") }},
			endpoint{"DELETE " + base + "/{name}", byToken, write, func(c *call) { c.deleteSecret(scope.find(c, "write")) }},
		)
	}
	return append(list, endpoint{
		"GET /orgs/{org}/actions/secrets/{name}/repositories", byToken, "organization_secrets=read",
		func(c *call) { c.secretRepositories(organizationSecrets(c, "read")) },
	})
}

// secretRepositories are those that a secret of an organisation is for, if it is for selected ones.
func (c *call) secretRepositories(store *secretStore) {
	if store == nil {
		return
	}
	s := store.secrets[c.value("name")]
	switch {
	case s == nil:
		c.fail(http.StatusNotFound, "Not Found")
		return
	case s.visibility != "selected":
		c.fail(http.StatusConflict, "Visibility is not selected")
		return
	}
	list := []any{}
	for _, id := range s.repositories {
		list = append(list, map[string]any{"id": id})
	}
	c.answer(http.StatusOK, map[string]any{"total_count": len(list), "repositories": list})
}

func (s *storedSecret) json(name string) map[string]any {
	v := map[string]any{"name": name, "created_at": s.created.UTC().Format(time.RFC3339), "updated_at": s.updated.UTC().Format(time.RFC3339)}
	if s.visibility != "" {
		v["visibility"] = s.visibility
	}
	return v
}

func (c *call) listSecrets(store *secretStore) {
	if store == nil {
		return
	}
	list := []any{}
	var names []string
	for name := range store.secrets {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		list = append(list, store.secrets[name].json(name))
	}
	c.answer(200, map[string]any{"total_count": len(list), "secrets": list})
}

func (c *call) secretKey(store *secretStore) {
	if store != nil {
		c.answer(200, map[string]any{"key_id": store.keyID, "key": base64.StdEncoding.EncodeToString(store.public[:])})
	}
}

func (c *call) secret(store *secretStore) {
	if store == nil {
		return
	}
	s := store.secrets[c.value("name")]
	if s == nil {
		c.fail(http.StatusNotFound, "Not Found")
		return
	}
	c.answer(200, s.json(c.value("name")))
}

// secretName is compiled once and never changed.
var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (c *call) setSecret(store *secretStore, ofOrganization bool) {
	var req struct {
		EncryptedValue string  `json:"encrypted_value"`
		KeyID          string  `json:"key_id"`
		Visibility     string  `json:"visibility"`
		Repositories   []int64 `json:"selected_repository_ids"`
	}
	if store == nil || !c.read(&req) {
		return
	}
	name := c.value("name")
	sealed, err := base64.StdEncoding.DecodeString(req.EncryptedValue)
	value, ok := box.OpenAnonymous(nil, sealed, store.public, store.private)
	switch {
	case !secretName.MatchString(name) || strings.HasPrefix(strings.ToUpper(name), "GITHUB_"):
		c.fail(http.StatusUnprocessableEntity, "Secret names can only contain alphanumeric characters and underscores, and must not start with GITHUB_")
	case req.KeyID != store.keyID:
		c.fail(http.StatusUnprocessableEntity, "Bad request - key_id is not the current public key")
	case err != nil || !ok:
		c.fail(http.StatusUnprocessableEntity, "Improperly encrypted secret")
	case ofOrganization && !slices.Contains([]string{"all", "private", "selected"}, req.Visibility):
		c.fail(http.StatusUnprocessableEntity, "visibility is missing")
	default:
		status := http.StatusNoContent
		s := store.secrets[name]
		if s == nil {
			status = http.StatusCreated
			s = &storedSecret{created: c.g.now()}
			store.secrets[name] = s
		}
		s.value, s.updated, s.visibility, s.repositories = string(value), c.g.now(), req.Visibility, req.Repositories
		c.w.WriteHeader(status)
	}
}

func (c *call) deleteSecret(store *secretStore) {
	if store == nil {
		return
	}
	if store.secrets[c.value("name")] == nil {
		c.fail(http.StatusNotFound, "Not Found")
		return
	}
	delete(store.secrets, c.value("name"))
	c.w.WriteHeader(http.StatusNoContent)
}
