package runnertest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// oidcLife is how long a job's token is valid.
const oidcLife = 5 * time.Minute

// OIDC is an issuer of identity tokens as GitHub Actions has one: discovery, a JWKS, tokens signed by RS256, and the endpoint where
// a job gets its own. What it doesn't know it answers with 501.
type OIDC struct {
	URL string // the issuer, without a slash at the end

	t      testing.TB
	server *httptest.Server

	mu       sync.Mutex // guards the rest
	keys     []oidcKey  // the last one signs
	offset   time.Duration
	minted   int
	down     bool
	jobs     map[string]map[string]any // by the job's request token
	requests []Request
}

type oidcKey struct {
	id  string
	key *rsa.PrivateKey
}

// NewOIDC starts one for as long as the test lives.
func NewOIDC(t testing.TB) *OIDC {
	t.Helper()
	o := &OIDC{t: t, jobs: map[string]map[string]any{}}
	o.Rotate()
	o.server = httptest.NewServer(http.HandlerFunc(o.serve))
	o.URL = o.server.URL
	t.Cleanup(o.server.Close)
	return o
}

// JWKS is where the keys are.
func (o *OIDC) JWKS() string { return o.URL + "/.well-known/jwks" }

// Rotate makes a new key that signs from now on. The old ones stay known until [OIDC.Forget].
func (o *OIDC) Rotate() {
	o.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		o.t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keys = append(o.keys, oidcKey{keyID(key), key})
}

// keyID looks as GitHub's do, which are used as x5t as well: 20 bytes in base64url.
func keyID(key *rsa.PrivateKey) string {
	sum := sha256.Sum256(key.N.Bytes())
	return base64.RawURLEncoding.EncodeToString(sum[:20])
}

// Forget drops all keys but the last one.
func (o *OIDC) Forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keys = o.keys[len(o.keys)-1:]
}

// Key is the key that signs, with its id.
func (o *OIDC) Key() (id string, key *rsa.PrivateKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := o.keys[len(o.keys)-1]
	return k.id, k.key
}

// SetDown makes discovery and the JWKS answer 503, or serve again.
func (o *OIDC) SetDown(down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.down = down
}

// Advance moves the issuer's clock.
func (o *OIDC) Advance(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.offset += d
}

// Requests are those that came so far.
func (o *OIDC) Requests() []Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Request(nil), o.requests...)
}

// JobClaims are those of a job of this repository: a push to main of the workflow ci.yml, on a hosted runner.
func JobClaims(r *Repository) map[string]any {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	full := r.FullName()
	workflow := full + "/.github/workflows/ci.yml@refs/heads/main"
	sha := strings.Repeat("0123456789", 4)
	return map[string]any{
		"sub": "repo:" + full + ":ref:refs/heads/main", "actor": "octocat", "actor_id": "583231", "base_ref": "", "head_ref": "", "check_run_id": "777",
		"event_name": "push", "job_workflow_ref": workflow, "job_workflow_sha": sha, "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true",
		"repository": full, "repository_id": strconv.FormatInt(r.ID, 10), "repository_owner": r.Owner, "repository_owner_id": strconv.FormatInt(r.OwnerID, 10),
		"repository_visibility": "private", "run_id": "4242", "run_number": "7", "run_attempt": "1", "runner_environment": "github-hosted", "sha": sha,
		"workflow": "ci", "workflow_ref": workflow, "workflow_sha": sha,
	}
}

// Mint signs a token. iss, jti, iat, nbf and exp are filled in where the claims lack them; a claim that is nil is left out.
func (o *OIDC) Mint(claims map[string]any) string {
	id, key := o.Key()
	return o.Sign(map[string]any{"alg": "RS256", "typ": "JWT", "kid": id, "x5t": id}, o.Complete(claims), func(input []byte) []byte {
		sum := sha256.Sum256(input)
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			panic("runnertest: bug: RS256: " + err.Error())
		}
		return signature
	})
}

// Sign makes a JWT of any header and claims, as an attacker would.
func (o *OIDC) Sign(header, claims map[string]any, sign func(input []byte) []byte) string {
	input := part(header) + "." + part(claims)
	return input + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(input)))
}

// Complete is the claims with those filled in that every token has.
func (o *OIDC) Complete(claims map[string]any) map[string]any {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now().Add(o.offset)
	o.minted++
	all := map[string]any{
		"iss": o.URL, "jti": fmt.Sprintf("jti-%d-%s", o.minted, randomText(12)),
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Minute).Unix(), "exp": now.Add(oidcLife).Unix(),
	}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// Verify checks a token as those do who trust the issuer: algorithm, key, signature, issuer, audience and times.
