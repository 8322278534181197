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
	"slices"
	"strconv"
	"strings"
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

// jwt is what an App proves itself with. iat is in the past for clocks that differ.
func (a *App) jwt(now time.Time) (string, error) {
	enc := base64.RawURLEncoding.EncodeToString
	body := fmt.Sprintf(`{"iss":"%d","iat":%d,"exp":%d}`, a.ID, now.Add(-time.Minute).Unix(), now.Add(8*time.Minute).Unix())
	input := enc([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc([]byte(body))
	sum := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	return input + "." + enc(signature), err
}

// call makes a request of the API. A []byte in into gets the body as it is.
func (b *Broker) call(ctx context.Context, a *App, method, path, token string, body, into any) (int, error) {
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
		return 0, err
	}
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

// installation finds the App that is installed for the repository.
func (b *Broker) installation(ctx context.Context, scope string) (*App, int64, error) {
	owner, _, _ := strings.Cut(scope, "/")
	for i := range b.cfg.Apps {
		a := &b.cfg.Apps[i]
		if !slices.ContainsFunc(a.Owners, func(o string) bool { return strings.EqualFold(o, owner) }) {
			continue
		}
		jwt, err := a.jwt(b.now())
		if err != nil {
			return nil, 0, err
		}
		var inst struct {
			ID int64 `json:"id"`
		}
		status, err := b.call(ctx, a, http.MethodGet, "/repos/"+scope+"/installation", jwt, nil, &inst)
		if err == nil {
			return a, inst.ID, nil
		}
		if status != http.StatusNotFound {
			return nil, 0, err
		}
	}
	return nil, 0, refuse(codeNotFound, "no such repository or identity", "no App is installed for %s", scope)
}

func (b *Broker) token(ctx context.Context, a *App, inst int64, body map[string]any) (installationToken, error) {
	jwt, err := a.jwt(b.now())
	if err != nil {
		return installationToken{}, err
	}
	var tok installationToken
	_, err = b.call(ctx, a, http.MethodPost, "/app/installations/"+strconv.FormatInt(inst, 10)+"/access_tokens", jwt, body, &tok)
	return tok, err
}

// readTrust reads the trust policy of the default branch, ours before octo-sts' own, with a token that can do no more.
func (b *Broker) readTrust(ctx context.Context, a *App, inst int64, scope, identity string) (repository, *trustPolicy, policyRef, error) {
	var target repository
	_, name, _ := strings.Cut(scope, "/")
	tok, err := b.token(ctx, a, inst, map[string]any{"repositories": []string{name}, "permissions": map[string]string{"contents": "read"}})
	if err != nil {
		return target, nil, policyRef{}, err
	}
	defer b.revoke(ctx, a, tok.Token)
	if len(tok.Repositories) != 1 || !strings.EqualFold(tok.Repositories[0].FullName, scope) {
		return target, nil, policyRef{}, refuse(codeNotFound, "no such repository or identity", "%s is not what %s is called now", scope, scope)
	}
	r := tok.Repositories[0]
	target = repository{r.ID, r.FullName, r.DefaultBranch, r.Owner}
	var commit struct{ SHA string }
	if _, err := b.call(ctx, a, http.MethodGet, "/repos/"+scope+"/commits/heads/"+target.DefaultBranch, tok.Token, nil, &commit); err != nil {
		return target, nil, policyRef{}, err
	}
	for _, path := range []string{".github/agent-sandbox/trust/" + identity + ".yaml", ".github/chainguard/" + identity + ".sts.yaml"} {
		var src []byte
		status, err := b.call(ctx, a, http.MethodGet, "/repos/"+scope+"/contents/"+path+"?ref="+commit.SHA, tok.Token, nil, &src)
		if status == http.StatusNotFound {
			continue
		}
		if err != nil {
			return target, nil, policyRef{}, err
		}
		sum := sha256.Sum256(src)
		trust, err := parseTrust(src)
		if err != nil {
			return target, nil, policyRef{}, refuse(codeDenied, "the trust policy is not valid", "%s: %w", path, err)
		}
		return target, trust, policyRef{path, commit.SHA, hex.EncodeToString(sum[:])}, nil
	}
	return target, nil, policyRef{}, refuse(codeNotFound, "no such repository or identity", "%s has no trust policy %s", scope, identity)
}

// mint asks for the token, and refuses one that can do more than was asked for.
func (b *Broker) mint(ctx context.Context, a *App, inst int64, target repository, permissions map[string]string) (installationToken, error) {
	tok, err := b.token(ctx, a, inst, map[string]any{"repository_ids": []int64{target.ID}, "permissions": permissions})
	if err != nil {
		return tok, err
	}
	wider := tok.Selection != "selected" || len(tok.Repositories) != 1 || tok.Repositories[0].ID != target.ID
	for name, level := range tok.Permissions {
		implied := name == "metadata" && level == "read" // GitHub always adds it
		wider = wider || !implied && (rank(level) == 0 || rank(level) > rank(permissions[name]))
	}
	if wider || tok.Token == "" {
		b.revoke(ctx, a, tok.Token)
		return installationToken{}, fmt.Errorf("GitHub granted %v (%s) where %v was asked for", tok.Permissions, tok.Selection, permissions)
	}
	return tok, nil
}

// revoke ends a token, also when the client has gone.
func (b *Broker) revoke(ctx context.Context, a *App, token string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := b.call(ctx, a, http.MethodDelete, "/installation/token", token, nil, nil); err != nil {
		b.log.Error("token not revoked: it ends by itself within the hour", "error", err)
	}
}
