package broker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// verdicts are those that are not "passed", by check.
func verdicts(e Explanation) map[string]Verdict {
	v := map[string]Verdict{}
	for _, f := range e.Findings {
		if f.Verdict != Passed {
			v[f.Check] = f.Verdict
		}
	}
	return v
}

func TestExplain(t *testing.T) {
	w := newWorld(t)
	used := w.mint(nil)
	w.ask(http.MethodGet, good, used)
	_, fresh, _ := strings.Cut(w.mint(nil), " ")
	live := len(w.gh.Live())
	late := []string{"installation", "trust policy", "job", "repository", "event", "permissions"}
	unreached := func(more map[string]Verdict, names ...string) map[string]Verdict {
		for _, name := range names {
			more[name] = NotReached
		}
		return more
	}
	for _, tt := range []struct {
		name, token, scope, identity string
		want                         map[string]Verdict
	}{
		{"good", fresh, "acme/shop", "ci", map[string]Verdict{}},
		{"used", strings.TrimPrefix(used, "Bearer "), "acme/shop", "ci", map[string]Verdict{"first use": Refused}},
		{
			"everything at once", w.oidc.Mint(w.claims(map[string]any{"aud": "x", "exp": 1, "event_name": "pull_request_target", "repository_id": "1"})), "acme/shop", "ci",
			map[string]Verdict{"audience": Refused, "expiry": Refused, "repository": Refused, "event": Refused},
		},
		{"no scope", fresh, "", "ci", unreached(map[string]Verdict{"scope": Refused}, append([]string{"rate", "first use"}, late...)...)},
		{"no policy", fresh, "acme/shop", "nobody", unreached(map[string]Verdict{"trust policy": Refused}, late[2:]...)},
		{"nonsense", "a b", "acme/shop", "ci", unreached(map[string]Verdict{"algorithm": Refused},
			append([]string{"issuer", "signature", "audience", "expiry", "age", "claims", "scope", "rate", "first use"}, late...)...)},
	} {
		e := w.b.Explain(t.Context(), tt.token, tt.scope, tt.identity)
		if diff := cmp.Diff(tt.want, verdicts(e)); diff != "" || e.Admitted != (len(tt.want) == 0) {
			t.Errorf("%s: admitted %t, verdicts (-want +got):\n%s", tt.name, e.Admitted, diff)
		}
		text, err := json.Marshal(e)
		if err != nil || strings.Contains(fmt.Sprintf("%s%+v", text, e), tt.token) {
			t.Errorf("%s: the explanation has the token, or %v", tt.name, err)
		}
	}
	if got := len(w.gh.Live()); got != live {
		t.Errorf("%d tokens live, want %d: nothing is issued", got, live)
	}
	if strings.Contains(w.log.String(), fresh) {
		t.Error("the token is in the log")
	}
	w.oidc.Rotate()
	w.oidc.SetDown(true)
	for _, k := range w.b.keys {
		k.tried = k.tried.Add(-keysWait)
	}
	if e := w.b.Explain(t.Context(), w.oidc.Mint(w.claims(nil)), "acme/shop", "ci"); verdicts(e)["signature"] != Failed {
		t.Errorf("with the issuer down: %v, want a check that failed", verdicts(e))
	}
	if status, v := w.ask(http.MethodGet, good, "Bearer "+fresh); status != http.StatusOK {
		t.Errorf("after all that the token gives %d %v, want 200: it was not used up", status, v)
	}
}

// A broker is ready while its database answers.
func TestReady(t *testing.T) {
	w := newWorld(t)
	if got := readiness(w.b); got != http.StatusOK {
		t.Errorf("readyz: %d, want 200", got)
	}
	if err := w.b.store.db.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readiness(w.b); got != http.StatusServiceUnavailable {
		t.Errorf("readyz without a database: %d, want 503", got)
	}
}
