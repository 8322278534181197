package credential

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

const (
	testProvider = "projects/1/locations/global/workloadIdentityPools/p/providers/q"
	testAccount  = "agent@shop.iam.gserviceaccount.com"
	testRole     = "arn:aws:iam::123456789012:role/agent"
	vaultSecret  = "key-0123456789abcdefghij"
)

// inCloud is a job of acme/shop, or of another repository, that clouds know.
func inCloud(t *testing.T, text, repositoryID string) ([]policy.Credential, Config, *runnertest.Cloud, *[]event.Event) {
	t.Helper()
	oidc := runnertest.NewOIDC(t)
	cloud := runnertest.NewCloud(t, oidc, runnertest.CloudConfig{
		RepositoryID: "7", Role: "ci", RoleARN: testRole, Provider: testProvider, Account: testAccount,
		Secrets: map[string]map[string]any{"kv/data/ci/model": {"key": vaultSecret, "number": 7}},
	})
	p, cfg := load(t, text, nil)
	cfg.HTTP, cfg.Run = cloud.Client(), "20260301-abc"
	cfg.OIDC = func(_ context.Context, audience string) (secret.Value, error) {
		return secret.New(oidc.Mint(map[string]any{"aud": audience, "sub": "repo:acme/shop:ref:refs/heads/main", "repository_id": repositoryID})), nil
	}
	events := new([]event.Event)
	cfg.Emit = func(e event.Event) { *events = append(*events, e) }
	return p.Credentials, cfg, cloud, events
}

// TestIdentitySources: Vault, Google and AWS give the job what is its own, in the way that the policy wants it.
func TestIdentitySources(t *testing.T) {
	for name, tt := range map[string]struct {
		policy  string
		env     []string
		starts  []string // of what is inside
		value   string   // beginning of what is attached
		expires bool
	}{
		"vault":               {`m: {from: "vault:kv/data/ci/model#key", broker: "https://vault.example.com", identity: ci, host: m.example.com}`, nil, nil, vaultSecret, false},
		"vault, in a file":    {`m: {from: "vault:kv/data/ci/model#key", broker: "https://vault.example.com", identity: ci, deliver: file, env: KEY_FILE}`, []string{"KEY_FILE"}, []string{vaultSecret}, vaultSecret, false},
		"gcp":                 {`g: {from: "gcp:` + testProvider + `", identity: ` + testAccount + `, host: storage.googleapis.com}`, nil, nil, "ya29.c.", true},
		"gcp without account": {`g: {from: "gcp:` + testProvider + `", host: storage.googleapis.com}`, nil, nil, "ya29.d.", true},
		"gcp in a variable":   {`g: {from: "gcp:` + testProvider + `", deliver: env, env: TOKEN}`, []string{"TOKEN"}, []string{"ya29.d."}, "ya29.d.", true},
		"aws": {
			`a: {from: "aws:` + testRole + `", deliver: env}`,
			[]string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"},
			[]string{"ASIA", "", ""},
			"", true,
		},
		"aws, in a file": {`a: {from: "aws:` + testRole + `", deliver: file}`, []string{"AWS_SHARED_CREDENTIALS_FILE"}, []string{"[default]\naws_access_key_id = ASIA"}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			credentials, cfg, cloud, events := inCloud(t, "credentials:\n  "+tt.policy+"\n", "7")
			set, err := Resolve(t.Context(), credentials, cfg)
			if err != nil {
				t.Fatal(err)
			}
			g := set.Grants[0]
			v, err := g.Value(t.Context())
			if err != nil || !strings.HasPrefix(v.Reveal(), tt.value) || g.Expires.IsZero() == tt.expires {
				t.Errorf("%q until %v, %v", v.Reveal(), g.Expires, err)
			}
			if !slices.Equal(g.Env, tt.env) || len(g.Inside) != len(tt.starts) {
				t.Fatalf("inside are %v with %d values, want %v", g.Env, len(g.Inside), tt.env)
			}
			for i, start := range tt.starts {
				if got := g.Inside[i].Reveal(); !strings.HasPrefix(got, start) || got == "" {
					t.Errorf("value %d is %q, want %q", i, got, start)
				}
			}
			if (g.Placeholder == "") != (len(tt.starts) > 0) {
				t.Errorf("the placeholder is %q", g.Placeholder)
			}
			set.Announce()
			issued := (*events)[0].(event.CredentialIssued)
			if issued.Deliver != string(credentials[0].Deliver) || issued.TokenSHA256 != "" || (issued.Expires != nil) != tt.expires {
				t.Errorf("the record has %+v", issued)
			}
			if err := set.Close(t.Context()); err != nil || cloud.VaultTokens() != 0 {
				t.Errorf("%v; Vault has %d tokens", err, cloud.VaultTokens())
			}
		})
	}
}

