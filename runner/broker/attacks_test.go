package broker

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// attack is an entry of the list of attacks on a broker. It runs between two positive controls, and once more on a broker without the checks
// that stop it, where it has to succeed: or the test would pass for another reason.
type attack struct {
	name string
	// checks are those that stop it.
	checks []string
	// try makes the request.
	try func(w *world) (status int, answer map[string]any)
	// want is the status; success tells whether the attacker has what he was after, a token if nil.
	want    int
	success func(answer map[string]any) bool
}

func token(claims map[string]any) func(*world) (int, map[string]any) {
	return func(w *world) (int, map[string]any) { return w.ask(http.MethodGet, good, w.mint(claims)) }
}

// forged is a token with another header, which the issuer did not sign.
func forged(alg string, header map[string]any, sign func(w *world, input []byte) []byte) func(*world) (int, map[string]any) {
	return func(w *world) (int, map[string]any) {
		id, _ := w.oidc.Key()
		h := map[string]any{"alg": alg, "kid": id}
		for k, v := range header {
			h[k] = v
		}
		return w.ask(http.MethodGet, good, "Bearer "+w.oidc.Sign(h, w.oidc.Complete(w.claims(nil)), func(in []byte) []byte { return sign(w, in) }))
	}
}

func nothing(*world, []byte) []byte { return nil }

// byStranger signs well, by a key that is not the issuer's.
func byStranger(w *world, input []byte) []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(input)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		w.t.Fatal(err)
	}
	return signature
}

func byPublicKey(w *world, input []byte) []byte {
	_, key := w.oidc.Key()
	m := hmac.New(sha256.New, x509.MarshalPKCS1PublicKey(&key.PublicKey))
	m.Write(input)
	return m.Sum(nil)
}

func twice(w *world, first, second string) (int, map[string]any) {
	return w.ask(http.MethodGet, good, first, second)
}

func attacks() []attack {
	now := time.Now()
	hour := func(d time.Duration) int64 { return now.Add(d * time.Hour).Unix() }
	return []attack{
		{name: "alg none", checks: []string{"signature"}, want: 401, try: forged("none", nil, nothing)},
		{name: "HS256 with the public key", checks: []string{"signature"}, want: 401, try: forged("HS256", nil, byPublicKey)},
		{name: "wrong kid", checks: []string{"signature"}, want: 401, try: forged("RS256", map[string]any{"kid": "x"}, byStranger)},
		{name: "the right kid, another key", checks: []string{"signature"}, want: 401, try: forged("RS256", nil, byStranger)},
		{name: "two Authorization headers", checks: []string{"authorization"}, want: 401, try: func(w *world) (int, map[string]any) {
			return twice(w, w.mint(nil), w.mint(nil))
		}},
		{name: "aud as a list", checks: []string{"audience"}, want: 401, try: token(map[string]any{"aud": []string{audience}})},
		{name: "another aud", checks: []string{"audience"}, want: 401, try: token(map[string]any{"aud": "sts.amazonaws.com"})},
		{name: "expired", checks: []string{"expiry"}, want: 401, try: token(map[string]any{"exp": now.Add(-time.Second).Unix()})},
		{name: "no exp", checks: []string{"expiry"}, want: 401, try: token(map[string]any{"exp": nil})},
		{name: "future iat", checks: []string{"age"}, want: 401, try: token(map[string]any{"iat": hour(1)})},
		{name: "old iat", checks: []string{"age"}, want: 401, try: token(map[string]any{"iat": hour(-1), "exp": hour(1)})},
		{name: "not valid yet", checks: []string{"age"}, want: 401, try: token(map[string]any{"nbf": hour(1)})},
		{name: "replayed jti", checks: []string{"first use"}, want: 401, try: func(w *world) (int, map[string]any) {
			auth := w.mint(nil)
			w.ask(http.MethodGet, good, auth)
			return w.ask(http.MethodGet, good, auth)
		}},
		{name: "no jti", checks: []string{"claims"}, want: 401, try: token(map[string]any{"jti": nil})},
		{name: "foreign issuer that looks like ours", checks: []string{"issuer", "job"}, want: 401, try: func(w *world) (int, map[string]any) {
			return w.ask(http.MethodGet, good, "Bearer "+runnertest.NewOIDC(w.t).Mint(w.claims(nil)))
		}},
		{name: "our issuer with a slash", checks: []string{"signature", "job"}, want: 401, try: func(w *world) (int, map[string]any) {
			return w.ask(http.MethodGet, good, w.mint(map[string]any{"iss": w.oidc.URL + "/"}))
		}},
		{name: "renamed repository with the same name", checks: []string{"repository"}, want: 403, try: func(w *world) (int, map[string]any) {
			old := w.mint(nil)
			w.repo.Rename("acme/renamed-" + strings.ToLower(randomID()))
			w.repo = w.gh.AddRepository("acme/shop")
			w.trust(trustFile, "")
			return w.ask(http.MethodGet, good, old)
		}},
		{name: "fork", checks: []string{"repository"}, want: 403, try: token(map[string]any{"repository_id": "1"})},
		{name: "another owner of the same id", checks: []string{"repository"}, want: 403, try: token(map[string]any{"repository_owner_id": "1"})},
		{name: "pull_request_target", checks: []string{"event"}, want: 403, try: token(map[string]any{"event_name": "pull_request_target"})},
		{name: "another subject", checks: []string{"job"}, want: 403, try: token(map[string]any{"sub": "x-repo:acme/shop:ref:refs/heads/main"})},
		{name: "10 MB token", checks: []string{"size"}, want: 401, try: token(map[string]any{"padding": strings.Repeat("a", 10<<20)})},
		{name: "permissions beyond the ceiling", checks: []string{"permissions"}, want: 200, try: token(nil), success: func(v map[string]any) bool {
			granted, _ := v["permissions"].(map[string]any)
			return granted["administration"] != nil || granted["pull_requests"] != "read"
		}},
		{name: "permissions of which the ceiling leaves none", checks: []string{"permissions"}, want: 403, try: permissions("{administration: write}")},
		// Left out, or empty, either list means all to GitHub.
		{name: "empty permissions", checks: []string{"trust policy", "permissions", "answer"}, want: 403, try: permissions("{}"), success: func(v map[string]any) bool {
			granted, _ := v["permissions"].(map[string]any)
			return granted["administration"] != nil
		}},
		{name: "empty repositories", checks: []string{"permissions", "answer"}, want: 500, try: func(w *world) (int, map[string]any) {
			defer w.losesRepository()()
			return w.ask(http.MethodGet, good, w.mint(nil))
		}},
		{name: "JWKS down", checks: []string{"signature"}, want: 500, try: func(w *world) (int, map[string]any) {
			w.oidc.Rotate() // a key that is not known yet
			w.oidc.SetDown(true)
			defer w.oidc.SetDown(false)
			for _, k := range w.b.keys {
				k.tried = time.Time{}
				defer func() { k.tried = time.Time{} }()
			}
			return w.ask(http.MethodGet, good, w.mint(nil))
		}},
		// What GitHub issued then nobody knows. The job's token must not fetch a second one.
		{name: "GitHub down between mint and answer", checks: []string{"first use"}, want: 401, try: func(w *world) (int, map[string]any) {
			auth := w.mint(nil)
			end := w.gh.Inject(runnertest.Fault{Method: http.MethodPost, Path: "/app/installations/", Skip: 1, Drop: true})
			if status, v := w.ask(http.MethodGet, good, auth); status != 500 || v["token"] != nil {
				w.t.Errorf("GitHub gone between mint and answer: %d %v, want 500", status, v)
			}
			end()
			return w.ask(http.MethodGet, good, auth)
		}},
	}
}

