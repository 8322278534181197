package broker

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

// octoClient makes the requests that octo-sts' action makes, as it makes them: three attempts at an exchange, whatever went wrong, all with the one identity that
// it fetched before. It takes from the answer what the action takes. The action waits for seconds between two attempts.
const octoClient = `
const bearer = (token) => ({ headers: { Authorization: "Bearer " + token } });
const { ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: request, DOMAIN: domain, SCOPE: scope, IDENTITY: identity } = process.env;
const persist = async (address, options) => {
  let last;
  for (let attempt = 1; attempt <= 3; attempt++) {
    try {
      const answer = await fetch(address, options);
      if (answer.ok) return answer;
      last = new Error(answer.status + " " + (await answer.json()).message);
    } catch (e) { last = e; }
    await new Promise((resolve) => setTimeout(resolve, 2 ** attempt));
  }
  throw last;
};
(async () => {
  const job = await persist(url + "&audience=" + domain, bearer(request));
  const answer = await persist("https://" + domain + "/sts/exchange?scope=" + scope + "&identity=" + identity, bearer((await job.json()).value));
  const { token } = await answer.json();
  if (!token) throw new Error("no token");
  process.stdout.write(token);
})().catch((e) => { console.error(e.message); process.exit(1); });
`

// client gets a token for acme/shop by a trust policy.
type client func(identity string) (token string, err error)

// serveTLS is a broker of the world's whose audience depends on its address.
func (w *world) serveTLS(audience func(address string) string) *httptest.Server {
	w.t.Helper()
	server := httptest.NewUnstartedServer(nil)
	w.cfg.Audience = audience(server.Listener.Addr().String())
	w.cfg.Database = filepath.Join(w.t.TempDir(), "broker.db")
	b, err := w.replica()
	if err != nil {
		w.t.Fatal(err)
	}
	server.Config.Handler = b
	server.StartTLS()
	w.t.Cleanup(server.Close)
	return server
}

// octoSTS is the client of octo-sts' action, in node. It names host and port as audience, and the port is 443 outside of tests.
func (w *world) octoSTS(node string) client {
	w.t.Helper()
	server := w.serveTLS(func(address string) string { return address })
	ca := filepath.Join(w.t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		w.t.Fatal(err)
	}
	domain := server.Listener.Addr().String()
	url, token := w.oidc.ActionsServer(w.claims(nil))
	return func(identity string) (string, error) {
		cmd := exec.CommandContext(w.t.Context(), node, "-e", octoClient)
		cmd.Env = []string{
			"NODE_EXTRA_CA_CERTS=" + ca, "ACTIONS_ID_TOKEN_REQUEST_URL=" + url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + token,
			"DOMAIN=" + domain, "SCOPE=acme/shop", "IDENTITY=" + identity,
		}
		var complaint strings.Builder
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		if err != nil {
			err = errors.New(complaint.String())
		}
		return string(out), err
	}
}

// ours is the source github-oidc, as a run has it.
func (w *world) ours() client {
	w.t.Helper()
	server := w.serveTLS(func(string) string { return "127.0.0.1" })
	return func(identity string) (string, error) {
		p, err := policy.Load("policy.yaml", []byte("version: 1\ncredentials:\n  github: {from: github-oidc, broker: \""+server.URL+
			"\", identity: "+identity+", repositories: [acme/shop], permissions: {contents: write, pull_requests: read}}\n"))
		if err != nil {
			w.t.Fatal(err)
		}
		set, err := credential.Resolve(w.t.Context(), p.Credentials, credential.Config{
			LookupEnv: func(string) (string, bool) { return "", false }, HTTP: server.Client(), GitHubAPI: w.gh.API(),
			OIDC: func(_ context.Context, audience string) (secret.Value, error) {
				return secret.New(w.oidc.Mint(w.claims(map[string]any{"aud": audience}))), nil
			},
		})
		if err != nil {
			return "", err
		}
		v, err := set.Grants[0].Value(w.t.Context())
		return v.Reveal(), err
	}
}