// TestIdentityRefused: nobody gets what is another's, and the reason is the service's.
func TestIdentityRefused(t *testing.T) {
	for name, tt := range map[string]struct{ policy, repository, want string }{
		"another repository at Vault":  {`m: {from: "vault:kv/data/ci/model#key", broker: "https://vault.example.com", identity: ci, host: m.example.com}`, "8", `log in as ci: Vault at https://vault.example.com: status 400: error validating token: claim "repository_id"`},
		"another role":                 {`m: {from: "vault:kv/data/ci/model#key", broker: "https://vault.example.com", identity: admin, host: m.example.com}`, "7", `role "admin" could not be found`},
		"another secret":               {`m: {from: "vault:kv/data/other#key", broker: "https://vault.example.com", identity: ci, host: m.example.com}`, "7", "permission denied"},
		"another field":                {`m: {from: "vault:kv/data/ci/model#none", broker: "https://vault.example.com", identity: ci, host: m.example.com}`, "7", `no field "none"`},
		"a field that is a number":     {`m: {from: "vault:kv/data/ci/model#number", broker: "https://vault.example.com", identity: ci, host: m.example.com}`, "7", `is no text`},
		"a path of version 1":          {`m: {from: "vault:kv/ci/model#key", broker: "https://vault.example.com", identity: ci, host: m.example.com}`, "7", "no path of a secret"},
		"a path that leads up":         {`m: {from: "vault:kv/data/../../sys#key", broker: "https://vault.example.com", identity: ci, host: m.example.com}`, "7", "dots for one"},
		"another repository at Google": {`g: {from: "gcp:` + testProvider + `", host: storage.googleapis.com}`, "8", `exchange the identity: Google Cloud: status 400: claim "repository_id"`},
		"another account":              {`g: {from: "gcp:` + testProvider + `", identity: x@shop.iam.gserviceaccount.com, host: storage.googleapis.com}`, "7", "getAccessToken' denied"},
		"a provider that is none":      {`g: {from: "gcp:projects/1", host: storage.googleapis.com}`, "7", "no name of a provider"},
		"another repository at AWS":    {`a: {from: "aws:` + testRole + `", deliver: env}`, "8", "assume the role " + testRole + ": AWS' token service: status 400: InvalidIdentityToken"},
		"another role at AWS":          {`a: {from: "aws:arn:aws:iam::123456789012:role/admin", deliver: env}`, "7", "AccessDenied"},
		"a partition of nobody's":      {`a: {from: "aws:arn:aws-x:iam::123456789012:role/agent", deliver: env}`, "7", `partition "aws-x"`},
	} {
		t.Run(name, func(t *testing.T) {
			credentials, cfg, cloud, _ := inCloud(t, "credentials:\n  "+tt.policy+"\n", tt.repository)
			if _, err := Resolve(t.Context(), credentials, cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if cloud.VaultTokens() != 0 {
				t.Errorf("Vault has %d tokens", cloud.VaultTokens())
			}
		})
	}
}

// TestIdentityIsMissing: on a laptop nobody has one, and it is said what there is instead. A dry run asks nobody.
func TestIdentityIsMissing(t *testing.T) {
	for _, from := range []string{
		`{from: "vault:kv/data/ci/model#key", broker: "https://vault.example.com", identity: ci, host: m.example.com}`,
		`{from: "gcp:` + testProvider + `", host: storage.googleapis.com}`,
		`{from: "aws:` + testRole + `", deliver: file}`,
	} {
		credentials, cfg, cloud, _ := inCloud(t, "credentials:\n  x: "+from+"\n", "7")
		identity := cfg.OIDC
		cfg.OIDC = nil
		if _, err := Resolve(t.Context(), credentials, cfg); err == nil || !strings.Contains(err.Error(), "no identity") || !strings.Contains(err.Error(), "on a laptop use `e") {
			t.Errorf("%s: %v", from, err)
		}
		cfg.OIDC, cfg.Dry = identity, true
		if set, err := Resolve(t.Context(), credentials, cfg); err != nil || len(set.Grants) != 1 {
			t.Errorf("%s, dry: %v", from, err)
		}
		if n := len(cloud.Requests()); n != 0 {
			t.Errorf("%s: %d requests", from, n)
		}
	}
}

// TestIdentityRenewed: an access token is replaced before its end.
func TestIdentityRenewed(t *testing.T) {
	credentials, cfg, _, _ := inCloud(t, `credentials: {g: {from: "gcp:`+testProvider+`", identity: `+testAccount+`, host: storage.googleapis.com}}`, "7")
	now := time.Now()
	cfg.Now = func() time.Time { return now }
	set, err := Resolve(t.Context(), credentials, cfg)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 3 {
		v, err := set.Grants[0].Value(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[v.Reveal()] = true
		now = now.Add(57 * time.Minute)
	}
	if len(seen) < 2 {
		t.Errorf("%d tokens", len(slices.Collect(maps.Keys(seen))))
	}
}

// TestDeliverGiven: what exists is delivered as it is; what no variable takes, and what the policy sets itself, is refused.
func TestDeliverGiven(t *testing.T) {
	p, cfg := load(t, "credentials:\n  a: {from: 'env:A', deliver: env, env: INSIDE}\n  b: {from: 'env:B', deliver: file}\n", map[string]string{"A": "short", "B": "two\nlines"})
	set, err := Resolve(t.Context(), p.Credentials, cfg)
	if err != nil {
		t.Fatal(err)
	}
	a, b := set.Grants[0], set.Grants[1]
	if a.Inside[0].Reveal() != "short" || a.Env[0] != "INSIDE" || len(a.Hosts) != 0 || b.Inside[0].Reveal() != "two\nlines" || len(b.Env) != 0 {
		t.Errorf("%+v, %+v", a, b)
	}
	for text, want := range map[string]string{
		"credentials:\n  a: {from: 'env:NUL', deliver: env, env: INSIDE}\n":                                       "NUL",
		"credentials:\n  a: {from: 'env:A', deliver: env, env: INSIDE}\nenv: [INSIDE=x]\n":                        "INSIDE",
		"credentials:\n  github: {from: 'env:PAT', deliver: env, env: GH_TOKEN}\n":                                "ghp_",
		"credentials:\n  a: {from: 'env:A', deliver: env, env: X}\n  b: {from: 'env:B', deliver: file, env: X}\n": "the variable X",
	} {
		p, cfg := load(t, text, map[string]string{"A": "short", "B": "b", "NUL": "a\x00b", "PAT": "ghp_0123456789abcdefghijABCDEFGHIJ456789"})
		if _, err := Resolve(t.Context(), p.Credentials, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s%v, want %q", text, err, want)
		}
	}
}