func (o *OIDC) Verify(token, audience string) (claims map[string]any, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("malformed token")
	}
	var header struct{ Alg, Kid string }
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err = errors.Join(err, decodePart(parts[0], &header), decodePart(parts[1], &claims)); err != nil {
		return nil, err
	}
	o.mu.Lock()
	var key *rsa.PublicKey
	for _, k := range o.keys {
		if k.id == header.Kid {
			key = &k.key.PublicKey
		}
	}
	o.mu.Unlock()
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if header.Alg != "RS256" || key == nil || rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) != nil {
		return nil, errors.New("no known key successfully validated the token signature")
	}
	now := float64(o.now().Unix())
	exp, _ := claims["exp"].(float64)
	nbf, _ := claims["nbf"].(float64)
	switch {
	case claims["iss"] != o.URL:
		return nil, errors.New("invalid issuer (iss) claim")
	case claims["aud"] != audience:
		return nil, fmt.Errorf("aud claim %v does not match any bound audience", claims["aud"])
	case now >= exp || now < nbf:
		return nil, errors.New("token is expired, or not valid yet")
	}
	return claims, nil
}

func (o *OIDC) now() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Now().Add(o.offset).UTC()
}

func part(v map[string]any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("runnertest: bug: claims that are no JSON: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// ActionsServer gives a job with these claims: the values of ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN.
func (o *OIDC) ActionsServer(claims map[string]any) (requestURL, requestToken string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	token := "job." + randomText(30)
	o.jobs[token] = claims
	return o.URL + "/actions/idtoken?api-version=2.0", token
}

func (o *OIDC) serve(w http.ResponseWriter, r *http.Request) {
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	o.mu.Lock()
	o.requests = append(o.requests, Request{Method: r.Method, Path: r.URL.RequestURI(), Credential: bearer, Header: r.Header.Clone()})
	down := o.down
	o.mu.Unlock()
	switch path := r.URL.Path; {
	case r.Method != http.MethodGet:
		writeJSON(w, http.StatusMethodNotAllowed, map[string]any{"message": "method not allowed"})
	case path == "/actions/idtoken":
		o.serveJob(w, r, bearer)
	case down:
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"message": "down"})
	case path == "/.well-known/openid-configuration":
		writeJSON(w, http.StatusOK, map[string]any{
			"issuer": o.URL, "jwks_uri": o.JWKS(), "subject_types_supported": []string{"public", "pairwise"}, "response_types_supported": []string{"id_token"},
			"id_token_signing_alg_values_supported": []string{"RS256"}, "scopes_supported": []string{"openid"},
		})
	case path == "/.well-known/jwks":
		writeJSON(w, http.StatusOK, o.jwks())
	default:
		writeJSON(w, http.StatusNotImplemented, map[string]any{"message": "runnertest: this issuer has no " + path})
	}
}

func (o *OIDC) jwks() map[string]any {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := []any{}
	enc := base64.RawURLEncoding.EncodeToString
	for _, k := range o.keys {
		list = append(list, map[string]any{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": k.id, "x5t": k.id,
			"n": enc(k.key.N.Bytes()), "e": enc(big.NewInt(int64(k.key.E)).Bytes()),
		})
	}
	return map[string]any{"keys": list}
}

// serveJob is what the runner's ACTIONS_ID_TOKEN_REQUEST_URL answers.
func (o *OIDC) serveJob(w http.ResponseWriter, r *http.Request, bearer string) {
	o.mu.Lock()
	var claims map[string]any
	for token, c := range o.jobs {
		if subtle.ConstantTimeCompare([]byte(token), []byte(bearer)) == 1 {
			claims = maps.Clone(c)
		}
	}
	o.mu.Unlock()
	if claims == nil {
		writeJSON(w, http.StatusUnauthorized, map[string]any{"message": "The token is not valid"})
		return
	}
	if r.URL.Query().Get("api-version") != "2.0" {
		writeJSON(w, http.StatusBadRequest, map[string]any{"message": "the query of the request URL was lost"})
		return
	}
	audience := r.URL.Query().Get("audience")
	if audience == "" {
		audience = fmt.Sprintf("https://github.com/%v", claims["repository_owner"])
	}
	claims["aud"] = audience
	token := o.Mint(claims)
	writeJSON(w, http.StatusOK, map[string]any{"count": len(token), "value": token})
}
