package broker

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const maxAnswer = 4 << 20

type repository struct {
	ID            int64  `json:"id"`
	FullName      string `json:"full_name"`
	DefaultBranch string `json:"-"`
	Owner         struct {
		ID int64 `json:"id"`
	} `json:"-"`
}

// policyRef says which trust policy decided.
type policyRef struct {
	Path   string `json:"path"`
	Commit string `json:"commit"`
	SHA256 string `json:"sha256"`
}

type installationToken struct {
	Token        string            `json:"token"`
	ExpiresAt    time.Time         `json:"expires_at"`
	Permissions  map[string]string `json:"permissions"`
	Selection    string            `json:"repository_selection"`
	Repositories []struct {
		ID            int64  `json:"id"`
		FullName      string `json:"full_name"`
		DefaultBranch string `json:"default_branch"`
		Owner         struct {
			ID int64 `json:"id"`
		} `json:"owner"`
	} `json:"repositories"`
}

// githubApp is an App with what it takes to speak for it.
type githubApp struct {
	App
	key    *rsa.PrivateKey
	client *http.Client

	mu        sync.Mutex // guards the rest
	assertion string
	until     time.Time // of the assertion
}

func newGitHubApp(a App) (*githubApp, error) {
	key, err := parseKey(a.Key)
	if err != nil {
		return nil, fmt.Errorf("App %d: private key: %w", a.ID, err)
	}
	return &githubApp{App: a, key: key, client: limitedClient()}, nil
}

// jwt is what an App proves itself with: the same for some minutes, since a signature takes longer than all other work of an exchange. iat is in the
// past for clocks that differ.
func (a *githubApp) jwt(now time.Time) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := a.until.Sub(now); left > 2*time.Minute && left <= 8*time.Minute {
		return a.assertion, nil
	}
	enc := base64.RawURLEncoding.EncodeToString
	until := now.Add(8 * time.Minute)
	body := fmt.Sprintf(`{"iss":"%d","iat":%d,"exp":%d}`, a.ID, now.Add(-time.Minute).Unix(), until.Unix())
	input := enc([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc([]byte(body))
	sum := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	a.assertion, a.until = input+"."+enc(signature), until
	return a.assertion, nil
}

// call makes a request of the API. A []byte in into gets the body as it is.
func (b *Broker) call(ctx context.Context, a *githubApp, method, path, token string, body, into any) (int, error) {
	var in io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		in = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(a.API, "/")+path, in)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/vnd.github+json")
	raw, isRaw := into.(*[]byte)
	if isRaw {
		req.Header.Set("Accept", "application/vnd.github.raw+json")
	}
	res, err := a.client.Do(req)
	if err != nil {
		b.metrics.githubAnswered(0)
		return 0, err
	}
	b.metrics.githubAnswered(res.StatusCode)
	defer func() { _ = res.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, err
	}
	switch {
	case res.StatusCode >= 300:
		return res.StatusCode, fmt.Errorf("%s %s: %s", method, path, res.Status)
	case isRaw:
		*raw = content
	case into != nil:
		return res.StatusCode, json.Unmarshal(content, into)
	}
	return res.StatusCode, nil
}

// checkInstallation finds the App that is installed for the repository.
func (b *Broker) checkInstallation(ctx context.Context, at *attempt) error {
	owner, _, _ := strings.Cut(at.scope, "/")
	for _, app := range b.apps {
		if !slices.ContainsFunc(app.Owners, func(o string) bool { return strings.EqualFold(o, owner) }) {
			continue
		}
		jwt, err := app.jwt(b.now())
		if err != nil {
			return err
		}
		var inst struct {
			ID int64 `json:"id"`
		}
		status, err := b.call(ctx, app, http.MethodGet, "/repos/"+at.scope+"/installation", jwt, nil, &inst)
		if err == nil {
			at.app, at.installation = app, inst.ID
			return nil
		}
		if status != http.StatusNotFound {
			return err
		}
	}
	return refuse(codeNotFound, "no such repository or identity", "no App is installed for %s", at.scope)
}

