package broker

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
)

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
	if status, _ := w.ask(http.MethodPost, good, w.mint(nil)); status != 200 {
		t.Errorf("POST: %d, want 200", status)
	}
}

func TestExchangeReadsPoliciesOfOctoSTS(t *testing.T) {
	w := newWorld(t)
	w.trust(".github/chainguard/release.sts.yaml", "")
	status, v := w.ask(http.MethodGet, "scope=acme/shop&identity=release", w.mint(nil))
	if status != 200 {
		t.Errorf("status %d %v, want 200", status, v)
	}
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
		if status, v := w.ask(http.MethodGet, query, w.mint(nil)); status != want {
			t.Errorf("%s: %d %v, want %d", query, status, v, want)
		}
	}
	w.control()
}

func TestTrustPolicyNamesEvent(t *testing.T) {
	w := newWorld(t)
	w.trust(trustFile, "events: [pull_request_target]\n")
	if status, v := w.ask(http.MethodGet, good, w.mint(map[string]any{"event_name": "pull_request_target"})); status != 200 {
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
		if status, v := w.ask(http.MethodGet, good, w.mint(nil)); status != 500 {
			t.Errorf("%s: %d %v, want 500", name, status, v)
		}
		if got := len(w.gh.Live()); got != before {
			t.Errorf("%s: %d tokens live, want %d: the wider one is revoked", name, got, before)
		}
	}
	w.gh.OnMint(nil)
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
	status, v := w.ask(http.MethodGet, good, w.mint(nil))
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

// The trust policy is that of the default branch, whatever git lets that be called.
func TestDefaultBranchIsEscaped(t *testing.T) {
	w := newWorld(t)
	w.repo.WriteFileAt("trunk", trustFile, "issuer: "+w.oidc.URL+"\nsubject_pattern: .*\npermissions: {contents: write}\n")
	w.control()
	w.repo.WriteFileAt("trunk#1", trustFile, "issuer: "+w.oidc.URL+"\nsubject: nobody\npermissions: {contents: read}\n")
	w.repo.DefaultBranch = "trunk#1"
	if status, v := w.ask(http.MethodGet, good, w.mint(nil)); status != 403 {
		t.Errorf("a default branch that trusts nobody: %d %v, want 403", status, v)
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
		a := &attempt{authorization: []string{"Bearer " + text}}
		for _, c := range b.allChecks()[:5] {
			if err := c.run(t.Context(), a); err != nil {
				return
			}
		}
		t.Errorf("%q is verified: %+v", text, a.claims)
	})
}
