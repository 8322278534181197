package actions

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func TestIDToken(t *testing.T) {
	o := runnertest.NewOIDC(t)
	repo := runnertest.NewGitHub(t, runnertest.GitHubConfig{}).AddRepository("acme/shop")
	url, token := o.ActionsServer(runnertest.JobClaims(repo))
	id := IdentityFromEnv(environment(map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": token}))
	got, err := id.IDToken(t.Context(), "a b&c")
	if err != nil || strings.Count(got.Reveal(), ".") != 2 {
		t.Fatalf("%v", err)
	}
	id.Token = secret.New("wrong")
	if _, err := id.IDToken(t.Context(), "a"); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with a wrong token: %v", err)
	}
	if _, err := id.IDToken(t.Context(), ""); err == nil {
		t.Error("without an audience")
	}
}

func TestIdentityFromEnv(t *testing.T) {
	for _, vars := range []map[string]string{
		nil, {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x.example"}, {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x"},
	} {
		if IdentityFromEnv(environment(vars)) != nil {
			t.Errorf("%v is an identity", vars)
		}
	}
}

// A server that fails for a moment is asked again; one that sends the token elsewhere is not followed.
func TestIDTokenRetries(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked++; {
		case asked == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Query().Get("audience") == "away":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		default:
			_, _ = w.Write([]byte(`{"value": "a.b.c"}`))
		}
	}))
	defer server.Close()
	id := &Identity{URL: server.URL, Token: secret.New("job")}
	if got, err := id.IDToken(t.Context(), "a"); err != nil || got.Reveal() != "a.b.c" || asked != 2 {
		t.Errorf("%v after %d requests", err, asked)
	}
	if _, err := id.IDToken(t.Context(), "away"); err == nil || asked != 3 {
		t.Errorf("a redirect: %v after %d requests", err, asked)
	}
}
