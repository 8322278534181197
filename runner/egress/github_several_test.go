package egress

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// TestGitHubSeveral: of several tokens a request has the one for the repository in its path, whatever placeholder it shows; the refs and permissions are those
// of that one. A request that names no repository has the first, or the one whose placeholder it shows.
func TestGitHubSeveral(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", true, k.serve)
	of := func(name, holder, value string, scope *GitHub) Credential {
		return Credential{Name: name, Placeholder: holder, Value: fixed(value), Hosts: []policy.Host{mustHost(t, "a.example")}, Scheme: Bearer, GitHub: scope}
	}
	scope := func(id int64, name string) *GitHub {
		return &GitHub{Repositories: []GitHubRepository{{id, name}}, Scoped: true, PublicRead: true, Push: []string{"refs/heads/agent/*"}}
	}
	const shared, other = "ghs_placeholder0123456789", "ghs_anotherplaceholder012"
	read := scope(9, "globex/docs")
	read.ReadOnly, read.Push = true, nil
	s := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n", b.port,
		of("github (acme/shop)", shared, "ghs_shop", scope(7, "acme/shop")), of("github (acme/lib)", shared, "ghs_lib", scope(8, "acme/lib")), of("docs", other, "ghs_docs", read))
	agent := s.agent(true)
	for _, tt := range []struct{ method, path, body, shows, code, want string }{
		{"GET", "/repos/acme/shop/pulls", "", "", "", "ghs_shop"},
		{"GET", "/repos/acme/lib/pulls", "", "", "", "ghs_lib"},
		{"POST", "/repos/ACME/Lib/issues", "{}", shared, "", "ghs_lib"},
		{"GET", "/repositories/8/pulls", "", shared, "", "ghs_lib"},
		{"GET", "/repos/globex/docs/pulls", "", shared, "", "ghs_docs"},
		{"GET", "/repos/acme/shop/pulls", "", other, "", "ghs_shop"},
		{"POST", "/repos/globex/docs/issues", "{}", shared, "permission", ""},
		{"PATCH", "/repos/acme/lib/git/refs/heads/agent/x", "{}", "", "ref", ""},
		{"GET", "/repos/acme/public/pulls", "", "", "", ""},
		{"GET", "/repos/acme/public/pulls", "", shared, "", ""},
		{"POST", "/repos/acme/public/issues", "{}", "", "repository", ""},
		{"GET", "/user/repos", "", "", "", "ghs_shop"},
		{"GET", "/user/repos", "", other, "", "ghs_docs"},
		{"POST", "/graphql", `{"query":"mutation{addStar(input:{}){clientMutationId}}"}`, "", "", "ghs_shop"},
		{"POST", "/graphql", `{"query":"mutation{addStar(input:{}){clientMutationId}}"}`, other, "permission", ""},
		{"POST", "/graphql", `{"query":"mutation{updateRef(input:{}){clientMutationId}}"}`, "", "ref", ""},
		{"GET", "/repos/acme/shop/pulls", "", "ghs_theagentsown012345678", "credential", ""},
	} {
		before := len(k.all())
		var headers []string
		if tt.shows != "" {
			headers = []string{"Authorization: token " + tt.shows}
		}
		resp, body := send(t, agent, tt.method, fmt.Sprintf("https://a.example:%d%s", b.port, tt.path), tt.body, headers...)
		seen := k.all()[before:]
		switch want := "Bearer " + tt.want; {
		case tt.code != "":
			if resp.StatusCode != 403 || !strings.Contains(body, `"code":"`+tt.code+`"`) || len(seen) > 0 {
				t.Errorf("%s %s with %q: %d %s; the host saw %v, want %s", tt.method, tt.path, tt.shows, resp.StatusCode, body, seen, tt.code)
			}
		case len(seen) != 1 || seen[0].Get("Authorization") != strings.TrimSuffix(want, "Bearer "):
			t.Errorf("%s %s with %q: %d %s; the host saw %v, want %q", tt.method, tt.path, tt.shows, resp.StatusCode, body, seen, want)
		}
	}
	if _, body := send(t, agent, "POST", fmt.Sprintf("https://a.example:%d/repos/acme/public/issues", b.port), "{}"); !strings.Contains(body, "acme/shop, acme/lib, globex/docs") {
		t.Errorf("the refusal does not name the repositories: %s", body)
	}
	for _, u := range s.g.Usage() {
		if want := map[string]uint64{"github (acme/shop)": 4, "github (acme/lib)": 3, "docs": 2}[u.Credential]; u.Requests != want {
			t.Errorf("%s was used for %d requests, want %d", u.Credential, u.Requests, want)
		}
	}
}

// A placeholder is that of two credentials only where the path tells them apart.
func TestSharedPlaceholder(t *testing.T) {
	one := Credential{Name: "one", Placeholder: placeholder, Value: fixed("ghs_one"), Hosts: []policy.Host{mustHost(t, "a.example")}, Scheme: Bearer, GitHub: shopScope()}
	two := one
	two.Name = "two"
	if _, err := prepare([]Credential{one, two}); err != nil {
		t.Errorf("two of GitHub's: %v", err)
	}
	two.GitHub = nil
	if _, err := prepare([]Credential{one, two}); err == nil || !strings.Contains(err.Error(), "it has the placeholder of another") {
		t.Errorf("one of which has no repositories: %v", err)
	}
}
