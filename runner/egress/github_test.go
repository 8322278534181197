package egress

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

func shopScope(push ...string) *GitHub {
	return &GitHub{Repositories: []GitHubRepository{{7, "acme/shop"}}, Push: push}
}

// TestGitHubScope: what is for another repository, or changes refs in another way than by a push, gets no credential.
func TestGitHubScope(t *testing.T) {
	scoped := shopScope("refs/heads/agent/*")
	scoped.Scoped = true
	reader := &GitHub{Repositories: scoped.Repositories, Scoped: true, ReadOnly: true}
	for _, tt := range []struct {
		scope        *GitHub
		git          bool
		method, path string
		want         policy.Code // "": allowed
	}{
		{scoped, false, "GET", "/repos/acme/shop", ""},
		{scoped, false, "GET", "/repos/ACME/Shop/pulls/1", ""},
		{scoped, false, "POST", "/repos/acme/shop/pulls", ""},
		{scoped, false, "GET", "/api/v3/repos/acme/shop", ""},
		{scoped, false, "POST", "/api/uploads/repos/acme/shop/releases/1/assets", ""},
		{scoped, false, "GET", "/repositories/7/pulls", ""},
		{scoped, false, "GET", "/repositories/8", CodeRepository},
		{scoped, false, "GET", "/repositories/07x", CodeRepository},
		{scoped, false, "GET", "/repos/acme/other", CodeRepository},
		{scoped, false, "GET", "/repos/acme/shop.git", CodeRepository},
		{scoped, false, "GET", "/repos/acme%2Fshop/x/y", CodeRepository},
		{scoped, false, "GET", "/repos/acme/\u017fhop", CodeRepository}, // the long s folds to s
		{scoped, false, "PATCH", "/repos/acme/shop/git/refs/heads/main", CodeRef},
		{scoped, false, "PUT", "/repos/acme/shop/contents/README.md", CodeRef},
		{scoped, false, "POST", "/repos/acme/shop/merges", CodeRef},
		{scoped, false, "PUT", "/repos/acme/shop/pulls/1/merge", CodeRef},
		{scoped, false, "POST", "/repos/acme/shop/git/refs.json", CodeRef},
		{scoped, false, "POST", "/repos/acme/shop/deployments", CodeRef}, // merges the default branch, unless it is told not to
		{scoped, false, "POST", "/repos/acme/shop/deployments/1/statuses", ""},
		{scoped, false, "POST", "/repos/acme/shop/code-scanning/alerts/1/autofix/commits", CodeRef},
		{scoped, false, "POST", "/repos/acme/shop/code-scanning/alerts/1/autofix", ""},
		{scoped, false, "PUT", "/repos/acme/shop/import", CodeRef},
		{scoped, false, "POST", "/repos/acme/shop/keys", CodeRef}, // of somebody who can push from elsewhere
		{scoped, false, "PUT", "/repos/acme/shop/collaborators/mallory", CodeRef},
		{scoped, false, "DELETE", "/repos/acme/shop", CodeRef},
		{scoped, false, "PATCH", "/repos/acme/shop", ""},
		{scoped, false, "POST", "/repos/acme/shop/releases", ""}, // its tag is read
		{scoped, false, "GET", "/repos/acme/shop/contents/README.md", ""},
		{scoped, false, "POST", "/graphql", ""},
		{scoped, false, "GET", "/search/code", ""},
		{scoped, false, "POST", "/user/repos", CodeRepository},
		{shopScope(), false, "POST", "/graphql", CodeRepository},
		{shopScope(), false, "GET", "/search/code", CodeRepository},
		{shopScope(), false, "GET", "/user/repos", CodeRepository},
		{shopScope(), false, "GET", "/rate_limit", ""},
		{scoped, true, "GET", "/acme/shop.git/info/refs", ""},
		{scoped, true, "GET", "/acme/shop/info/refs", ""},
		{scoped, true, "GET", "/Acme/SHOP.GIT/info/refs", ""},
		{scoped, true, "POST", "/acme/shop.git/git-upload-pack", ""},
		{scoped, true, "POST", "/acme/shop.git/git-receive-pack", ""},
		{scoped, true, "POST", "/acme/shop.git/info/lfs/objects/batch", ""},
		{scoped, true, "GET", "/acme/shop/archive/refs/heads/main.tar.gz", ""},
		{scoped, true, "GET", "/acme/other.git/info/refs", CodeRepository},
		{scoped, true, "GET", "/repos/acme/shop", CodeRepository},
		{scoped, true, "PUT", "/acme/shop.git/objects/x", CodeCredential},
		{shopScope(), true, "POST", "/acme/shop.git/git-receive-pack", CodeRef},
		{shopScope(), true, "POST", "/acme/shop.git/git-upload-pack", ""},
		{reader, false, "GET", "/repos/acme/shop/issues", ""},
		{reader, false, "POST", "/repos/acme/shop/issues", CodePermission},
		{reader, false, "DELETE", "/repos/acme/shop", CodePermission},
		{reader, false, "POST", "/graphql", ""}, // its query is read
		{reader, true, "POST", "/acme/shop.git/git-upload-pack", ""},
	} {
		var got policy.Code
		if e := tt.scope.check(tt.method, tt.path, tt.git); e != nil {
			got = e.code
		}
		if got != tt.want {
			t.Errorf("%s %s on a git host %v: %q, want %q", tt.method, tt.path, tt.git, got, tt.want)
		}
	}
}

