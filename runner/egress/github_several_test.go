package egress

import (
	"encoding/base64"
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

// TestGitSeveral: on a git host too the path chooses, and a push is held to the refs of the repository that it is for.
func TestGitSeveral(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", true, k.serve)
	of := func(name, value string, push ...string) Credential {
		return Credential{
			Name: "github (" + name + ")", Placeholder: placeholder, Value: fixed(value), Hosts: []policy.Host{mustHost(t, "a.example")}, Scheme: Basic, Username: "x-access-token",
			GitHub: &GitHub{Repositories: []GitHubRepository{{Name: name}}, Scoped: true, Push: push},
		}
	}
	s := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n", b.port,
		of("acme/shop", "ghs_shop", "refs/heads/main"), of("acme/lib", "ghs_lib", "refs/heads/agent/*"))
	push := func(ref string) string {
		id := strings.Repeat("0", 40)
		return string(packet(id+" "+id+" "+ref+"\x00 report-status\n")) + "0000"
	}
	for _, tt := range []struct{ method, path, body, code, want string }{
		{"GET", "/acme/lib.git/info/refs?service=git-upload-pack", "", "", "ghs_lib"},
		{"GET", "/acme/shop/info/refs?service=git-receive-pack", "", "", "ghs_shop"},
		{"POST", "/acme/lib.git/git-receive-pack", push("refs/heads/agent/x"), "", "ghs_lib"},
		{"POST", "/acme/shop.git/git-receive-pack", push("refs/heads/main"), "", "ghs_shop"},
		{"POST", "/acme/lib.git/git-receive-pack", push("refs/heads/main"), "ng refs/heads/main refused by the sandbox", ""},
		{"GET", "/acme/other.git/info/refs?service=git-upload-pack", "", "acme/shop, acme/lib", ""},
	} {
		before := len(k.all())
		_, body := send(t, s.agent(true), tt.method, fmt.Sprintf("https://a.example:%d%s", b.port, tt.path), tt.body)
		seen := k.all()[before:]
		switch want := "Basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+tt.want)); {
		case tt.code != "":
			if !strings.Contains(body, tt.code) || len(seen) > 0 {
				t.Errorf("%s %s: %q; the host saw %v, want %s", tt.method, tt.path, body, seen, tt.code)
			}
		case len(seen) != 1 || seen[0].Get("Authorization") != want:
			t.Errorf("%s %s: %q; the host saw %v, want the token %s", tt.method, tt.path, body, seen, tt.want)
		}
	}
}
