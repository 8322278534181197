package credential

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

// world is a GitHub with an App that is installed for one of two repositories, and a policy that names that one.
type world struct {
	*runnertest.GitHub
	app    *runnertest.App
	other  *runnertest.Repository // where it is not installed
	policy *policy.Policy
	cfg    Config

	mu     sync.Mutex
	events []event.Event
}

const appPolicy = `credentials:
  github: {from: "github-app:ID", key: "env:KEY", repositories: [self], permissions: {contents: write}, push: ["refs/heads/agent/*"]}
`

func newWorld(t *testing.T, text string) *world {
	t.Helper()
	return newWorldOf(t, text, func(w *world, shop *runnertest.Repository) { w.Install(w.app, "acme", shop) })
}

// newWorldOf leaves it to the caller where the App is installed.
func newWorldOf(t *testing.T, text string, install func(w *world, shop *runnertest.Repository)) *world {
	t.Helper()
	w := &world{GitHub: runnertest.NewGitHub(t, runnertest.GitHubConfig{})}
	shop := w.AddRepository("acme/shop")
	w.other = w.AddRepository("acme/other")
	w.app = w.AddApp(map[string]string{"contents": "write", "pull_requests": "write", "metadata": "read", "administration": "write"})
	install(w, shop)
	text = strings.ReplaceAll(text, "ID", itoa(w.app.ID))
	w.policy, w.cfg = load(t, text, map[string]string{"KEY": string(w.app.PEM())})
	w.cfg.Self, w.cfg.GitHubAPI, w.cfg.Now = "acme/shop", w.API(), w.Now
	w.cfg.Keeper = NewKeeper(filepath.Join(t.TempDir(), "tokens"), "run-1")
	w.cfg.Emit = func(e event.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}
	return w
}

func itoa(n int64) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

// revocations are the ends that were recorded.
func (w *world) revocations() (all []event.Revocation) {
	for _, e := range w.events {
		if r, ok := e.(event.CredentialRevoked); ok {
			all = append(all, r.Status)
		}
	}
	return all
}

