package credential

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
)

func TestSplit(t *testing.T) {
	names := []string{"acme/shop", "globex/lib", "Acme/other", "ACME/shop"}
	for kind, want := range map[string][]piece{
		"env":         {{Credential: policy.Credential{Repositories: names}}},
		"github-app":  {{policy.Credential{Repositories: []string{"acme/shop", "Acme/other"}}, "acme"}, {policy.Credential{Repositories: []string{"globex/lib"}}, "globex"}},
		"github-oidc": {{policy.Credential{Repositories: names[:1]}, "acme/shop"}, {policy.Credential{Repositories: names[1:2]}, "globex/lib"}, {policy.Credential{Repositories: names[2:3]}, "Acme/other"}},
	} {
		from := policy.Origin{Kind: kind}
		for i := range want {
			want[i].From = from
		}
		got := split(policy.Credential{From: from, Repositories: names})
		if diff := cmp.Diff(got, want, cmp.AllowUnexported(piece{})); diff != "" {
			t.Errorf("%s (-got +want):\n%s", kind, diff)
		}
	}
	if got := split(policy.Credential{From: policy.Origin{Kind: "github-oidc"}, Repositories: names[:1]}); len(got) != 1 || got[0].part != "" {
		t.Errorf("one repository: %+v", got)
	}
}

const severalPolicy = `credentials:
  github: {from: "github-app:ID", key: "env:KEY", repositories: [acme/shop, acme/other, globex/lib], permissions: {contents: write}, push: ["refs/heads/agent/*"]}
`

// newSeveral is a world whose App is installed for the repositories of two owners.
func newSeveral(t *testing.T, text string) *world {
	t.Helper()
	return newWorldOf(t, text, func(w *world, _ *runnertest.Repository) {
		w.Install(w.app, "acme")
		w.Install(w.app, "globex", w.AddRepository("globex/lib"))
	})
}

// Repositories of two owners take two tokens, each of which is scoped, recorded, renewed and revoked by itself. Inside they are one.
func TestSeveralOwners(t *testing.T) {
	w := newSeveral(t, severalPolicy)
	set, err := Resolve(t.Context(), w.policy.Credentials, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	set.Announce()
	got := map[string][]string{}
	values := map[string]func() string{}
	for _, g := range set.Grants {
		if g.Name != "github" || g.Placeholder != set.Grants[0].Placeholder {
			t.Errorf("grant %q has the placeholder %q, want one for all", g.Label(), g.Placeholder)
		}
		got[g.Label()] = nil
		for _, r := range g.Repositories {
			got[g.Label()] = append(got[g.Label()], r.Name)
		}
		values[g.Label()] = func() string {
			v, err := g.Value(t.Context())
			if err != nil {
				t.Error(err)
			}
			return v.Reveal()
		}
	}
	if diff := cmp.Diff(got, map[string][]string{"github (acme)": {"acme/shop", "acme/other"}, "github (globex)": {"globex/lib"}}); diff != "" {
		t.Fatalf("grants (-got +want):\n%s", diff)
	}
	acme, globex := values["github (acme)"](), values["github (globex)"]()
	w.Advance(56 * time.Minute)
	if again := values["github (globex)"](); acme == globex || again == globex || len(w.Live()) != 3 {
		t.Errorf("the tokens are not two, or one was not renewed by itself: %d live", len(w.Live()))
	}
	if err := set.Close(t.Context()); err != nil || len(w.Live()) != 0 {
		t.Errorf("close: %v, %d live", err, len(w.Live()))
	}
	count := map[string]int{}
	for _, e := range w.events {
		switch e := e.(type) {
		case event.CredentialIssued:
			count["issued "+e.Name]++
			if len(e.Requested.Repositories) != len(e.Granted.Repositories) || e.TokenSHA256 == "" {
				t.Errorf("the record: %+v", e)
			}
		case event.CredentialRenewed:
			count["renewed "+e.Name]++
		case event.CredentialRevoked:
			count["revoked "+e.Name+" "+string(e.Status)]++
		}
	}
	want := map[string]int{
		"issued github (acme)": 1, "issued github (globex)": 1, "renewed github (globex)": 1, "revoked github (acme) verified": 1, "revoked github (globex) verified": 2,
	}
	if diff := cmp.Diff(count, want); diff != "" {
		t.Errorf("record (-got +want):\n%s", diff)
	}
}

// manyOwners are repositories of 21 owners.
func manyOwners() string {
	var names []string
	for i := range 21 {
		names = append(names, fmt.Sprintf("owner%d/lib", i))
	}
	return strings.Join(names, ", ")
}

// What can't work is refused, and what was issued until then is given back.
func TestSeveralRefused(t *testing.T) {
	for name, tt := range map[string]struct{ old, new, want string }{
		"delivered inside": {"push: [\"refs/heads/agent/*\"]", "deliver: env, env: TOKEN", "`deliver: env` has room for one token, and acme and globex take one each"},
		"too many":         {"globex/lib", manyOwners(), "it takes 22 tokens, and at most 20 are issued for a run"},
		"not installed":    {"globex/lib", "nowhere/lib", "nowhere: is the App installed for nowhere/lib?"},
		"one repository in two": {
			"\n", "\n  lib: {from: \"github-app:ID\", key: \"env:KEY\", repositories: [globex/lib], permissions: {contents: read}}\n",
			"the repository globex/lib is that of the credential github already",
		},
	} {
		w := newSeveral(t, strings.Replace(severalPolicy, tt.old, tt.new, 1))
		if _, err := Resolve(t.Context(), w.policy.Credentials, w.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if len(w.Live()) != 0 {
			t.Errorf("%s: %d tokens live", name, len(w.Live()))
		}
	}
}

// A second credential that GitHub issues goes to GitHub's hosts as well, with rights of its own. The variables are the first's.
func TestSecondCredential(t *testing.T) {
	w := newSeveral(t, strings.Replace(severalPolicy, ", globex/lib]", "]", 1)+
		"  lib: {from: \"github-app:ID\", key: \"env:KEY\", repositories: [globex/lib], permissions: {contents: read}}\n")
	set, err := Resolve(t.Context(), w.policy.Credentials, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := set.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	var got []string
	for _, g := range set.Grants {
		got = append(got, g.Label()+" "+g.Scheme+" "+g.Hosts[0].String()+" "+strings.Join(g.Env, ","))
	}
	want := []string{
		"github bearer api.github.com GH_TOKEN,GITHUB_TOKEN", "github basic github.com GH_TOKEN,GITHUB_TOKEN", "lib bearer api.github.com ", "lib basic github.com ",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("grants (-got +want):\n%s", diff)
	}
	hosts := 0
	expanded, problems := w.policy.Expand()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, rule := range expanded.Network.Allow {
		if strings.HasSuffix(rule.Host.String(), "github.com") {
			hosts++
		}
	}
	if hosts != 3 {
		t.Errorf("the credentials open %d rules for GitHub's hosts, want 3", hosts)
	}
}