// TestGitHubPublic: other repositories may be read without the credential, where the policy says so, and nothing else of them.
func TestGitHubPublic(t *testing.T) {
	open, closed := shopScope(), shopScope()
	open.PublicRead = true
	for _, tt := range []struct {
		scope        *GitHub
		git          bool
		method, path string
		want         bool
	}{
		{open, false, "GET", "/repos/acme/public/pulls", true},
		{open, false, "GET", "/repositories/8", true},
		{open, true, "GET", "/acme/public.git/info/refs", true},
		{open, true, "POST", "/acme/public.git/git-upload-pack", true},
		{open, true, "POST", "/acme/public.git/git-receive-pack", false},
		{open, true, "POST", "/acme/public.git/info/lfs/objects/batch", false},
		{open, false, "POST", "/repos/acme/public/issues", false},
		{open, false, "GET", "/repositories/x", false},
		{open, false, "GET", "/user/repos", false},
		{open, false, "GET", "/repos/acme/shop", false}, // it is the credential's own
		{closed, false, "GET", "/repos/acme/public/pulls", false},
	} {
		if got := tt.scope.public(tt.method, tt.path, tt.git); got != tt.want {
			t.Errorf("%s %s: %v, want %v", tt.method, tt.path, got, tt.want)
		}
	}
}