func TestGitHubApp(t *testing.T) {
	w := newWorld(t, appPolicy)
	set, err := Resolve(t.Context(), w.policy.Credentials, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	set.Announce()
	live := w.Live()
	if len(live) != 1 || len(live[0].RepositoryIDs) != 1 {
		t.Fatalf("the tokens are %+v", live)
	}
	v, err := set.Grants[0].Value(t.Context())
	if err != nil || v.Reveal() != live[0].Text {
		t.Errorf("the value is not the token: %v", err)
	}
	issued, ok := w.events[0].(event.CredentialIssued)
	if !ok || issued.Granted == nil || issued.Granted.Repositories[0].Name != "acme/shop" || issued.Granted.Repositories[0].ID == 0 ||
		issued.Requested.Permissions["contents"] != "write" || issued.Expires == nil || issued.TokenSHA256 == "" {
		t.Errorf("the record is %+v", w.events)
	}
	if issued.TokenSHA256 == v.Reveal() || strings.Contains(issued.TokenSHA256, base64.StdEncoding.EncodeToString([]byte(v.Reveal()))[:20]) {
		t.Error("the record tells the token")
	}
	if err := set.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.revocations(); len(got) != 1 || got[0] != event.RevocationVerified || len(w.Live()) != 0 {
		t.Errorf("revoked: %v, live: %d", got, len(w.Live()))
	}
	if _, err := set.Grants[0].Value(t.Context()); err == nil {
		t.Error("the token can be had after the end")
	}
	if runs, err := KeptRuns(filepath.Dir(w.cfg.Keeper.path)); err != nil || len(runs) > 0 {
		t.Errorf("still kept: %v, %v", runs, err)
	}
}

// A run longer than the token's life goes on; requests share one renewal; every token is given back.
func TestRenewal(t *testing.T) {
	w := newWorld(t, appPolicy)
	set, err := Resolve(t.Context(), w.policy.Credentials, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 4 {
		var values [8]string
		var wait sync.WaitGroup
		for i := range values {
			wait.Go(func() {
				v, err := set.Grants[0].Value(t.Context())
				if err != nil {
					t.Error(err)
				}
				values[i] = v.Reveal()
			})
		}
		wait.Wait()
		for _, v := range values {
			if v != values[0] {
				t.Error("requests at one time have different tokens")
			}
		}
		seen[values[0]] = true
		w.Advance(56 * time.Minute)
	}
	if len(seen) != 4 {
		t.Errorf("%d tokens, want 4", len(seen))
	}
	if err := set.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	counts := map[event.Revocation]int{}
	for _, s := range w.revocations() {
		counts[s]++
	}
	if counts[event.RevocationVerified] < 1 || counts[event.RevocationFailed] != 0 || len(w.revocations()) != 4 || len(w.Live()) != 0 {
		t.Errorf("ends: %v, live: %d", counts, len(w.Live()))
	}
}

// While the present token is good, a GitHub that fails for a moment stops nothing; afterwards it does.
func TestRenewalFails(t *testing.T) {
	w := newWorld(t, appPolicy)
	set, err := Resolve(t.Context(), w.policy.Credentials, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close(context.WithoutCancel(t.Context()))
	end := w.Inject(runnertest.Fault{Method: "POST", Path: "/app/installations", Status: http.StatusUnprocessableEntity})
	w.Advance(57 * time.Minute)
	if _, err := set.Grants[0].Value(t.Context()); err != nil {
		t.Errorf("with three minutes left: %v", err)
	}
	w.Advance(4 * time.Minute)
	if _, err := set.Grants[0].Value(t.Context()); err == nil || !strings.Contains(err.Error(), "can't be renewed") {
		t.Errorf("after its end: %v", err)
	}
	end()
	if _, err := set.Grants[0].Value(t.Context()); err != nil {
		t.Errorf("when GitHub is back: %v", err)
	}
}

// A token that is wider than what was asked for is revoked, and the run refused.
func TestWiderIsRevoked(t *testing.T) {
	for name, change := range map[string]func(w *world, tok *runnertest.Token){
		"all repositories": func(_ *world, tok *runnertest.Token) { tok.RepositoryIDs = nil },
		"another repository": func(w *world, tok *runnertest.Token) {
			tok.RepositoryIDs = append(tok.RepositoryIDs, w.other.ID)
		},
		"another permission":   func(_ *world, tok *runnertest.Token) { tok.Permissions["administration"] = "write" },
		"less than was needed": func(_ *world, tok *runnertest.Token) { tok.Permissions["contents"] = "read" },
	} {
		w := newWorld(t, appPolicy)
		n := 0
		w.OnMint(func(tok *runnertest.Token) {
			if n++; n == 2 { // the first one looks up the ids
				change(w, tok)
			}
		})
		set, err := Resolve(t.Context(), w.policy.Credentials, w.cfg)
		if err == nil || set != nil || !strings.Contains(err.Error(), "was revoked") {
			t.Errorf("%s: %v", name, err)
		}
		if live := w.Live(); len(live) != 0 {
			t.Errorf("%s: %d tokens live on", name, len(live))
		}
	}
}

func TestGitHubRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		text, want string
		edit       func(*Config)
	}{
		"a dangerous permission": {
			strings.Replace(appPolicy, "contents: write", "contents: write, administration: write", 1), "administration: write would let the agent", nil,
		},
		"a repository without the App": {strings.Replace(appPolicy, "[self]", "[acme/other]", 1), "is the App installed for acme/other?", nil},
		"no remote":                    {appPolicy, "the project has no remote on GitHub", func(c *Config) { c.Self = "" }},
		"no key":                       {strings.Replace(appPolicy, "env:KEY", "env:ABSENT", 1), "the variable ABSENT is not set", nil},
		"no identity": {
			"credentials:\n  github: {from: github-oidc, broker: 'https://b.example', repositories: [self], permissions: {contents: read}}\n", "no identity that a broker would take", nil,
		},
	} {
		w := newWorld(t, tt.text)
		if tt.edit != nil {
			tt.edit(&w.cfg)
		}
		if _, err := Resolve(t.Context(), w.policy.Credentials, w.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if len(w.Live()) != 0 {
			t.Errorf("%s: a token lives", name)
		}
	}
	// An organisation that names the permission allows it.
	w := newWorld(t, strings.Replace(appPolicy, "contents: write", "contents: write, administration: write", 1))
	w.cfg.Permissions = map[string]string{"administration": "write"}
	set, err := Resolve(t.Context(), w.policy.Credentials, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// After a kill the tokens are in the file, and whoever finds it revokes them.
func TestRevokeKept(t *testing.T) {
	w := newWorld(t, appPolicy)
	if _, err := Resolve(t.Context(), w.policy.Credentials, w.cfg); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(w.cfg.Keeper.path)
	if st, err := os.Stat(w.cfg.Keeper.path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", st, err)
	}
	runs, err := KeptRuns(dir)
	if err != nil || len(runs) != 1 || runs[0] != "run-1" || len(w.Live()) != 1 {
		t.Fatalf("kept: %v, %v; %d live", runs, err, len(w.Live()))
	}
	if n, err := RevokeKept(t.Context(), dir, "run-1", nil); n != 1 || err != nil {
		t.Errorf("revoked %d, %v", n, err)
	}
	if _, err := os.Stat(w.cfg.Keeper.path); !errors.Is(err, os.ErrNotExist) || len(w.Live()) != 0 {
		t.Errorf("afterwards: %v, %d live", err, len(w.Live()))
	}
	// Where nothing is kept, nobody can revoke, and the token stays good.
	w.cfg.Keeper = nil
	if _, err := Resolve(t.Context(), w.policy.Credentials, w.cfg); err != nil {
		t.Fatal(err)
	}
	if runs, err := KeptRuns(dir); err != nil || len(runs) != 0 {
		t.Errorf("kept without a keeper: %v, %v", runs, err)
	}
	if live := w.Live(); len(live) != 1 || !w.usable(t, live[0].Text) {
		t.Errorf("without a keeper %d tokens live, or not usable: the test proves nothing", len(live))
	}
}

// The broker's answer may have the token alone, as octo-sts', or tell what was granted. Either way GitHub's word counts.
func TestGitHubOIDC(t *testing.T) {
	const text = `credentials:
  github: {from: github-oidc, broker: "BROKER", identity: deploy, repositories: [self], permissions: {contents: write}}
`
	const told = `","issuance_id":"i-1","permissions":{"contents":"write","metadata":"read"},"repositories":[{"id":%d,"full_name":"acme/shop"}]`
	inTwentyMinutes := time.Now().Add(20 * time.Minute).UTC().Format(time.RFC3339)
	for _, tt := range []struct {
		answer string // of the broker, behind the token
		plain  bool
		life   time.Duration
	}{
		{`"`, true, lifetime},
		{told, false, lifetime},
		{told + `,"expires_at":"` + inTwentyMinutes + `"`, false, 20 * time.Minute},
	} {
		w := newWorld(t, appPolicy)
		minting, err := Resolve(t.Context(), w.policy.Credentials, w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := minting.Grants[0].Value(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		broker := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/sts/exchange" || r.URL.Query().Get("scope") != "acme/shop" || r.URL.Query().Get("identity") != "deploy" || r.Header.Get("Authorization") != "Bearer a.b.c" {
				rw.WriteHeader(http.StatusBadRequest)
				return
			}
			_, _ = io.WriteString(rw, `{"token":"`+tok.Reveal()+strings.Replace(tt.answer, "%d", itoa(w.Live()[0].RepositoryIDs[0]), 1)+"}")
		}))
		p, cfg := load(t, strings.Replace(text, "BROKER", broker.URL, 1), nil)
		cfg.Self, cfg.GitHubAPI, cfg.Now, cfg.HTTP, cfg.Emit = "acme/shop", w.API(), w.Now, broker.Client(), w.cfg.Emit
		cfg.OIDC = func(_ context.Context, audience string) (secret.Value, error) {
			if audience != "127.0.0.1" {
				t.Errorf("the audience is %q", audience)
			}
			return secret.New("a.b.c"), nil
		}
		set, err := Resolve(t.Context(), p.Credentials, cfg)
		if err != nil {
			t.Fatalf("%s: %v", tt.answer, err)
		}
		if got := set.Grants[0].Repositories; len(got) != 1 || got[0].Name != "acme/shop" {
			t.Errorf("%s: granted for %v", tt.answer, got)
		}
		if life := set.Grants[0].Expires.Sub(w.Now()).Round(time.Minute); life != tt.life {
			t.Errorf("%s: it lives for %s, want %s", tt.answer, life, tt.life)
		}
		if err := set.Close(t.Context()); err != nil || len(w.Live()) != 0 {
			t.Errorf("%s: %v, %d live", tt.answer, err, len(w.Live()))
		}
		lowered := slices.ContainsFunc(w.events, func(e event.Event) bool { _, is := e.(event.Lowered); return is })
		if lowered != tt.plain {
			t.Errorf("%s: recorded as lowered: %t", tt.answer, lowered)
		}
		broker.Close()
	}
}