// TestClients exchanges as jobs do, over TLS: by our own source of credentials, and by octo-sts' JavaScript action.
func TestClients(t *testing.T) {
	w := newWorld(t)
	clients := map[string]client{"ours": w.ours()}
	if node, err := exec.LookPath("node"); err == nil {
		clients["octo-sts"] = w.octoSTS(node)
	} else {
		t.Log("SKIPPED: octo-sts' client, which is JavaScript: node is not installed")
	}
	for name, exchange := range clients {
		before := len(w.gh.Live())
		got, err := exchange("ci")
		if live := w.gh.Live(); err != nil || len(live) != before+1 || !has(live, got) {
			t.Errorf("%s: token of %d bytes, %v; %d live", name, len(got), err, len(live))
		}
		if got, err := exchange("nobody"); err == nil || got != "" {
			t.Errorf("%s: an identity that is not there: token of %d bytes, %v", name, len(got), err)
		}
	}
	// What the action does about a failure of a moment's length has to help.
	if exchange := clients["octo-sts"]; exchange != nil {
		defer w.gh.Inject(runnertest.Fault{Method: http.MethodGet, Path: "/repos/acme/shop/installation", Status: http.StatusBadGateway, Times: 2})()
		if got, err := exchange("ci"); err != nil || !has(w.gh.Live(), got) {
			t.Errorf("GitHub failed twice: token of %d bytes, %v", len(got), err)
		}
	}
}

// A policy that names two repositories has a token of each from the broker, each by a trust policy of its own; each is renewed before its end, and given back.
func TestClientOfSeveralRepositories(t *testing.T) {
	w := newWorld(t)
	w.b.cfg.Audience, w.b.now = "127.0.0.1", w.gh.Now
	lib := w.gh.AddRepository("acme/lib")
	// acme/lib names the job of acme/shop: its own repository is another.
	lib.WriteFile(trustFile, fmt.Sprintf("issuer: %s\nsubject_pattern: repo:acme/shop:.*\nclaim_pattern: {repository_id: \"%d\"}\npermissions: {contents: write}\n", w.oidc.URL, w.repo.ID))
	server := httptest.NewTLSServer(w.b)
	t.Cleanup(server.Close)
	p, err := policy.Load("policy.yaml", []byte("version: 1\ncredentials:\n  github: {from: github-oidc, broker: \""+server.URL+
		"\", identity: ci, repositories: [acme/shop, acme/lib], permissions: {contents: write}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	w.repo.WriteFile(trustFile, "issuer: "+w.oidc.URL+"\nsubject_pattern: repo:acme/shop:.*\npermissions: {contents: write}\n")
	var mu sync.Mutex // guards record
	var record []event.Event
	set, err := credential.Resolve(t.Context(), p.Credentials, credential.Config{
		LookupEnv: func(string) (string, bool) { return "", false }, HTTP: server.Client(), GitHubAPI: w.gh.API(), Now: w.gh.Now,
		Emit: func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			record = append(record, e)
		},
		OIDC: func(_ context.Context, audience string) (secret.Value, error) {
			return secret.New(w.oidc.Mint(w.claims(map[string]any{"aud": audience}))), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		for _, g := range set.Grants {
			v, err := g.Value(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := []int64{map[string]int64{"github (acme/shop)": w.repo.ID, "github (acme/lib)": lib.ID}[g.Label()]}
			if !slices.ContainsFunc(w.gh.Live(), func(t runnertest.Token) bool { return t.Text == v.Reveal() && slices.Equal(t.RepositoryIDs, want) }) {
				t.Errorf("round %d: the token of %s does not live, or is not for repository %d alone", round, g.Label(), want)
			}
		}
		if round < 2 {
			w.gh.Advance(56 * time.Minute)
			w.oidc.Advance(56 * time.Minute)
		}
	}
	if err := set.Close(t.Context()); err != nil || len(w.gh.Live()) != 0 {
		t.Errorf("close: %v, %d live", err, len(w.gh.Live()))
	}
	count := map[string]int{}
	for _, e := range record {
		switch e := e.(type) {
		case event.CredentialRenewed:
			count["renewed "+e.Name]++
		case event.CredentialRevoked:
			count["revoked "+e.Name]++
		}
	}
	want := map[string]int{"renewed github (acme/shop)": 2, "renewed github (acme/lib)": 2, "revoked github (acme/shop)": 3, "revoked github (acme/lib)": 3}
	if diff := cmp.Diff(count, want); diff != "" {
		t.Errorf("record (-got +want):\n%s", diff)
	}
}

func has(tokens []runnertest.Token, text string) bool {
	for _, t := range tokens {
		if t.Text == text {
			return true
		}
	}
	return false
}