// TestGitHubServer: on a host with both API and git, each has the credential in its own way; on a host of github.com's a path of the other kind has none.
func TestGitHubServer(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", true, k.serve)
	rest, git := token(t, "a.example"), token(t, "a.example")
	git.Scheme, git.Username = Basic, "x-access-token"
	for _, c := range []*Credential{&rest, &git} {
		c.GitHub = shopScope("refs/heads/agent/*")
		c.GitHub.Scoped, c.GitHub.Shared, c.GitHub.PublicRead = true, true, true
	}
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+realToken))
	both := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n", b.port, rest, git)
	alone := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n", b.port, git)
	url := fmt.Sprintf("https://a.example:%d", b.port)
	for _, tt := range []struct {
		s                  *sandbox
		method, path, body string
		want               string // Authorization at the host; "refused": it does not get there
	}{
		{both, "GET", "/api/v3/repos/acme/shop/pulls", "", "Bearer " + realToken},
		{both, "GET", "/API/v3/repos/acme/shop/pulls", "", "Bearer " + realToken},
		{both, "POST", "/api/graphql", `{"query":"{viewer{login}}"}`, "Bearer " + realToken},
		{both, "GET", "/acme/shop.git/info/refs?service=git-upload-pack", "", basic},
		{both, "GET", "/api/v3/repos/acme/public/pulls", "", ""},
		{both, "GET", "/acme/public.git/info/refs?service=git-upload-pack", "", ""},
		{both, "GET", "/acme/public.git/info/refs?service=git-receive-pack", "", "refused"},
		{both, "POST", "/api/v3/repos/acme/public/issues", "{}", "refused"},
		{both, "DELETE", "/api/v3/repos/acme/shop/git/refs/heads/main", "", "refused"},
		{both, "POST", "/acme/shop.git/info/lfs/objects/batch", `{"operation":"download","objects":[]}`, basic},
		{both, "POST", "/acme/shop.git/info/lfs/objects/batch", `{"operation":"upload","objects":[]}`, basic},
		{both, "POST", "/acme/shop.git/info/lfs/objects/batch", `{"operation":"download","operation":"upload"}`, "refused"},
		{both, "POST", "/acme/shop.git/info/lfs/objects/batch", `{"operation":"verify"}`, "refused"},
		{alone, "GET", "/api/v3/repos/acme/shop/pulls", "", "refused"},
	} {
		before := len(k.all())
		req, err := http.NewRequestWithContext(t.Context(), tt.method, url+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "token "+rest.Placeholder) // as clients do everywhere
		resp, err := tt.s.agent(true).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		seen := k.all()[before:]
		switch {
		case tt.want == "refused":
			if resp.StatusCode != 403 || len(seen) > 0 {
				t.Errorf("%s %s: %d; the host saw %v", tt.method, tt.path, resp.StatusCode, seen)
			}
		case len(seen) != 1 || seen[0].Get("Authorization") != tt.want:
			t.Errorf("%s %s: %d; the host saw %v, want %q", tt.method, tt.path, resp.StatusCode, seen, tt.want)
		}
	}
}

// TestLFSWithoutPush: no large file is uploaded where nothing may be pushed, and git LFS is told so in its own way.
func TestLFSWithoutPush(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", true, k.serve)
	c := token(t, "a.example")
	c.Scheme, c.Username, c.GitHub = Basic, "x-access-token", shopScope()
	s := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n", b.port, c)
	url := fmt.Sprintf("https://a.example:%d/acme/shop.git/info/lfs/objects/batch", b.port)
	resp, body := send(t, s.agent(true), "POST", url, `{"operation":"upload","objects":[]}`)
	if resp.StatusCode != 403 || resp.Header.Get("Content-Type") != "application/vnd.git-lfs+json" || !strings.Contains(body, `{"message":"agent-sandbox: the policy allows no push`) || len(k.all()) > 0 {
		t.Errorf("%d %s; the host saw %v", resp.StatusCode, body, k.all())
	}
	if resp, body = send(t, s.agent(true), "POST", url, `{"operation":"download","objects":[]}`); resp.StatusCode != 200 || len(k.all()) != 1 {
		t.Errorf("a download: %d %s", resp.StatusCode, body)
	}
}

const (
	oldID = "1111111111111111111111111111111111111111"
	newID = "2222222222222222222222222222222222222222"
)

