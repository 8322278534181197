package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// vault reads one field of a secret of Vault's key-value engine, version 2, as the role that the job's identity gets there. The audience is
// the server's address. What it takes to read it, a token of Vault's, is revoked at once; the secret itself was there before and stays.
//
// See https://developer.hashicorp.com/vault/api-docs/auth/jwt and https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2.
type vault struct {
	exchanger
	c           policy.Credential
	path, field string // below /v1, and in the secret
}

func (cfg Config) openVault(c policy.Credential) (issuer, error) {
	path, field, _ := strings.Cut(c.From.Argument, "#")
	segments := strings.Split(path, "/")
	if len(segments) < 3 || segments[1] != "data" {
		return nil, refuse("write MOUNT/data/PATH#FIELD", "%q is no path of a secret of the key-value engine, version 2", path)
	}
	for _, s := range segments {
		if s == "" || s == "." || s == ".." {
			return nil, refuse("write MOUNT/data/PATH#FIELD", "the path %q has an empty name, or dots for one", path)
		}
	}
	if err := cfg.needIdentity("use `exec:vault kv get -field=...`"); err != nil {
		return nil, err
	}
	return vault{exchanger{cfg, "Vault at " + c.Broker}, c, path, field}, nil
}

func (v vault) issue(ctx context.Context) (token, error) {
	identity, err := v.cfg.OIDC(ctx, v.c.Broker)
	if err != nil {
		return token{}, err
	}
	body, err := json.Marshal(map[string]string{"role": v.c.Identity, "jwt": identity.Reveal()})
	if err != nil {
		return token{}, err
	}
	var login struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	if err := v.json(ctx, http.MethodPost, v.c.Broker+"/v1/auth/jwt/login", nil, body, &login); err != nil {
		return token{}, fmt.Errorf("log in as %s: %w", v.c.Identity, err)
	}
	if login.Auth.Token == "" {
		return token{}, fmt.Errorf("log in as %s: the answer has no token", v.c.Identity)
	}
	header := http.Header{"X-Vault-Token": {login.Auth.Token}}
	t, err := v.read(ctx, header)
	if revokeErr := v.json(context.WithoutCancel(ctx), http.MethodPost, v.c.Broker+"/v1/auth/token/revoke-self", header, nil, nil); revokeErr != nil {
		err = errors.Join(err, fmt.Errorf("revoke the token that read it: %w", revokeErr))
	}
	return t, err
}

func (v vault) read(ctx context.Context, header http.Header) (token, error) {
	var answer struct {
		RequestID string `json:"request_id"` // Vault's audit log has it
		Data      struct {
			Data map[string]json.RawMessage `json:"data"`
		} `json:"data"`
	}
	var path strings.Builder
	for s := range strings.SplitSeq(v.path, "/") {
		path.WriteString("/" + url.PathEscape(s))
	}
	if err := v.json(ctx, http.MethodGet, v.c.Broker+"/v1"+path.String(), header, nil, &answer); err != nil {
		return token{}, fmt.Errorf("read %s: %w", v.path, err)
	}
	raw, there := answer.Data.Data[v.field]
	if !there {
		return token{}, fmt.Errorf("read %s: the secret has no field %q", v.path, v.field)
	}
	var text string
	if json.Unmarshal(raw, &text) != nil || text == "" {
		return token{}, fmt.Errorf("read %s: the field %q is no text, or empty", v.path, v.field)
	}
	return token{value: secret.New(text), issuance: answer.RequestID}, nil
}
