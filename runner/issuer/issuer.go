// Package issuer is a small OIDC issuer for one machine, for trying on it what a job on GitHub does with its identity: act has none
// (https://docs.github.com/en/actions/concepts/security/openid-connect). It answers like the endpoint that ACTIONS_ID_TOKEN_REQUEST_URL
// names, with tokens of an issuer of its own and a key that ends with the process. It can't make a token of GitHub's, and nobody
// accepts its tokens who was not told to.
package issuer

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Lifetime is how long a token can be used; GitHub's live as long.
const Lifetime = 5 * time.Minute

// tokenPath is where tokens are asked for, with the query parameter audience.
const tokenPath = "/token"

// Config describes an issuer.
type Config struct {
	URL    string            // of the issuer, which is in each token as "iss"; required, without a slash at the end
	Claims map[string]string // what a token says besides the standard claims, such as repository and ref; needs a "sub"
	Now    func() time.Time  // nil: the system's clock
}

// Issuer answers requests for tokens and for the keys that verify them.
type Issuer struct {
	cfg    Config
	bearer string
	signer jose.Signer
	mux    *http.ServeMux
}

// keyBits: RS256 with 2048 bits is what GitHub has.
const keyBits = 2048

// reserved are the claims that each token gets anew.
func reserved() []string { return []string{"iss", "aud", "iat", "nbf", "exp", "jti"} }

// New makes an issuer with a key of its own.
func New(cfg Config) (*Issuer, error) {
	if cfg.URL == "" || strings.HasSuffix(cfg.URL, "/") {
		return nil, fmt.Errorf("the issuer's address is %q", cfg.URL)
	}
	if cfg.Claims["sub"] == "" {
		return nil, errors.New(`there is no claim "sub"`)
	}
	for _, name := range reserved() {
		if _, ok := cfg.Claims[name]; ok {
			return nil, fmt.Errorf("the claim %q is the issuer's to set", name)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	public := jose.JSONWebKey{Key: key.Public(), KeyID: rand.Text(), Algorithm: string(jose.RS256), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: public.KeyID}}, nil)
	if err != nil {
		return nil, err
	}
	i := &Issuer{cfg: cfg, bearer: rand.Text(), signer: signer, mux: http.NewServeMux()}
	jwks := cfg.URL + "/.well-known/jwks"
	i.mux.HandleFunc("GET /.well-known/openid-configuration", answer(map[string]any{
		"issuer": cfg.URL, "jwks_uri": jwks, "subject_types_supported": []string{"public"}, "response_types_supported": []string{"id_token"},
		"id_token_signing_alg_values_supported": []string{"RS256"}, "scopes_supported": []string{"openid"},
	}))
	i.mux.HandleFunc("GET /.well-known/jwks", answer(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public}}))
	i.mux.HandleFunc("GET "+tokenPath, i.token)
	return i, nil
}

// ServeHTTP implements http.Handler.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.mux.ServeHTTP(w, r) }

// Environ are the variables by which a job finds the endpoint, as NAME=VALUE.
func (i *Issuer) Environ() []string {
	return []string{
		"ACTIONS_ID_TOKEN_REQUEST_URL=" + i.cfg.URL + tokenPath + "?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + i.bearer,
	}
}

// maxAudience bounds an audience in bytes.
const maxAudience = 1024

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	sent := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if subtle.ConstantTimeCompare([]byte(sent), []byte(i.bearer)) != 1 {
		http.Error(w, "the request needs the Bearer token that was printed when the issuer started", http.StatusUnauthorized)
		return
	}
	audience := r.URL.Query().Get("audience")
	if audience == "" {
		audience = i.cfg.URL
	}
	if len(audience) > maxAudience {
		http.Error(w, "the audience is too long", http.StatusBadRequest)
		return
	}
	token, err := i.mint(audience)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(map[string]string{"value": token})(w, r)
}

func (i *Issuer) mint(audience string) (string, error) {
	now := i.cfg.Now()
	claims := map[string]any{}
	for name, value := range maps.All(i.cfg.Claims) {
		claims[name] = value
	}
	return jwt.Signed(i.signer).Claims(claims).Claims(jwt.Claims{
		Issuer: i.cfg.URL, Audience: jwt.Audience{audience}, ID: rand.Text(), Subject: i.cfg.Claims["sub"],
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(Lifetime)),
	}).Serialize()
}

func answer(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(v) // who went away needs no answer
	}
}
