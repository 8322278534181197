package issuer

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// start is a running issuer with the variables that a job gets.
func start(t *testing.T, claims map[string]string) (string, map[string]string) {
	t.Helper()
	var i *Issuer
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { i.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	i, err := New(Config{URL: server.URL, Claims: claims})
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, kv := range i.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	return server.URL, env
}

// ask asks for a token as a job does.
func ask(t *testing.T, env map[string]string, bearer, audience string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env["ACTIONS_ID_TOKEN_REQUEST_URL"]+"&audience="+audience, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", bearer)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ Value string }
	_ = json.Unmarshal(body, &out)
	return resp.StatusCode, out.Value
}

// A relying party that discovers the issuer accepts its token, for this audience alone.
func TestToken(t *testing.T) {
	url, env := start(t, map[string]string{"sub": "repo:acme/shop:ref:refs/heads/main", "repository": "acme/shop"})
	status, token := ask(t, env, "Bearer "+env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"], "broker.example.org")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	provider, err := oidc.NewProvider(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	verified, err := provider.Verifier(&oidc.Config{ClientID: "broker.example.org"}).Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ Repository, Sub, Jti string }
	if err := verified.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	if claims.Repository != "acme/shop" || claims.Sub != "repo:acme/shop:ref:refs/heads/main" || claims.Jti == "" {
		t.Errorf("the claims are %+v", claims)
	}
	if left := time.Until(verified.Expiry); left > Lifetime || left < Lifetime-time.Minute {
		t.Errorf("it lives for %s", left)
	}
	if _, err := provider.Verifier(&oidc.Config{ClientID: "other"}).Verify(context.Background(), token); err == nil {
		t.Error("it was accepted for another audience")
	}
}

func TestTokenRefused(t *testing.T) {
	_, env := start(t, map[string]string{"sub": "x"})
	for _, bearer := range []string{"", "Bearer ", "Bearer wrong"} {
		if status, token := ask(t, env, bearer, "a"); status != http.StatusUnauthorized || token != "" {
			t.Errorf("Authorization %q: status %d, token %q", bearer, status, token)
		}
	}
	good := "Bearer " + env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
	if status, _ := ask(t, env, good, strings.Repeat("a", maxAudience+1)); status != http.StatusBadRequest {
		t.Errorf("a long audience: status %d", status)
	}
	if status, _ := ask(t, env, good, "a"); status != http.StatusOK {
		t.Errorf("the positive control: status %d", status)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no address": {Claims: map[string]string{"sub": "x"}},
		"no subject": {URL: "http://127.0.0.1:1"},
		"an issuer that looks like GitHub's": {
			URL: "http://127.0.0.1:1", Claims: map[string]string{"sub": "x", "iss": "https://token.actions.githubusercontent.com"},
		},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
