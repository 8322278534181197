package rotate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/runnertest"
)

// world is a provider with a key, and the places where that is kept.
type world struct {
	t        testing.TB
	provider *runnertest.KeyProvider
	oldID    string
	old      string
	github   *runnertest.GitHub
	shop     *runnertest.Repository
	vault    *runnertest.VaultKV
	dir      string
	env      map[string]string
	source   string // env or file
}

const gitHubToken = "ghs_000000000000000000000000000000000000"

func newWorld(t testing.TB, source string) *world {
	t.Helper()
	w := &world{t: t, github: runnertest.NewGitHub(t, runnertest.GitHubConfig{}), vault: runnertest.NewVaultKV(t), dir: t.TempDir(), source: source}
	w.provider, w.oldID, w.old = runnertest.NewKeyProvider(t)
	w.shop = w.github.AddRepository("acme/shop")
	w.github.AddToken(runnertest.Token{Text: gitHubToken, RepositoryIDs: []int64{w.shop.ID}, Permissions: map[string]string{
		"secrets": "write", "environments": "write", "organization_secrets": "write",
	}, Expires: w.github.Now().Add(time.Hour)})
	ago := w.github.Now().Add(-40 * 24 * time.Hour)
	w.shop.SetSecret("MODEL_KEY", w.old, ago)
	w.shop.AddEnvironment("production")
	w.shop.SetEnvironmentSecret("production", "MODEL_KEY", w.old, ago)
	w.github.SetOrganizationSecret("acme", "MODEL_KEY", w.old, ago, w.shop)
	w.vault.Put("ci/model", map[string]any{"key": w.old, "other": map[string]any{"n": 12345678901234567}}, ago)
	w.write("key", w.old+"\n", 0o600)
	if err := os.Chtimes(filepath.Join(w.dir, "key"), ago, ago); err != nil {
		t.Fatal(err)
	}
	w.env = map[string]string{"MODEL_KEY": w.old, "ADMIN": w.provider.Admin, "GH_TOKEN": gitHubToken, "VAULT_TOKEN": w.vault.Token, "HOME": w.dir}
	return w
}

func (w *world) write(name, content string, mode os.FileMode) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), mode); err != nil {
		w.t.Fatal(err)
	}
}

// recipe is the policy's text.
func (w *world) recipe() string {
	from := map[string]string{"env": "env:MODEL_KEY", "file": "file:./key"}[w.source]
	return strings.NewReplacer("FROM", from, "PROVIDER", w.provider.URL, "VAULT", w.vault.URL).Replace(`version: 1
credentials:
  model:
    from: FROM
    host: api.example.com
    rotate: 30d
    rotation:
      token: env:ADMIN
      identify: {request: "GET PROVIDER/v1/key", headers: {x-api-key: "{old}"}, id: /id}
      create: {request: "POST PROVIDER/v1/keys", headers: {Authorization: "Bearer {token}"}, body: '{"name": "after {old-id}"}', value: /api_key/value, id: /id}
      prove: {request: "GET PROVIDER/v1/models", headers: {x-api-key: "{new}"}}
      store:
        - {github: MODEL_KEY, repository: self}
        - {github: MODEL_KEY, repository: acme/shop, environment: production}
        - {github: MODEL_KEY, organization: acme}
        - {vault: "kv/data/ci/model#key", address: "VAULT"}
        - {file: ./key}
      revoke: {request: "DELETE PROVIDER/v1/keys/{old-id}", headers: {Authorization: "Bearer {token}"}}
`)
}

func (w *world) credential() policy.Credential { return loadCredential(w.t, w.recipe()) }

func loadCredential(t testing.TB, src string) policy.Credential {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return p.Credentials[0]
}

func (w *world) config() Config { return configOf(w.t, w.dir, w.github.API(), w.env) }

func configOf(t testing.TB, dir, api string, env map[string]string) Config {
	t.Helper()
	book, err := OpenBook(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Sources: credential.Config{
			LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }, Dir: dir, Self: "acme/shop", GitHubAPI: api,
		},
		Book: book, Scope: dir,
		Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
}

