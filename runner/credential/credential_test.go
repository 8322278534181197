package credential

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

const (
	modelKey = "sk-ant-api03-0123456789abcdefghijABCDEFGHIJ-AA"
	appToken = "ghs_0123456789abcdefghijABCDEFGHIJ456789"
	pat      = "ghp_0123456789abcdefghijABCDEFGHIJ456789"
)

// load is a policy with these credentials and the configuration to resolve them with.
func load(t *testing.T, body string, env map[string]string) (*policy.Policy, Config) {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte("version: 1\n"+body))
	if err != nil {
		t.Fatal(err)
	}
	return p, Config{Env: p.Env, LookupEnv: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}
}

func TestResolve(t *testing.T) {
	env := map[string]string{"ANTHROPIC_API_KEY": modelKey, "GH": appToken, "INDEX": "0123456789abcdefghij"}
	for name, tt := range map[string]struct{ credential, want string }{
		"a known service": {
			"anthropic: {from: 'env:ANTHROPIC_API_KEY'}",
			"anthropic [ANTHROPIC_API_KEY] [api.anthropic.com] x-api-key raw  []",
		},
		"a service with two ways": {
			"github: {from: 'env:GH'}",
			"github [GH_TOKEN GITHUB_TOKEN] [api.github.com uploads.github.com] Authorization bearer  []\n" +
				"github [GH_TOKEN GITHUB_TOKEN] [github.com] Authorization basic x-access-token []",
		},
		"an unknown one": {
			"index: {from: 'env:INDEX', host: pypi.example.org, scheme: basic, username: ci, rules: ['GET /simple/**']}",
			"index [INDEX] [pypi.example.org] Authorization basic ci [GET /simple/**]",
		},
		"an unknown one that says nothing": {
			"index: {from: 'env:INDEX', host: [a.example.org, '*.b.example.org']}",
			"index [INDEX] [a.example.org *.b.example.org] Authorization bearer  []",
		},
		"a header of its own": {
			"index: {from: 'env:INDEX', host: a.example.org, header: X-Token, env: TOKEN}",
			"index [TOKEN] [a.example.org] X-Token raw  []",
		},
		"a known service behind a gateway": {
			"anthropic: {from: 'env:ANTHROPIC_API_KEY', host: models.example.org}",
			"anthropic [ANTHROPIC_API_KEY] [models.example.org] x-api-key raw  []",
		},
		"a known service by another header": {
			"anthropic: {from: 'env:ANTHROPIC_API_KEY', header: Authorization}",
			"anthropic [ANTHROPIC_API_KEY] [api.anthropic.com] Authorization bearer  []",
		},
	} {
		p, cfg := load(t, "credentials:\n  "+tt.credential+"\n", env)
		set, err := Resolve(t.Context(), p.Credentials, cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		grants := set.Grants
		for _, g := range grants {
			got = append(got, fmt.Sprint(g.Name, " ", g.Env, " ", g.Hosts, " ", g.Header, " ", g.Scheme, " ", g.Username, " ", g.Rules))
			v, err := g.Value(t.Context())
			if want := env[p.Credentials[0].From.Argument]; err != nil || v.Reveal() != want {
				t.Errorf("%s: the value is not the variable's (%v)", name, err)
			}
			if g.Placeholder != grants[0].Placeholder || g.Placeholder == v.Reveal() || g.Broad != "" {
				t.Errorf("%s: the grant is %+v", name, g)
			}
		}
		if diff := cmp.Diff(strings.Join(got, "\n"), tt.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
		if text := fmt.Sprintf("%+v %#v", grants, grants); strings.Contains(text, "0123456789abcdefghij") {
			t.Errorf("%s: the grants print the secret: %s", name, text)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	env := map[string]string{
		"KEY": modelKey, "ALIAS": "x" + modelKey, "EMPTY": "", "SHORT": "short", "PAT": pat, "FINE": "github_pat_0123456789abcdefghij",
		"OTHER": "0123456789abcdefghij",
	}
	for name, tt := range map[string]struct{ body, want string }{
		"an unset variable": {"credentials:\n  anthropic: {from: 'env:ABSENT'}", "policy.yaml:3:3: credentials.anthropic: the variable ABSENT is not set (set it"},
		"an empty variable": {"credentials:\n  anthropic: {from: 'env:EMPTY'}", "the variable EMPTY is empty (give it the secret"},
		"no host":           {"credentials:\n  mine: {from: 'env:KEY'}", "nobody knows which host it is for (add `host:`, or call it anthropic, "},
		"too short":         {"credentials:\n  anthropic: {from: 'env:SHORT'}", "too short"},
		"a personal token":  {"credentials:\n  github: {from: 'env:PAT'}", "a token that starts with ghp_ is refused: it reaches every repository of its owner (use a token for this project alone"},
		"a fine-grained one": {
			"credentials:\n  github: {from: 'env:FINE'}", "a token that starts with github_pat_ is refused",
		},
		"another source": {"credentials:\n  anthropic: {from: 'vault:secret/x#key', broker: 'https://vault.example.com', identity: ci}", "no path of a secret of the key-value engine"},
		"the variable itself": {
			"env: [KEY]\ncredentials:\n  anthropic: {from: 'env:KEY'}", "the variable KEY would take the secret itself inside (remove it from `env`)",
		},
		"the secret by another name": {
			"env: [ALIAS]\ncredentials:\n  anthropic: {from: 'env:KEY'}", "the variable ALIAS would take the secret itself inside",
		},
		"the secret in the file": {
			"env: ['A=" + modelKey + "']\ncredentials:\n  anthropic: {from: 'env:KEY'}", "the variable A would take the secret itself inside",
		},
		"the placeholder's variable": {
			"env: ['ANTHROPIC_API_KEY=x']\ncredentials:\n  anthropic: {from: 'env:KEY'}", "the variable ANTHROPIC_API_KEY is to have the placeholder, and `env` sets it as well",
		},
		"a variable for two": {
			"credentials:\n  a: {from: 'env:KEY', host: a.example.org, env: X}\n  b: {from: 'env:OTHER', host: b.example.org, env: X}",
			"credentials.b: the variable X is that of the credential a already",
		},
		"a host for two": {
			"credentials:\n  a: {from: 'env:KEY', host: a.example.org}\n  b: {from: 'env:OTHER', host: a.example.org}",
			"credentials.b: the credential a is for every request to a.example.org already",
		},
	} {
		p, cfg := load(t, tt.body+"\n", env)
		set, err := Resolve(t.Context(), p.Credentials, cfg)
		var problems policy.Problems
		if !errors.As(err, &problems) || set != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %q", name, set, err, tt.want)
		}
		if err != nil && slices.ContainsFunc([]string{modelKey, pat, env["OTHER"]}, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}

// TestResolveReportsAll: every credential that is wrong is named at once.
func TestResolveReportsAll(t *testing.T) {
	p, cfg := load(t, "credentials:\n  anthropic: {from: 'env:A'}\n  openai: {from: 'env:B'}\n", nil)
	_, err := Resolve(t.Context(), p.Credentials, cfg)
	var problems policy.Problems
	if !errors.As(err, &problems) || len(problems) != 2 {
		t.Errorf("the error is %v", err)
	}
}

// TestResolveBroad: a reason lets such a token through, and is on record; in CI nothing does.
func TestResolveBroad(t *testing.T) {
	body := "credentials:\n  github: {from: 'env:PAT', allow-broad: a fork that has no app}\n"
	p, cfg := load(t, body, map[string]string{"PAT": pat})
	set, err := Resolve(t.Context(), p.Credentials, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ghp_", everyRepository, "a fork that has no app"} {
		if !strings.Contains(set.Grants[0].Broad, want) {
			t.Errorf("the record has no %q: %s", want, set.Grants[0].Broad)
		}
	}
	cfg.CI = true
	if _, err := Resolve(t.Context(), p.Credentials, cfg); err == nil || !strings.Contains(err.Error(), "refused in CI") {
		t.Errorf("in CI: %v", err)
	}
}

// TestResolveNothing: without credentials nothing is looked up.
func TestResolveNothing(t *testing.T) {
	set, err := Resolve(t.Context(), nil, Config{LookupEnv: func(name string) (string, bool) {
		t.Errorf("%s is looked up", name)
		return "", false
	}})
	if err != nil || len(set.Grants) > 0 {
		t.Errorf("%v, %v", set, err)
	}
}
