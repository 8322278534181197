package selftest

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// attack has a name, and gives the answer to it.
type attack struct {
	name  string
	tries func(ctx context.Context) (reply, error)
	// also are further statuses that refuse it, such as 431 of a header that is too large.
	also []int
	skip string
}

func (a attack) run(ctx context.Context) Result {
	if a.skip != "" {
		return Result{Name: a.name, Verdict: Skipped, Detail: a.skip}
	}
	rep, err := a.tries(ctx)
	for _, status := range a.also {
		if err == nil && rep.status == status {
			return Result{Name: a.name, Verdict: OK}
		}
	}
	return judged(Result{Name: a.name}, rep, err)
}

func encoded(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic("selftest: bug: a token that is no JSON: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// forge makes a token that the issuer did not sign.
func (p *prober) forge(header, change map[string]any, sign func(input []byte) []byte) string {
	claims := p.claims()
	maps.Copy(claims, change)
	input := encoded(header) + "." + encoded(claims)
	return input + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(input)))
}

func unsigned([]byte) []byte { return nil }

// byStranger signs as the issuer does, by a key that is not the issuer's.
func (p *prober) byStranger(input []byte) []byte {
	sum := sha256.Sum256(input)
	signature, err := rsa.SignPKCS1v15(rand.Reader, p.stranger, crypto.SHA256, sum[:])
	if err != nil {
		panic("selftest: bug: RS256: " + err.Error())
	}
	return signature
}

func byHMAC(key []byte) func([]byte) []byte {
	return func(input []byte) []byte {
		m := hmac.New(sha256.New, key)
		m.Write(input)
		return m.Sum(nil)
	}
}

// publicKeys are the forms in which a library may take the issuer's key for the key of an HMAC.
func (p *prober) publicKeys() map[string][]byte {
	pkix, err := x509.MarshalPKIXPublicKey(p.public)
	if err != nil {
		panic("selftest: bug: an RSA key that can't be encoded: " + err.Error())
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(p.public)
	return map[string][]byte{
		"PKCS #1, DER": pkcs1, "PKIX, DER": pkix,
		"PKCS #1, PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		"PKIX, PEM":    pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}),
	}
}

// forgeries are tokens that nobody has to have a key for.
func (p *prober) forgeries() []attack {
	var all []attack
	try := func(name string, also []int, authorization ...string) {
		all = append(all, attack{name: name, also: also, tries: func(ctx context.Context) (reply, error) { return p.exchange(ctx, plain(), authorization...) }})
	}
	forged := func(name string, header, claims map[string]any, sign func([]byte) []byte) {
		try(name, nil, "Bearer "+p.forge(header, claims, sign))
	}
	for _, alg := range []string{"none", "None", "nOnE", ""} {
		forged("alg "+orEmpty(alg), map[string]any{"alg": alg, "kid": p.kid}, nil, unsigned)
	}
	keys := p.publicKeys()
	for _, form := range []string{"PKCS #1, DER", "PKCS #1, PEM", "PKIX, DER", "PKIX, PEM"} {
		forged("HS256 with the public key ("+form+")", map[string]any{"alg": "HS256", "kid": p.kid}, nil, byHMAC(keys[form]))
	}
	forged("wrong kid", map[string]any{"alg": "RS256", "kid": "selftest"}, nil, p.byStranger)
	forged("no kid", map[string]any{"alg": "RS256"}, nil, p.byStranger)
	forged("the issuer's kid, another key", map[string]any{"alg": "RS256", "kid": p.kid}, nil, p.byStranger)
	forged("no signature", map[string]any{"alg": "RS256", "kid": p.kid}, nil, unsigned)
	own := jose.JSONWebKey{Key: &p.stranger.PublicKey, KeyID: "selftest", Algorithm: "RS256", Use: "sig"}
	forged("key in the header", map[string]any{"alg": "RS256", "kid": "selftest", "jwk": own}, nil, p.byStranger)
	host := strings.TrimPrefix(p.Issuer, "https://")
	for _, issuer := range []string{p.Issuer + "/", p.Issuer + ".example.org", strings.ToUpper(p.Issuer), "http://" + host, "https://example.org/" + host, "https://" + host + "@example.org", ""} {
		if issuer == p.Issuer { // one that has plain HTTP itself
			continue
		}
		forged("issuer "+orEmpty(issuer), map[string]any{"alg": "RS256", "kid": p.kid}, map[string]any{"iss": issuer}, p.byStranger)
	}
	large := []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge}
	all = append(all, attack{name: "10 MB token", also: large, tries: func(ctx context.Context) (reply, error) {
		return p.large(ctx, "Bearer "+p.forge(map[string]any{"alg": "none"}, map[string]any{"padding": strings.Repeat("a", 10<<20)}, unsigned))
	}})
	try("Basic", nil, "Basic "+base64.StdEncoding.EncodeToString([]byte("x-access-token:x")))
	return all
}

func orEmpty(text string) string {
	if text == "" {
		return "(empty)"
	}
	return text
}

// large is the exchange with a header that the server need not read to its end: it may close the connection on whoever still writes, and has refused it then, if it
// answers the next request.
func (p *prober) large(ctx context.Context, authorization string) (reply, error) {
	rep, err := p.exchange(ctx, plain(), authorization)
	if err != nil && ctx.Err() == nil {
		return p.exchange(ctx, plain())
	}
	return rep, err
}

// misuses are what a job can do with tokens of its own.
func (p *prober) misuses() []attack {
	var all []attack
	try := func(name string, f func(ctx context.Context, token string) (reply, error), also ...int) {
		a := attack{name: name, also: also, tries: func(ctx context.Context) (reply, error) {
			token, err := p.identity(ctx, p.Audience)
			if err != nil {
				return reply{}, err
			}
			return f(ctx, token)
		}}
		if p.Identity == nil {
			a.skip = noIdentity
		}
		all = append(all, a)
	}
	try("replayed jti", func(ctx context.Context, token string) (reply, error) {
		if _, err := p.exchange(ctx, plain(), "Bearer "+token); err != nil {
			return reply{}, err
		}
		return p.exchange(ctx, plain(), "Bearer "+token)
	})
	try("two Authorization headers", func(ctx context.Context, token string) (reply, error) {
		return p.exchange(ctx, plain(), "Bearer "+token, "Bearer "+token)
	})
	try("a claim changed after signing", func(ctx context.Context, token string) (reply, error) {
		parts := strings.Split(token, ".")
		return p.exchange(ctx, plain(), "Bearer "+parts[0]+"."+encoded(p.claims())+"."+parts[2])
	})
	try("alg none on the job's claims", func(ctx context.Context, token string) (reply, error) {
		parts := strings.Split(token, ".")
		return p.exchange(ctx, plain(), "Bearer "+encoded(map[string]string{"alg": "none"})+"."+parts[1]+".")
	})
	try("another aud", func(ctx context.Context, _ string) (reply, error) {
		token, err := p.identity(ctx, "https://selftest.example.org")
		if err != nil {
			return reply{}, err
		}
		return p.exchange(ctx, plain(), "Bearer "+token)
	})
	try("path in the scope", func(ctx context.Context, token string) (reply, error) {
		return p.exchange(ctx, url.Values{"scope": {nowhere + "/../../user"}, "identity": {"../selftest"}}, "Bearer "+token)
	}, http.StatusBadRequest)
	try("two scopes", func(ctx context.Context, token string) (reply, error) {
		return p.exchange(ctx, url.Values{"scope": {nowhere, nowhere + "2"}, "identity": {"selftest"}}, "Bearer "+token)
	}, http.StatusBadRequest)
	return all
}
