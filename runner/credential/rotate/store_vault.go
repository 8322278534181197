package rotate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// vaultStore is a field of a secret in Vault's or OpenBao's KV v2 engine (https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2).
type vaultStore struct {
	client    *retryablehttp.Client
	url       string
	field     string
	namespace string
	token     secret.Value
}

func (cfg Config) openVault(ctx context.Context, s policy.KeyStore) (store, error) {
	address := s.Address
	if address == "" {
		address, _ = cfg.Sources.LookupEnv("VAULT_ADDR")
		address = strings.TrimSuffix(address, "/")
	}
	if address == "" {
		return nil, mend("set it, or write `address:`", "VAULT_ADDR is not set")
	}
	if err := policy.CheckEndpoint(address); err != nil {
		return nil, fmt.Errorf("VAULT_ADDR: %w", err)
	}
	token, err := cfg.storeToken(ctx, s, "VAULT_TOKEN")
	if err != nil {
		return nil, err
	}
	path, field, _ := strings.Cut(s.Vault, "#")
	namespace, _ := cfg.Sources.LookupEnv("VAULT_NAMESPACE")
	return vaultStore{cfg.Sources.Retrying(), address + "/v1/" + strings.TrimPrefix(path, "/"), field, namespace, token}, nil
}

// vaultSecret is one version of a secret.
type vaultSecret struct {
	Data struct {
		Data     map[string]json.RawMessage `json:"data"`
		Metadata struct {
			Created time.Time `json:"created_time"`
			Version int       `json:"version"`
		} `json:"metadata"`
	} `json:"data"`
}

func (s vaultStore) current(ctx context.Context) (vaultSecret, error) {
	var v vaultSecret
	err := s.call(ctx, http.MethodGet, nil, &v)
	switch _, has := v.Data.Data[s.field]; {
	case statusOf(err) == http.StatusNotFound, err == nil && !has:
		return v, mend("write the present key there", "Vault has no such secret, or it has no field %q", s.field)
	case statusOf(err) == http.StatusForbidden:
		return v, mend("the token needs read and update there", "Vault does not let the token in")
	}
	return v, err
}

func (s vaultStore) written(ctx context.Context) (time.Time, error) {
	v, err := s.current(ctx)
	return v.Data.Metadata.Created, err
}

func (s vaultStore) read(ctx context.Context) (secret.Value, error) {
	v, err := s.current(ctx)
	var text string
	if err == nil && json.Unmarshal(v.Data.Data[s.field], &text) != nil {
		err = errors.New("the field is no text")
	}
	return secret.New(text), err
}

// put writes a version with one field changed. Should somebody else write meanwhile, Vault refuses it (check-and-set).
func (s vaultStore) put(ctx context.Context, v secret.Value) (bool, error) {
	before, err := s.current(ctx)
	if err != nil {
		return false, &untouchedError{err}
	}
	text, err := json.Marshal(v.Reveal())
	if err != nil {
		return false, &untouchedError{err}
	}
	data := maps.Clone(before.Data.Data)
	data[s.field] = text
	putErr := s.call(ctx, http.MethodPost, map[string]any{"options": map[string]any{"cas": before.Data.Metadata.Version}, "data": data}, nil)
	after, err := s.read(ctx)
	switch {
	case err == nil && after.Reveal() == v.Reveal():
		return true, nil // also if an answer was lost, and the second try refused for it
	case refused(putErr):
		return false, &untouchedError{putErr}
	}
	return false, errors.Join(putErr, err, errors.New("the new key is not in Vault"))
}

func (s vaultStore) call(ctx context.Context, method string, body, out any) error {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, method, s.url, payload)
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", s.token.Reveal())
	req.Header.Set("X-Vault-Request", "true")
	if s.namespace != "" {
		req.Header.Set("X-Vault-Namespace", s.namespace)
	}
	_, err = exchange(s.client, req, out)
	return err
}