// token asks for one of the installation. It tells the status too: 0 without an answer.
func (b *Broker) token(ctx context.Context, at *attempt, body map[string]any) (installationToken, int, error) {
	var tok installationToken
	jwt, err := at.app.jwt(b.now())
	if err != nil {
		return tok, 0, err
	}
	status, err := b.call(ctx, at.app, http.MethodPost, "/app/installations/"+strconv.FormatInt(at.installation, 10)+"/access_tokens", jwt, body, &tok)
	return tok, status, err
}

// checkTrustPolicy reads the one of the default branch, ours before octo-sts' own, with a token that can do no more than that.
func (b *Broker) checkTrustPolicy(ctx context.Context, at *attempt) error {
	_, name, _ := strings.Cut(at.scope, "/")
	tok, _, err := b.token(ctx, at, map[string]any{"repositories": []string{name}, "permissions": map[string]string{"contents": "read"}})
	if err != nil {
		return err
	}
	defer b.revoke(ctx, at.app, tok.Token)
	if len(tok.Repositories) != 1 || !strings.EqualFold(tok.Repositories[0].FullName, at.scope) {
		return refuse(codeNotFound, "no such repository or identity", "%s is not what %s is called now", at.scope, at.scope)
	}
	r := tok.Repositories[0]
	at.target, at.ids = repository{r.ID, r.FullName, r.DefaultBranch, r.Owner}, []int64{r.ID}
	var commit struct{ SHA string }
	// git lets "#" and "%" stand in a branch: unescaped, "main#2" would ask for another branch, and its trust policy.
	branch := (&url.URL{Path: "heads/" + at.target.DefaultBranch}).EscapedPath()
	if _, err := b.call(ctx, at.app, http.MethodGet, "/repos/"+at.scope+"/commits/"+branch, tok.Token, nil, &commit); err != nil {
		return err
	}
	for _, path := range []string{".github/agent-sandbox/trust/" + at.identity + ".yaml", ".github/chainguard/" + at.identity + ".sts.yaml"} {
		var src []byte
		status, err := b.call(ctx, at.app, http.MethodGet, "/repos/"+at.scope+"/contents/"+path+"?ref="+commit.SHA, tok.Token, nil, &src)
		if status == http.StatusNotFound {
			continue
		}
		if err != nil {
			return err
		}
		sum := sha256.Sum256(src)
		at.ref = policyRef{path, commit.SHA, hex.EncodeToString(sum[:])}
		if at.trust, err = parseTrust(src); err != nil {
			return refuse(codeDenied, "the trust policy is not valid", "%s: %w", path, err)
		}
		return nil
	}
	return refuse(codeNotFound, "no such repository or identity", "%s has no trust policy %s", at.scope, at.identity)
}

// mint asks for the token, and refuses one that can do more than was asked for.
func (b *Broker) mint(ctx context.Context, at *attempt) (installationToken, error) {
	tok, status, err := b.token(ctx, at, map[string]any{"repository_ids": at.ids, "permissions": at.permissions})
	switch {
	case status == http.StatusUnprocessableEntity:
		return tok, refuse(codeDenied, "the App may not grant this", "%v: %w", at.permissions, err)
	case status >= 400 && status < 500:
		return tok, fmt.Errorf("%w: %w", errNothingMinted, err)
	case err != nil:
		return tok, err
	}
	if tok.Token == "" || b.wider(at, tok) {
		b.revoke(ctx, at.app, tok.Token)
		return installationToken{}, fmt.Errorf("GitHub granted %v (%s) where %v was asked for", tok.Permissions, tok.Selection, at.permissions)
	}
	return tok, nil
}

// wider tells whether a token can do more than was asked for.
func wider(at *attempt, tok installationToken) bool {
	more := tok.Selection != "selected" || len(tok.Repositories) != 1 || tok.Repositories[0].ID != at.target.ID
	for name, level := range tok.Permissions {
		implied := name == "metadata" && level == "read" // GitHub always adds it
		more = more || !implied && (rank(level) == 0 || rank(level) > rank(at.permissions[name]))
	}
	return more
}

// revoke ends a token, also when the client has gone.
func (b *Broker) revoke(ctx context.Context, a *githubApp, token string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := b.call(ctx, a, http.MethodDelete, "/installation/token", token, nil, nil); err != nil {
		b.metrics.unrevoked.inc()
		b.log.Error("token not revoked: it ends by itself within the hour", "error", err)
	}
}