// permissions are those of the trust policy for one request.
func permissions(text string) func(*world) (int, map[string]any) {
	return func(w *world) (int, map[string]any) {
		w.repo.WriteFile(trustFile, "issuer: "+w.oidc.URL+"\nsubject_pattern: .*\npermissions: "+text+"\n")
		defer w.trust(trustFile, "")
		return w.ask(http.MethodGet, good, w.mint(nil))
	}
}

// losesRepository breaks the broker so that it does not know in the end which repository the token is for.
func (w *world) losesRepository() (mend func()) {
	i := slices.IndexFunc(w.b.checks, func(c check) bool { return c.name == "trust policy" })
	run := w.b.checks[i].run
	w.b.checks[i].run = func(ctx context.Context, a *attempt) error {
		err := run(ctx, a)
		a.ids = []int64{}
		return err
	}
	return func() { w.b.checks[i].run = run }
}

func hasToken(answer map[string]any) bool { return answer["token"] != nil }

func TestAttacks(t *testing.T) {
	w := newWorld(t)
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			w.t = t
			if a.success == nil {
				a.success = hasToken
			}
			w.control()
			if status, v := a.try(w); status != a.want || a.success(v) {
				t.Errorf("%d %v, want %d", status, v, a.want)
			}
			w.control()
			w.without(a.checks...)
			if status, v := a.try(w); !a.success(v) {
				t.Errorf("without the checks %q: %d %v, want success: something else stops it, and the test proves nothing", a.checks, status, v)
			}
			w.b.checks, w.b.wider = w.b.allChecks(), wider
		})
	}
}

// No request that GitHub has seen in all of that leaves a list out, or has an empty one, and a refusal leaves no token.
func TestAttackEmptyRepositoriesOrPermissions(t *testing.T) {
	w := newWorld(t)
	w.control()
	for name, permissions := range map[string]string{"none": "{}", "none under the ceiling": "{administration: write}"} {
		w.repo.WriteFile(trustFile, "issuer: "+w.oidc.URL+"\nsubject_pattern: .*\npermissions: "+permissions+"\n")
		before := len(w.gh.Live())
		if status, v := w.ask(http.MethodGet, good, w.mint(nil)); status != 403 || len(w.gh.Live()) != before {
			t.Errorf("%s: %d %v and %d tokens live, want 403 and %d", name, status, v, len(w.gh.Live()), before)
		}
	}
	w.trust(trustFile, "")
	w.control()
	for _, r := range w.gh.Requests() {
		if !strings.HasSuffix(r.Path, "/access_tokens") {
			continue
		}
		for _, empty := range []string{`"repository_ids":[]`, `"repositories":[]`, `"permissions":{}`} {
			if strings.Contains(r.Body, empty) || !strings.Contains(r.Body, `"repositor`) || !strings.Contains(r.Body, `"permissions"`) {
				t.Errorf("GitHub was asked for %s", r.Body)
			}
		}
	}
}

// A 10 MB header does not get as far as the checks over the wire.
func TestAttackLargeHeaderOverTheWire(t *testing.T) {
	w := newWorld(t)
	address, stop := w.serve(w.b)
	defer stop()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/sts/exchange?"+good, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.Repeat("a", 10<<20))
	res, err := http.DefaultClient.Do(req)
	if err == nil { // or the connection was closed while the client still wrote
		_ = res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d, want 431", res.StatusCode)
		}
	}
	w.control()
}

// payloadOf decodes the middle of a token, as a broker does that forgets to verify.
func payloadOf(token string) []byte {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	return bytes.Clone(payload)
}
