package broker

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/broker/selftest"
	"github.com/org/agent-sandbox/runner/secret"
)

// probe runs the prober against the broker over the wire, with a job's identity or without.
func (w *world) probe(identity bool) []selftest.Result {
	w.t.Helper()
	server := httptest.NewServer(w.b)
	defer server.Close()
	address, err := url.Parse(server.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	client := limitedClient()
	client.Transport = &http.Transport{}
	cfg := selftest.Config{URL: address, Audience: audience, Issuer: w.oidc.URL, JWKS: w.oidc.JWKS(), Client: client}
	if identity {
		cfg.Identity = func(_ context.Context, aud string) (secret.Value, error) {
			return secret.New(w.oidc.Mint(w.claims(map[string]any{"aud": aud}))), nil
		}
	}
	results, err := selftest.Run(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	client.CloseIdleConnections()
	return results
}

// named are the results of this verdict.
func named(results []selftest.Result, v selftest.Verdict) []string {
	names := []string{}
	for _, r := range results {
		if r.Verdict == v {
			names = append(names, r.Name)
		}
	}
	return names
}

func TestSelftest(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.Limits.Address = 1000 })
	for _, identity := range []bool{false, true} {
		results := w.probe(identity)
		if !selftest.Passed(results) || len(named(results, selftest.OK)) < 25 {
			t.Errorf("identity %t: %+v", identity, results)
		}
		if skipped := len(named(results, selftest.Skipped)); (skipped == 7) != identity {
			t.Errorf("identity %t: %d skipped", identity, skipped)
		}
	}
	if got := len(w.gh.Live()); got != 0 {
		t.Errorf("%d tokens live, want none: the prober is read-only", got)
	}
}

// A broker with one check off is caught, by the attacks on that check and by no others.
func TestSelftestCatches(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.Limits.Address = 1000 })
	for name, tt := range map[string]struct {
		breaks func()
		want   []string
	}{
		"alg none": {
			func() { w.accepts(func(h header, _, _ string) bool { return strings.EqualFold(h.Alg, "none") }) },
			[]string{"alg none", "alg None", "alg nOnE", "alg none on the job's claims"},
		},
		"HMAC": {
			func() { w.accepts(w.hmacByPublicKey) },
			[]string{"HS256 with the public key (PKCS #1, DER)"},
		},
		"no kid": {
			func() { w.accepts(func(h header, _, _ string) bool { return h.Alg == "RS256" && h.Kid == "" }) },
			[]string{"no kid"},
		},
		"unknown kid": {
			func() {
				w.accepts(func(h header, _, _ string) bool { return h.Alg == "RS256" && h.Kid == "selftest" && h.JWK == nil })
			},
			[]string{"wrong kid"},
		},
		"key in the header": {
			func() { w.accepts(func(h header, _, _ string) bool { return h.JWK != nil }) },
			[]string{"key in the header"},
		},
		"empty signature": {
			func() {
				w.accepts(func(h header, _, signature string) bool { return h.Alg == "RS256" && signature == "" })
			},
			[]string{"no signature"},
		},
		"issuer by its beginning": {
			func() {
				w.accepts(func(h header, payload, signature string) bool {
					var c struct{ Iss string }
					return signature != "" && h.Kid != "" && json.Unmarshal([]byte(payload), &c) == nil && c.Iss != w.oidc.URL && strings.HasPrefix(c.Iss, w.oidc.URL)
				})
			},
			[]string{"issuer " + w.oidc.URL + "/", "issuer " + w.oidc.URL + ".example.org"},
		},
		"replay":      {func() { w.without("first use") }, []string{"replayed jti"}},
		"two headers": {func() { w.without("authorization") }, []string{"two Authorization headers"}},
		"audience":    {func() { w.without("audience") }, []string{"another aud"}},
		"refuses all": {func() {
			w.replace("size", func(context.Context, *attempt) error { return refuse(codeUnauthenticated, "no", "no") })
		}, []string{"a job's own token is verified"}},
		"scope unchecked": {func() {
			w.replace("scope", func(_ context.Context, a *attempt) error { a.scope, a.identity = "acme/none", "x"; return nil })
		}, []string{"path in the scope", "two scopes"}},
	} {
		w.b.checks = w.b.allChecks()
		tt.breaks()
		results := w.probe(true)
		got := named(results, selftest.Broken)
		slices.Sort(got)
		slices.Sort(tt.want)
		if diff := cmp.Diff(tt.want, got); diff != "" || selftest.Passed(results) {
			t.Errorf("%s: caught (-want +got):\n%s", name, diff)
		}
	}
	w.b.checks = w.b.allChecks()
	if err := w.b.store.db.Close(); err != nil {
		t.Fatal(err)
	}
	if results := w.probe(false); selftest.Passed(results) || !slices.Contains(named(results, selftest.Broken), "readyz") {
		t.Errorf("a broker that is not ready: %+v", results)
	}
}

type header struct {
	Alg, Kid string
	JWK      any
}

// accepts makes a broker that verifies as it should, but for tokens of this kind, which it takes for what they say.
func (w *world) accepts(kind func(h header, payload, signature string) bool) {
	w.t.Helper()
	loose := func(a *attempt) bool {
		parts := strings.Split(a.token, ".")
		var h header
		text, err := base64.RawURLEncoding.DecodeString(parts[0])
		return err == nil && len(parts) == 3 && json.Unmarshal(text, &h) == nil && kind(h, string(payloadOf(a.token)), parts[2])
	}
	for _, c := range w.b.allChecks() {
		switch c.name {
		case "algorithm", "issuer":
			w.replace(c.name, func(ctx context.Context, a *attempt) error {
				if loose(a) {
					return nil
				}
				return c.run(ctx, a)
			})
		case "signature":
			w.replace(c.name, func(ctx context.Context, a *attempt) error {
				if loose(a) {
					return a.readClaims(payloadOf(a.token))
				}
				return c.run(ctx, a)
			})
		}
	}
}

func (w *world) hmacByPublicKey(h header, payload, signature string) bool {
	_, key := w.oidc.Key()
	m := hmac.New(sha256.New, x509.MarshalPKCS1PublicKey(&key.PublicKey))
	text, err := json.Marshal(map[string]string{"alg": h.Alg, "kid": h.Kid}) // as the prober writes it
	if err != nil {
		return false
	}
	enc := base64.RawURLEncoding.EncodeToString
	m.Write([]byte(enc(text) + "." + enc([]byte(payload))))
	got, err := base64.RawURLEncoding.DecodeString(signature)
	return err == nil && h.Alg == "HS256" && bytes.Equal(got, m.Sum(nil))
}
