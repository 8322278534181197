package broker

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

const (
	audience  = "broker.example.org"
	trustFile = ".github/agent-sandbox/trust/ci.yaml"
)

// world is a broker, GitHub, an issuer, and a repository that trusts its own jobs on main.
type world struct {
	t    *testing.T
	gh   *runnertest.GitHub
	oidc *runnertest.OIDC
	repo *runnertest.Repository
	b    *Broker
	log  bytes.Buffer
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, gh: runnertest.NewGitHub(t, runnertest.GitHubConfig{}), oidc: runnertest.NewOIDC(t)}
	w.repo = w.gh.AddRepository("acme/shop")
	app := w.gh.AddApp(map[string]string{"contents": "write", "pull_requests": "write", "administration": "write", "metadata": "read"})
	w.gh.Install(app, "acme")
	w.trust(trustFile, "")
	b, err := New(Config{
		Audience: audience, Database: filepath.Join(t.TempDir(), "broker.db"), Issuers: []Issuer{{w.oidc.URL, w.oidc.JWKS()}},
		Ceiling: map[string]string{"contents": "write", "pull_requests": "read"},
		Apps:    []App{{ID: app.ID, Owners: []string{"acme"}, API: w.gh.API(), Key: secret.New(string(app.PEM()))}},
	}, slog.New(slog.NewJSONHandler(&w.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	w.b = b
	return w
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

func (w *world) ask(method, query string, auth ...string) (int, map[string]any) {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), method, "/sts/exchange?"+query, nil)
	for _, a := range auth {
		r.Header.Add("Authorization", a)
	}
	rec := httptest.NewRecorder()
	w.b.ServeHTTP(rec, r)
	var v map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
		w.t.Fatalf("answer %q: %v", rec.Body, err)
	}
	return rec.Code, v
}

const good = "scope=acme/shop&identity=ci"

// control is the positive control: the same broker gives a good token a grant.
func (w *world) control() map[string]any {
	w.t.Helper()
	status, v := w.ask(http.MethodGet, good, "Bearer "+w.oidc.Mint(w.claims(nil)))
	if status != 200 {
		w.t.Fatalf("positive control: %d %v; log %s", status, v, w.log.String())
	}
	return v
}

func TestExchange(t *testing.T) {
	w := newWorld(t)
	v := w.control()
	live := w.gh.Live()
	if len(live) != 1 || live[0].Text != v["token"] {
		t.Fatalf("%d tokens live, want only the one that was answered", len(live))
	}
	want := map[string]string{"contents": "write", "pull_requests": "read", "metadata": "read"} // the ceiling has no administration
	if got := live[0].Permissions; !maps.Equal(got, want) || len(live[0].RepositoryIDs) != 1 || live[0].RepositoryIDs[0] != w.repo.ID {
		t.Errorf("granted %v for %v, want %v", got, live[0].RepositoryIDs, want)
	}
	sum := sha256.Sum256([]byte(live[0].Text))
	var recorded int
	err := w.b.store.db.QueryRow("SELECT count(*) FROM audit WHERE token_sha256 = ?", base64.StdEncoding.EncodeToString(sum[:])).Scan(&recorded)
	if err != nil || recorded != 1 {
		t.Errorf("%d audit records, %v, want 1", recorded, err)
	}
	if strings.Contains(w.log.String(), live[0].Text) {
		t.Error("the token is in the log")
	}
	if status, _ := w.ask(http.MethodPost, good, "Bearer "+w.oidc.Mint(w.claims(nil))); status != 200 {
		t.Errorf("POST: %d, want 200", status)
	}
}

func TestExchangeReadsPoliciesOfOctoSTS(t *testing.T) {
	w := newWorld(t)
	w.trust(".github/chainguard/release.sts.yaml", "")
	status, v := w.ask(http.MethodGet, "scope=acme/shop&identity=release", "Bearer "+w.oidc.Mint(w.claims(nil)))
	if status != 200 {
		t.Errorf("status %d %v, want 200", status, v)
	}
}

