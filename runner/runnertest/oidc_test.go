package runnertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// verify checks a token as its receiver would: by the keys of the JWKS.
func verify(t *testing.T, o *OIDC, token, audience string) (jwt.Claims, error) {
	t.Helper()
	var claims jwt.Claims
	res, err := http.Get(o.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != 200 {
		return claims, fmt.Errorf("JWKS: %s", res.Status)
	}
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(res.Body).Decode(&keys); err != nil {
		t.Fatal(err)
	}
	tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return claims, err
	}
	if err := tok.Claims(keys, &claims); err != nil {
		return claims, err
	}
	return claims, claims.Validate(jwt.Expected{Issuer: o.URL, AnyAudience: jwt.Audience{audience}, Time: time.Now()})
}

func TestOIDCMint(t *testing.T) {
	o := NewOIDC(t)
	repo := NewGitHub(t, GitHubConfig{}).AddRepository("acme/shop")
	claims := JobClaims(repo)
	claims["aud"] = "broker.example.org"
	for _, rotate := range []bool{false, true} {
		if rotate {
			o.Rotate()
			o.Forget()
		}
		tok, err := verify(t, o, o.Mint(claims), "broker.example.org")
		if err != nil || tok.Subject != "repo:acme/shop:ref:refs/heads/main" {
			t.Errorf("after a rotation %v: %v, %v", rotate, tok, err)
		}
	}
	o.SetDown(true)
	if _, err := verify(t, o, o.Mint(claims), "broker.example.org"); err == nil {
		t.Error("it is down, and answers")
	}
}

func TestOIDCOfJob(t *testing.T) {
	o := NewOIDC(t)
	url, token := o.ActionsServer(JobClaims(NewGitHub(t, GitHubConfig{}).AddRepository("acme/shop")))
	ask := func(bearer string) (int, string) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"&audience=a.example.org", nil)
		req.Header.Set("Authorization", "Bearer "+bearer)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		var v struct{ Value string }
		_ = json.NewDecoder(res.Body).Decode(&v)
		return res.StatusCode, v.Value
	}
	if got, _ := ask("job.x"); got != 401 {
		t.Errorf("a wrong token: %d, want 401", got)
	}
	got, value := ask(token)
	if _, err := verify(t, o, value, "a.example.org"); err != nil || got != 200 {
		t.Errorf("status %d, %v", got, err)
	}
}
