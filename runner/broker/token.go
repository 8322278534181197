package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxToken = 16 << 10
	maxKeys  = 1 << 20
	maxAge   = 10 * time.Minute // of iat
	skew     = 30 * time.Second
	keysLife = 10 * time.Minute
	keysWait = 10 * time.Second // between two looks for a key that is not there
)

// claims are those that are looked at by name. All is every claim, for the patterns of trust policies.
type claims struct {
	Issuer       string `json:"iss"`
	Subject      string `json:"sub"`
	Audience     any    `json:"aud"`
	ID           string `json:"jti"`
	IssuedAt     int64  `json:"iat"`
	NotBefore    int64  `json:"nbf"`
	Expires      int64  `json:"exp"`
	RepositoryID string `json:"repository_id"`
	OwnerID      string `json:"repository_owner_id"`
	Event        string `json:"event_name"`
	RunID        string `json:"run_id"`

	all map[string]any
}

// verify makes every check that needs the token alone.
func (b *Broker) verify(ctx context.Context, text string) (*claims, error) {
	no := func(reason string, err error) error { return &refusal{codeUnauthenticated, reason, err} }
	signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, no("token is malformed or not signed by RS256", err)
	}
	var unverified claims
	if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &unverified); err != nil {
		return nil, no("token is malformed", err)
	}
	keys := b.keys[unverified.Issuer]
	if keys == nil {
		return nil, no("issuer is not trusted", fmt.Errorf("iss %.200q", unverified.Issuer))
	}
	key, err := keys.find(ctx, signed.Signatures[0].Header.KeyID, b.now())
	if err != nil {
		return nil, &refusal{codeInternal, "the issuer's keys cannot be had", err}
	}
	if key == nil {
		return nil, no("signature is not valid", fmt.Errorf("no key %.100q", signed.Signatures[0].Header.KeyID))
	}
	payload, err := signed.Verify(key)
	if err != nil {
		return nil, no("signature is not valid", err)
	}
	c := &claims{}
	if err := errors.Join(json.Unmarshal(payload, c), json.Unmarshal(payload, &c.all)); err != nil {
		return nil, no("token is malformed", err)
	}
	return c, b.checkClaims(c)
}

// checkClaims is about audience, time and what must be there.
func (b *Broker) checkClaims(c *claims) error {
	no := func(reason string) error {
		return refuse(codeUnauthenticated, reason, "iss %s, aud %.200q, iat %d, nbf %d, exp %d", c.Issuer, fmt.Sprint(c.Audience), c.IssuedAt, c.NotBefore, c.Expires)
	}
	now := b.now()
	switch {
	case c.Audience != any(b.cfg.Audience): // a list never equals a string
		return no("audience is another")
	case !now.Before(time.Unix(c.Expires, 0)):
		return no("token has expired")
	case time.Unix(c.NotBefore, 0).After(now.Add(skew)):
		return no("token is not valid yet")
	case time.Unix(c.IssuedAt, 0).After(now.Add(skew)) || now.Sub(time.Unix(c.IssuedAt, 0)) > maxAge:
		return no("token was issued too long ago, or later than now")
	case c.ID == "" || c.Subject == "" || c.RepositoryID == "" || c.OwnerID == "" || c.Event == "":
		return no("token lacks a claim")
	}
	return nil
}

// keySet is the JWKS of one issuer at its pinned address.
type keySet struct {
	url    string
	client *http.Client

	mu      sync.Mutex // guards the rest
	keys    jose.JSONWebKeySet
	fetched time.Time
}

// find gives the RSA key of this id, nil if the issuer has none.
func (k *keySet) find(ctx context.Context, id string, now time.Time) (*jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := k.known(id)
	age := now.Sub(k.fetched)
	if key != nil && age < keysLife || key == nil && age < keysWait {
		return key, nil
	}
	if err := k.fetch(ctx, now); err != nil {
		return nil, err
	}
	return k.known(id), nil
}

func (k *keySet) known(id string) *jose.JSONWebKey {
	for _, key := range k.keys.Key(id) {
		if id != "" && key.IsPublic() && key.Valid() {
			return &key
		}
	}
	return nil
}

func (k *keySet) fetch(ctx context.Context, now time.Time) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return err
	}
	res, err := k.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", k.url, res.Status)
	}
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(io.LimitReader(res.Body, maxKeys)).Decode(&keys); err != nil {
		return fmt.Errorf("%s: %w", k.url, err)
	}
	k.keys, k.fetched = keys, now
	return nil
}

// limitedClient follows no redirect: an address that is pinned stays pinned.
func limitedClient() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
