package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxToken = 16 << 10
	maxAge   = 10 * time.Minute // of iat
	skew     = 30 * time.Second
)

// claims are those that are looked at by name. all is every claim, for the patterns of trust policies.
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

func (b *Broker) checkSize(_ context.Context, a *attempt) error {
	for _, value := range a.authorization {
		if len(value) > maxToken {
			return refuse(codeUnauthenticated, "token is too large", "%d bytes", len(value))
		}
	}
	return nil
}

// checkBearer takes the token of the only Authorization header.
func (b *Broker) checkBearer(_ context.Context, a *attempt) error {
	if len(a.authorization) != 1 {
		return refuse(codeUnauthenticated, "want exactly one Authorization header", "there are %d", len(a.authorization))
	}
	scheme, token, ok := strings.Cut(a.authorization[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return refuse(codeUnauthenticated, "want a bearer token", "scheme is another")
	}
	a.token = token
	return nil
}

func (b *Broker) checkAlgorithm(_ context.Context, a *attempt) error {
	var err error
	a.signed, err = jose.ParseSignedCompact(a.token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return &refusal{codeUnauthenticated, "token is malformed or not signed by RS256", err}
	}
	return nil
}

// checkIssuer finds the keys by what the token says. Nothing else of it counts yet.
func (b *Broker) checkIssuer(_ context.Context, a *attempt) error {
	var unverified struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(a.signed.UnsafePayloadWithoutVerification(), &unverified); err != nil {
		return &refusal{codeUnauthenticated, "token is malformed", err}
	}
	if a.keys = b.keys[unverified.Issuer]; a.keys == nil {
		return refuse(codeUnauthenticated, "issuer is not trusted", "iss %.200q", unverified.Issuer)
	}
	return nil
}

func (b *Broker) checkSignature(ctx context.Context, a *attempt) error {
	id := a.signed.Signatures[0].Header.KeyID
	key, err := a.keys.find(ctx, id, b.now())
	if err != nil {
		return &refusal{codeInternal, "the issuer's keys cannot be had", err}
	}
	if key == nil {
		return refuse(codeUnauthenticated, "signature is not valid", "no key %.100q", id)
	}
	payload, err := a.signed.Verify(key)
	if err != nil {
		return &refusal{codeUnauthenticated, "signature is not valid", err}
	}
	return a.readClaims(payload)
}

func (a *attempt) readClaims(payload []byte) error {
	c := &claims{}
	if err := errors.Join(json.Unmarshal(payload, c), json.Unmarshal(payload, &c.all)); err != nil {
		return &refusal{codeUnauthenticated, "token is malformed", err}
	}
	a.claims = c
	return nil
}

// checkAudience wants a single one: a list never equals a string.
func (b *Broker) checkAudience(_ context.Context, a *attempt) error {
	if a.claims.Audience != any(b.cfg.Audience) {
		return refuse(codeUnauthenticated, "audience is another", "aud %.200q", fmt.Sprint(a.claims.Audience))
	}
	return nil
}

func (b *Broker) checkExpiry(_ context.Context, a *attempt) error {
	if now := b.now(); !now.Before(time.Unix(a.claims.Expires, 0)) {
		return refuse(codeUnauthenticated, "token has expired", "exp %d, now %d", a.claims.Expires, now.Unix())
	}
	return nil
}

func (b *Broker) checkAge(_ context.Context, a *attempt) error {
	now, issued, notBefore := b.now(), time.Unix(a.claims.IssuedAt, 0), time.Unix(a.claims.NotBefore, 0)
	switch {
	case notBefore.After(now.Add(skew)):
		return refuse(codeUnauthenticated, "token is not valid yet", "nbf %d, now %d", a.claims.NotBefore, now.Unix())
	case issued.After(now.Add(skew)) || now.Sub(issued) > maxAge:
		return refuse(codeUnauthenticated, "token was issued too long ago, or later than now", "iat %d, now %d", a.claims.IssuedAt, now.Unix())
	}
	return nil
}

func (b *Broker) checkClaims(_ context.Context, a *attempt) error {
	c := a.claims
	for name, value := range map[string]string{"jti": c.ID, "sub": c.Subject, "repository_id": c.RepositoryID, "repository_owner_id": c.OwnerID, "event_name": c.Event} {
		if value == "" {
			return refuse(codeUnauthenticated, "token lacks a claim", "%s is empty or missing", name)
		}
	}
	return nil
}
