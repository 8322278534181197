package credential

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// gitHubApp issues tokens with the private key of an App, which stays here: for a laptop, and for CI machines of one's own.
type gitHubApp struct {
	gitHub
	c   policy.Credential
	key *rsa.PrivateKey
	now func() time.Time
}

func (cfg Config) openGitHubApp(c policy.Credential) (issuer, error) {
	if err := checkScope(c, cfg.Permissions); err != nil {
		return nil, err
	}
	text, err := cfg.static(c.Key)
	if err != nil {
		return nil, err
	}
	if err := notInside(cfg, nil, text.Reveal()); err != nil {
		return nil, err
	}
	key, err := parseRSA([]byte(text.Reveal()))
	if err != nil {
		return nil, refuse("download it from the App's settings, as a .pem", "the key of the App: %v", err)
	}
	return gitHubApp{gitHub{cfg.api(), cfg.HTTP}, c, key, cfg.now()}, nil
}

// parseRSA reads PKCS#1, as GitHub gives it, or PKCS#8.
func parseRSA(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is no PEM file")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it has no private key")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("it is no RSA key")
	}
	return key, nil
}

// issue asks for exactly the repositories and permissions of the policy. Leaving either out would mean all, so neither ever is.
func (a gitHubApp) issue(ctx context.Context) (token, error) {
	if len(a.c.Repositories) == 0 || len(a.c.Permissions) == 0 {
		return token{}, errors.New("neither repositories nor permissions may be left out")
	}
	jwt, err := a.jwt()
	if err != nil {
		return token{}, err
	}
	installation, ids, err := a.find(ctx, jwt)
	if err != nil {
		return token{}, err
	}
	var answer installationToken
	request := map[string]any{"repository_ids": ids, "permissions": a.c.Permissions}
	path := fmt.Sprintf("/app/installations/%d/access_tokens", installation)
	if _, err := a.call(ctx, http.MethodPost, path, jwt, request, &answer); err != nil {
		return token{}, fmt.Errorf("issue token: %w", err)
	}
	return a.accept(ctx, answer, a.c, "")
}

// find gets the installation and the ids of the repositories. A token is for those of one owner, so there is one installation.
func (a gitHubApp) find(ctx context.Context, jwt secret.Value) (installation int64, ids []int64, err error) {
	for _, name := range a.c.Repositories {
		var i struct{ ID int64 }
		if _, err := a.call(ctx, http.MethodGet, "/repos/"+name+"/installation", jwt, nil, &i); err != nil {
			return 0, nil, fmt.Errorf("is the App installed for %s? %w", name, err)
		}
		if installation != 0 && installation != i.ID {
			return 0, nil, fmt.Errorf("%s is of another installation than %s: a token is for repositories of one owner", name, a.c.Repositories[0])
		}
		installation = i.ID
	}
	// The App itself can't read repositories, so a token that sees nothing but their names is made first, and ended.
	var look installationToken
	request := map[string]any{"repositories": shortNames(a.c.Repositories), "permissions": map[string]string{"metadata": "read"}}
	if _, err := a.call(ctx, http.MethodPost, fmt.Sprintf("/app/installations/%d/access_tokens", installation), jwt, request, &look); err != nil {
		return 0, nil, fmt.Errorf("look up the repositories: %w", err)
	}
	for _, r := range look.Repositories {
		ids = append(ids, r.ID)
	}
	_, err = a.revoke(ctx, secret.New(look.Token))
	if err == nil && len(ids) != len(a.c.Repositories) {
		err = errors.New("GitHub found other repositories than the policy names")
	}
	return installation, ids, err
}

func shortNames(full []string) []string {
	var names []string
	for _, name := range full {
		_, short, _ := strings.Cut(name, "/")
		names = append(names, short)
	}
	return names
}

// jwt says that we are the App (https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app).
func (a gitHubApp) jwt() (secret.Value, error) {
	now := a.now()
	claims, err := json.Marshal(map[string]any{"iss": a.c.From.Argument, "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(8 * time.Minute).Unix()})
	if err != nil {
		return secret.Value{}, err
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		return secret.Value{}, err
	}
	return secret.New(text + "." + base64.RawURLEncoding.EncodeToString(sig)), nil
}
