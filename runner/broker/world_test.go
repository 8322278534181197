package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

const (
	audience  = "broker.example.org"
	trustFile = ".github/agent-sandbox/trust/ci.yaml"
	good      = "scope=acme/shop&identity=ci"
)

// world is a broker, GitHub, an issuer, and a repository that trusts its own jobs on main.
type world struct {
	t    testing.TB
	gh   *runnertest.GitHub
	oidc *runnertest.OIDC
	repo *runnertest.Repository
	app  *runnertest.App
	cfg  Config
	b    *Broker
	log  *lockedBuffer
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, func(*Config) {})
}

func newWorldWith(t testing.TB, change func(*Config)) *world {
	t.Helper()
	w := &world{t: t, gh: runnertest.NewGitHub(t, runnertest.GitHubConfig{RateLimit: 1 << 30}), oidc: runnertest.NewOIDC(t), log: &lockedBuffer{}}
	w.repo = w.gh.AddRepository("acme/shop")
	w.app = w.gh.AddApp(map[string]string{"contents": "write", "pull_requests": "write", "administration": "write", "metadata": "read"})
	w.gh.Install(w.app, "acme")
	w.trust(trustFile, "")
	w.cfg = Config{
		Audience: audience, Database: filepath.Join(t.TempDir(), "broker.db"), Issuers: []Issuer{{w.oidc.URL, w.oidc.JWKS()}},
		Ceiling: map[string]string{"contents": "write", "pull_requests": "read"},
		Apps:    []App{{ID: w.app.ID, Owners: []string{"acme"}, API: w.gh.API(), Key: secret.New(string(w.app.PEM()))}},
	}
	change(&w.cfg)
	var err error
	if w.b, err = w.replica(); err != nil {
		t.Fatal(err)
	}
	return w
}

// replica is another broker of the same configuration.
func (w *world) replica() (*Broker, error) {
	b, err := New(w.t.Context(), w.cfg, slog.New(slog.NewJSONHandler(w.log, nil)))
	if err == nil {
		w.t.Cleanup(func() { _ = b.Close() })
	}
	return b, err
}

func (w *world) trust(path, more string) {
	w.t.Helper()
	w.repo.WriteFile(path, "issuer: "+w.oidc.URL+"\nsubject_pattern: repo:acme/shop:.*\npermissions: {contents: write, pull_requests: write, administration: write}\n"+more)
}

func (w *world) claims(change map[string]any) map[string]any {
	c := runnertest.JobClaims(w.repo)
	c["aud"] = audience
	maps.Copy(c, change)
	return c
}

// mint is a header with a token of the issuer.
func (w *world) mint(change map[string]any) string { return "Bearer " + w.oidc.Mint(w.claims(change)) }

func (w *world) ask(method, query string, auth ...string) (int, map[string]any) {
	w.t.Helper()
	return askOf(w.t, w.b, method, query, auth...)
}

func askOf(t testing.TB, h http.Handler, method, query string, auth ...string) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "/sts/exchange?"+query, nil)
	for _, a := range auth {
		r.Header.Add("Authorization", a)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	var v map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
		t.Errorf("answer %q: %v", rec.Body, err)
	}
	return rec.Code, v
}

// control is the positive control: the same broker gives a good token a grant.
func (w *world) control() map[string]any {
	w.t.Helper()
	status, v := w.ask(http.MethodGet, good, w.mint(nil))
	if status != http.StatusOK {
		w.t.Fatalf("positive control: %d %v; log %s", status, v, w.log)
	}
	return v
}

// replace puts another check in the place of one: a broker that is broken on purpose.
func (w *world) replace(name string, run func(context.Context, *attempt) error) {
	w.t.Helper()
	i := slices.IndexFunc(w.b.checks, func(c check) bool { return c.name == name })
	if i < 0 {
		w.t.Fatalf("there is no check %q", name)
	}
	w.b.checks[i].run = run
}

// without switches checks off. Those of the signature come as one: the token is then taken for what it says.
func (w *world) without(names ...string) {
	w.t.Helper()
	for _, name := range names {
		switch name {
		case "signature":
			w.replace("algorithm", passes)
			w.replace("issuer", passes)
			w.replace("signature", func(_ context.Context, a *attempt) error { return a.readClaims(payloadOf(a.token)) })
		case "authorization": // takes the first
			w.replace(name, func(ctx context.Context, a *attempt) error {
				a.authorization = a.authorization[:min(1, len(a.authorization))]
				return w.b.checkBearer(ctx, a)
			})
		case "issuer": // believes the token where its keys are
			w.replace(name, func(_ context.Context, a *attempt) error {
				var says struct{ Iss string }
				err := json.Unmarshal(payloadOf(a.token), &says)
				a.keys = &keySet{url: says.Iss + "/.well-known/jwks", client: limitedClient(), fetched: func(error) {}}
				return err
			})
		case "permissions": // forgets the ceiling
			w.replace(name, func(_ context.Context, a *attempt) error {
				a.permissions = a.trust.Permissions
				return nil
			})
		case "trust policy": // takes one that names no permissions
			w.replace(name, func(ctx context.Context, a *attempt) error {
				err := w.b.checkTrustPolicy(ctx, a)
				if len(a.ids) == 0 {
					return err
				}
				a.trust, err = parseTrust([]byte("issuer: " + w.oidc.URL + "\nsubject_pattern: .*\npermissions: {contents: read}\n"))
				a.trust.Permissions = nil
				return err
			})
		case "answer": // takes whatever GitHub issues
			w.b.wider = func(*attempt, installationToken) bool { return false }
		default:
			w.replace(name, passes)
		}
	}
}

func passes(context.Context, *attempt) error { return nil }