// TestAttacks has those on the token. Each runs beside a control that passes.
func TestAttacks(t *testing.T) {
	w := newWorld(t)
	replayed := w.oidc.Mint(w.claims(nil))
	if status, v := w.ask(http.MethodGet, good, "Bearer "+replayed); status != 200 {
		t.Fatalf("first use: %d %v", status, v)
	}
	id, key := w.oidc.Key()
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := x509.MarshalPKCS1PublicKey(&key.PublicKey)
	sign := func(header map[string]any, f func([]byte) []byte) string {
		return "Bearer " + w.oidc.Sign(header, w.oidc.Complete(w.claims(nil)), f)
	}
	mint := func(change map[string]any) string { return "Bearer " + w.oidc.Mint(w.claims(change)) }
	now := time.Now()
	for _, tt := range []struct {
		name string
		auth []string
		want int
	}{
		{"no token", nil, 401},
		{"two Authorization headers", []string{mint(nil), mint(nil)}, 401},
		{"Basic", []string{"Basic eDp5"}, 401},
		{"alg none", []string{sign(map[string]any{"alg": "none", "kid": id}, func([]byte) []byte { return nil })}, 401},
		{"HS256 with the public key", []string{sign(map[string]any{"alg": "HS256", "kid": id}, func(in []byte) []byte {
			m := hmac.New(sha256.New, public)
			m.Write(in)
			return m.Sum(nil)
		})}, 401},
		{"wrong kid", []string{sign(map[string]any{"alg": "RS256", "kid": "x"}, func([]byte) []byte { return make([]byte, 256) })}, 401},
		{"signature of nobody", []string{sign(map[string]any{"alg": "RS256", "kid": id}, func([]byte) []byte { return make([]byte, stranger.Size()) })}, 401},
		{"aud as a list", []string{mint(map[string]any{"aud": []string{audience}})}, 401},
		{"another aud", []string{mint(map[string]any{"aud": "sts.amazonaws.com"})}, 401},
		{"expired", []string{mint(map[string]any{"exp": now.Add(-time.Second).Unix()})}, 401},
		{"no exp", []string{mint(map[string]any{"exp": nil})}, 401},
		{"future iat", []string{mint(map[string]any{"iat": now.Add(time.Hour).Unix()})}, 401},
		{"old iat", []string{mint(map[string]any{"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(time.Hour).Unix()})}, 401},
		{"not valid yet", []string{mint(map[string]any{"nbf": now.Add(time.Hour).Unix()})}, 401},
		{"replayed jti", []string{"Bearer " + replayed}, 401},
		{"no jti", []string{mint(map[string]any{"jti": nil})}, 401},
		{"foreign issuer", []string{"Bearer " + runnertest.NewOIDC(t).Mint(w.claims(nil))}, 401},
		{"issuer that looks like ours", []string{mint(map[string]any{"iss": w.oidc.URL + "/"})}, 401},
		{"10 MB token", []string{"Bearer " + strings.Repeat("a", 10<<20)}, 401},
		{"a fork", []string{mint(map[string]any{"repository_id": "1"})}, 403},
		{"another owner's id", []string{mint(map[string]any{"repository_owner_id": "1"})}, 403},
		{"pull_request_target", []string{mint(map[string]any{"event_name": "pull_request_target"})}, 403},
		{"another subject", []string{mint(map[string]any{"sub": "x-repo:acme/shop:ref:refs/heads/main"})}, 403},
	} {
		before := len(w.gh.Live())
		if status, v := w.ask(http.MethodGet, good, tt.auth...); status != tt.want {
			t.Errorf("%s: %d %v, want %d", tt.name, status, v, tt.want)
		}
		if got := len(w.gh.Live()); got != before {
			t.Errorf("%s: %d tokens live, want %d", tt.name, got, before)
		}
	}
	w.control()
}

func TestAttacksOnScope(t *testing.T) {
	w := newWorld(t)
	w.gh.AddRepository("acme/other")
	for query, want := range map[string]int{
		"scope=acme/other&identity=ci":              404,
		"scope=acme/shop&identity=nobody":           404,
		"scope=acme/shop&identity=../../x":          400,
		"scope=acme/..&identity=ci":                 400,
		"scope=acme/shop&scope=acme/o&identity=ci":  400,
		"identity=ci":                               400,
		"scope=evil/shop&identity=ci":               404,
		"scope=acme/shop%3Fx&identity=ci":           400,
		"scope=acme/shop/pulls&identity=ci":         400,
		"scope=acme%2Fshop%2F..%2Fother&identity=a": 400,
	} {
		if status, v := w.ask(http.MethodGet, query, "Bearer "+w.oidc.Mint(w.claims(nil))); status != want {
			t.Errorf("%s: %d %v, want %d", query, status, v, want)
		}
	}
	w.control()
}

// A repository that took the name of one that was renamed has another id, whatever its subject says.
func TestRenamedRepository(t *testing.T) {
	w := newWorld(t)
	old := w.claims(nil)
	w.control()
	w.repo.Rename("acme/store")
	if status, v := w.ask(http.MethodGet, good, "Bearer "+w.oidc.Mint(old)); status != 404 {
		t.Errorf("by the old name: %d %v, want 404", status, v)
	}
	w.repo = w.gh.AddRepository("acme/shop")
	w.trust(trustFile, "")
	if status, v := w.ask(http.MethodGet, good, "Bearer "+w.oidc.Mint(old)); status != 403 {
		t.Errorf("a job of the renamed one at its successor: %d %v, want 403", status, v)
	}
	w.control()
}

func TestTrustPolicyNamesEvent(t *testing.T) {
	w := newWorld(t)
	w.trust(trustFile, "events: [pull_request_target]\n")
	if status, v := w.ask(http.MethodGet, good, "Bearer "+w.oidc.Mint(w.claims(map[string]any{"event_name": "pull_request_target"}))); status != 200 {
		t.Errorf("an event that is named: %d %v, want 200", status, v)
	}
}

func TestWiderGrantIsRevoked(t *testing.T) {
	w := newWorld(t)
	w.control()
	before := len(w.gh.Live())
	for name, change := range map[string]func(*runnertest.Token){
		"permission": func(t *runnertest.Token) { t.Permissions["administration"] = "write" },
		"all":        func(t *runnertest.Token) { t.RepositoryIDs = nil },
	} {
		w.gh.OnMint(func(t *runnertest.Token) {
			if t.Permissions["pull_requests"] != "" { // not the one that reads the trust policy
				change(t)
			}
		})
		if status, v := w.ask(http.MethodGet, good, "Bearer "+w.oidc.Mint(w.claims(nil))); status != 500 {
			t.Errorf("%s: %d %v, want 500", name, status, v)
		}
		if got := len(w.gh.Live()); got != before {
			t.Errorf("%s: %d tokens live, want %d: the wider one is revoked", name, got, before)
		}
	}
	w.gh.OnMint(nil)
	w.control()
}

func TestOthersDown(t *testing.T) {
	w := newWorld(t)
	w.oidc.SetDown(true)
	if status, v := w.ask(http.MethodGet, good, "Bearer "+w.oidc.Mint(w.claims(nil))); status != 500 {
		t.Errorf("JWKS down: %d %v, want 500", status, v)
	}
	w.oidc.SetDown(false)
	w.control()
	w.oidc.SetDown(true)
	w.control() // the keys are kept for a while

	end := w.gh.Inject(runnertest.Fault{Method: http.MethodPost, Path: "/app/installations/", Skip: 1, Drop: true})
	status, v := w.ask(http.MethodGet, good, "Bearer "+w.oidc.Mint(w.claims(nil)))
	if status != 500 || v["token"] != nil {
		t.Errorf("GitHub gone between mint and answer: %d %v, want 500", status, v)
	}
	end()
	w.control()
}

// The record is durable before the answer, or there is no answer and no token.
func TestNoAnswerWithoutAudit(t *testing.T) {
	w := newWorld(t)
	w.control()
	before := len(w.gh.Live())
	if _, err := w.b.store.db.Exec("ALTER TABLE audit RENAME TO gone"); err != nil {
		t.Fatal(err)
	}
	status, v := w.ask(http.MethodGet, good, "Bearer "+w.oidc.Mint(w.claims(nil)))
	if status != 500 || v["token"] != nil || len(w.gh.Live()) != before {
		t.Errorf("without the audit table: %d %v, %d tokens live, want 500 and %d", status, v, len(w.gh.Live()), before)
	}
}

func TestInvalidTrustPolicies(t *testing.T) {
	for _, src := range []string{
		"", "issuer: x\nsubject: y\n", "issuer: x\nsubject: y\npermissions: {}\n", "issuer: x\nsubject: y\npermissions: {contents: all}\n",
		"issuer: x\nissuer_pattern: x\nsubject: y\npermissions: {contents: read}\n", "issuer: x\npermissions: {contents: read}\n",
		"issuer: x\nsubject_pattern: 'a)|(b'\npermissions: {contents: read}\n", "issuer: x\nsubject: y\nsubject: z\npermissions: {contents: read}\n",
		"issuer: x\nsubject: y\nadmin: true\npermissions: {contents: read}\n",
	} {
		if p, err := parseTrust([]byte(src)); err == nil {
			t.Errorf("%q gives %+v, want an error", src, p)
		}
	}
}

// FuzzTrust: whatever a policy is, one that loads grants something, and trusts no empty issuer and subject.
func FuzzTrust(f *testing.F) {
	f.Add([]byte("issuer: x\nsubject: y\npermissions: {contents: read}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := parseTrust(src)
		if err == nil && (p.issuer == nil || p.subject == nil || len(p.Permissions) == 0) {
			t.Errorf("%q loads as %+v", src, p)
		}
	})
}

// FuzzToken: nothing that the issuer didn't sign is verified.
func FuzzToken(f *testing.F) {
	b := &Broker{cfg: Config{Audience: audience}, keys: map[string]*keySet{}, now: time.Now}
	f.Add("e30.e30.e30")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := b.verify(context.Background(), text); err == nil {
			t.Errorf("%q is verified: %+v", text, c)
		}
	})
}

func BenchmarkExchangeSQLite(b *testing.B) {
	// The checks and the two writes of the database; what GitHub takes is GitHub's.
	s, err := openStore(filepath.Join(b.TempDir(), "broker.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.db.Close() }()
	o := runnertest.NewOIDC(b)
	br := &Broker{cfg: Config{Audience: audience}, keys: map[string]*keySet{o.URL: {url: o.JWKS(), client: limitedClient()}}, now: time.Now}
	token := o.Mint(map[string]any{"aud": audience, "sub": "s", "repository_id": "1", "repository_owner_id": "2", "event_name": "push"})
	for b.Loop() {
		c, err := br.verify(b.Context(), token)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.once(b.Context(), c.Issuer, randomID(), time.Unix(c.Expires, 0), time.Now()); err != nil {
			b.Fatal(err)
		}
		if err := s.record(b.Context(), time.Now(), "t", "acme/shop", "ci", c, &answer{}); err != nil {
			b.Fatal(err)
		}
	}
}