// places are the keys that are kept, by place.
func (w *world) places() map[string]string {
	w.t.Helper()
	repository, _ := w.shop.Secret("MODEL_KEY")
	environment, _ := w.shop.EnvironmentSecret("production", "MODEL_KEY")
	organization, _ := w.github.OrganizationSecret("acme", "MODEL_KEY")
	data, _ := w.vault.Data("ci/model")
	file, err := os.ReadFile(filepath.Join(w.dir, "key"))
	if err != nil {
		w.t.Fatal(err)
	}
	return map[string]string{
		"repository": repository, "environment": environment, "organization": organization, "vault": fmt.Sprint(data["key"]), "file": strings.TrimSpace(string(file)),
	}
}

// alive checks that each place has a key that works.
func (w *world) alive(when string) {
	w.t.Helper()
	for place, key := range w.places() {
		if !w.provider.Works(key) {
			w.t.Errorf("%s: the key in the %s is dead", when, place)
		}
	}
}

// finished checks that all places have one new key, and that of the provider's there are no others but lost ones.
func (w *world) finished(when string, lost int) {
	w.t.Helper()
	w.alive(when)
	key := ""
	for place, now := range w.places() {
		if key == "" {
			key = now
		}
		if now != key || now == w.old {
			w.t.Errorf("%s: the %s has another key, or the old one", when, place)
		}
	}
	if live := w.provider.Live(); len(live) != 1+lost {
		w.t.Errorf("%s: %d keys work at the provider, want %d", when, len(live), 1+lost)
	}
	if w.provider.Works(w.old) {
		w.t.Errorf("%s: the old key works", when)
	}
	if j, err := w.config().pending(w.credential()); j != nil || err != nil {
		w.t.Errorf("%s: a rotation is pending: %+v, %v", when, j, err)
	}
}

// noSecrets checks that nothing which the rotation left on disk, but for the key's own file, has a secret.
func (w *world) noSecrets(texts ...string) {
	w.t.Helper()
	for _, dir := range []string{filepath.Join(w.dir, "state")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				w.t.Fatal(err)
			}
			texts = append(texts, string(b))
		}
	}
	secrets := []string{w.old, w.provider.Admin, gitHubToken, w.vault.Token}
	for _, key := range w.provider.Live() {
		secrets = append(secrets, key)
	}
	for _, text := range texts {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				w.t.Errorf("a secret is in %q", text)
			}
		}
	}
}

// childOrder is what a child process is to do.
type childOrder struct {
	Recipe, Dir, API, Point string
	Env                     map[string]string
}

const childVariable = "ROTATE_TEST_CHILD"

// TestMain is also the child that is killed.
func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		child(text)
	}
	os.Exit(m.Run())
}

// child rotates until it kills itself.
func child(text string) {
	var o childOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	p, err := policy.Load("policy.yaml", []byte(o.Recipe))
	if err != nil {
		panic(err)
	}
	book, err := OpenBook(filepath.Join(o.Dir, "state"))
	if err != nil {
		panic(err)
	}
	cfg := Config{
		Sources: credential.Config{LookupEnv: func(name string) (string, bool) { v, ok := o.Env[name]; return v, ok }, Dir: o.Dir, Self: "acme/shop", GitHubAPI: o.API},
		Book:    book, Scope: o.Dir,
	}
	r := &rotation{cfg: cfg, c: p.Credentials[0], at: func(point string) {
		if point == o.Point {
			self, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = self.Kill()
			}
			panic(fmt.Sprint("still alive: ", err))
		}
	}}
	_, err = r.rotate(context.Background())
	fmt.Fprintln(os.Stderr, "rotate:", err)
	os.Exit(3)
}

// declined declines requests of GitHub's API.
func declined(method, path string) runnertest.Fault {
	return runnertest.Fault{Method: method, Path: path, Status: http.StatusUnprocessableEntity}
}