// TestGitHubRequests: a refusal says why, nothing of it leaves, and what a rule names goes without the credential.
func TestGitHubRequests(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", true, k.serve)
	c := token(t, "a.example")
	c.GitHub = shopScope("refs/heads/agent/*", "refs/tags/agent-*")
	c.GitHub.Scoped = true
	for _, open := range []bool{false, true} {
		network := "  allow: [{host: a.example, port: %d, private: true}]\n"
		if open {
			network = "  allow: [{host: a.example, port: %d, private: true, rules: [\"GET /repos/acme/public/**\", \"* /repos/acme/shop/**\", \"POST /graphql\"]}]\n"
		}
		s := p.inspecting(network, b.port, c)
		agent, url := s.agent(true), fmt.Sprintf("https://a.example:%d", b.port)
		for _, tt := range []struct {
			method, path, body string
			code               string // of the refusal
			want               string // Authorization at the host
		}{
			{"GET", "/repos/acme/shop/pulls", "", "", "Bearer " + realToken},
			{"GET", "/repos/acme/public/pulls", "", map[bool]string{false: "repository"}[open], ""},
			{"PATCH", "/repos/acme/shop/git/refs/heads/main", "", "ref", ""},
			{"POST", "/graphql", `{"query":"mutation{createPullRequest(input:{}){clientMutationId}}"}`, "", "Bearer " + realToken},
			{"POST", "/graphql", `{"query":"mutation{updateRef(input:{}){clientMutationId}}"}`, "ref", ""},
			{"POST", "/graphql", `{"query":"mutation{createDeployment(input:{}){clientMutationId}}"}`, "ref", ""},
			{"POST", "/graphql?query=mutation", `{"query":"{viewer{login}}"}`, "ref", ""},
			// A release makes its tag where there is none.
			{"POST", "/repos/acme/shop/releases", `{"tag_name":"v9","target_commitish":"agent/one"}`, "ref", ""},
			{"PATCH", "/repos/acme/shop/releases/1", `{"tag_name":"v9"}`, "ref", ""},
			{"PATCH", "/repos/acme/shop/releases/1", `{"draft":false}`, "ref", ""}, // the tag is that of the draft, whatever it is
			{"POST", "/repos/acme/shop/releases/", `{"tag_name":"v9"}`, "ref", ""},
			{"POST", "/repos/acme/shop/releases?tag_name=v9", `{"tag_name":"agent-1"}`, "ref", ""},
			{"POST", "/repos/acme/shop/releases", `{"tag_name":"agent-1","tag_name":"v9"}`, "ref", ""},
			{"POST", "/repos/acme/shop/releases", `{"tag_name":"agent-1/../v9"}`, "ref", ""},
			{"POST", "/repos/acme/shop/releases", `{"tag_name":"agent-1"}`, "", "Bearer " + realToken},
			{"POST", "/repos/acme/shop/releases/generate-notes", `{"tag_name":"v9"}`, "", "Bearer " + realToken},
		} {
			before := len(k.all())
			resp, body := send(t, agent, tt.method, url+tt.path, tt.body)
			seen := k.all()[before:]
			switch {
			case tt.code != "":
				if resp.StatusCode != 403 || !strings.Contains(body, `"code":"`+tt.code+`"`) || len(seen) > 0 {
					t.Errorf("rules %v: %s %s: %d %s; the host saw %v", open, tt.method, tt.path, resp.StatusCode, body, seen)
				}
			case len(seen) != 1 || seen[0].Get("Authorization") != tt.want:
				t.Errorf("rules %v: %s %s: %d %s; the host saw %v", open, tt.method, tt.path, resp.StatusCode, body, seen)
			case tt.body != "" && k.body[before] != tt.body:
				t.Errorf("%s %s: the body %q arrived as %q", tt.method, tt.path, tt.body, k.body[before])
			case tt.path == "/graphql" && seen[0].Get("Content-Type") != "application/json":
				t.Errorf("%s %s: read as JSON, and passed on as %q", tt.method, tt.path, seen[0].Get("Content-Type"))
			}
		}
	}
}

// TestGitHubScopeIsNeeded: without it all that arrives.
func TestGitHubScopeIsNeeded(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", true, k.serve)
	s := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n", b.port, token(t, "a.example"))
	for _, path := range []string{"/repos/acme/other", "/repos/acme/shop/git/refs/heads/main"} {
		send(t, s.agent(true), "PATCH", fmt.Sprintf("https://a.example:%d%s", b.port, path), "")
	}
	if seen := k.all(); len(seen) != 2 || seen[1].Get("Authorization") != "Bearer "+realToken {
		t.Errorf("the host saw %v", seen)
	}
}

// TestGraphQL: a mutation that changes refs has no two readings.
func TestGraphQL(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{`{"query":"{viewer{login}}","variables":{}}`, "{viewer{login}}"},
		{`{"query":"a","query":"b"}`, ""},
		{`{"query":"mutation{updateRef}","Query":"{viewer}"}`, ""},
		{`[{"query":"a"}]`, ""},
		{`{"query":"a"} {"query":"b"}`, ""},
		{`{"variables":{}}`, ""},
		{``, ""},
	} {
		got, ok := textOf([]byte(tt.body), "query")
		if ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("textOf(%s) = %q, %v", tt.body, got, ok)
		}
	}
}
