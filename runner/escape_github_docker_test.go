//go:build docker

package runner

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
)

const (
	// The hosts are not written down: the credential opens them.
	gitHubPolicy = `
credentials:
  github: {from: "env:ESCAPE_GITHUB", repositories: [acme/shop], push: ["refs/heads/agent/*"]}
`
	gitHubToken = "ghs_escape0123456789abcdefghijABCDEFGHIJ"

	// gitHubWork is what an agent does, with a word for each step that worked.
	gitHubWork = `
cd /tmp && export GIT_TERMINAL_PROMPT=0 && git config --global user.name t && git config --global user.email t@example.org
try() { name=$1; shift; if "$@" >/tmp/out 2>&1; then echo "$name: ok"; else echo "$name: refused: $(tr '\n' ' ' </tmp/out)"; fi; }
api() { curl -sS --fail-with-body -X "$1" "https://api.github.com$2" ${3:+-d "$3"}; }
try clone git clone https://github.com/acme/shop.git shop
cd shop && git commit -q --allow-empty -m work
try push git push origin HEAD:agent/one
try fetch git fetch origin
try rest api POST /repos/acme/shop/issues '{"title":"t"}'
try main git push origin HEAD:main
try other git ls-remote https://github.com/acme/other.git
try otherpush git push https://github.com/acme/other.git HEAD:agent/one
try otherrest api GET /repos/acme/other/issues
try refs api POST /repos/acme/shop/git/refs '{"ref":"refs/heads/evil","sha":"'"$(git rev-parse HEAD)"'"}'
try method api DELETE /repos/acme/shop/git/refs/heads/main
`
)

// atGitHub runs the work against a GitHub of its own.
func (l *lab) atGitHub(t *testing.T, weak bool) (*box, *runnertest.GitHub, *runnertest.Repository) {
	t.Helper()
	w := newWorld(t)
	cert := w.certify(t)
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{Certificate: &cert})
	w.secure = gh.Addr()
	shop, other := gh.AddRepository("acme/shop"), gh.AddRepository("acme/other")
	shop.WriteFile("README.md", "shop\n")
	other.WriteFile("README.md", "other\n")
	gh.AddToken(runnertest.Token{Text: gitHubToken, Permissions: map[string]string{"contents": "write", "issues": "write"}})
	s := setup{policy: gitHubPolicy, world: w, env: map[string]string{"ESCAPE_GITHUB": gitHubToken}}
	s.seam.egress.Scopes = weak
	b := l.start(t, s, []string{"sh", "-c", gitHubWork + ransack}, nil)
	if b.err != nil {
		t.Fatalf("%v\n%s", b.err, b.stderr)
	}
	return b, gh, shop
}

// TestEscapeGitHub: a token that reaches everything takes the agent to one repository and to some refs of it.
func TestEscapeGitHub(t *testing.T) {
	l := testLab(t)
	held, gh, shop := l.atGitHub(t, false)
	weak, _, open := l.atGitHub(t, true)
	out, leaky := string(held.stdout), string(weak.stdout)
	for _, control := range []string{"clone", "push", "fetch", "rest"} {
		if !strings.Contains(out, control+": ok\n") {
			t.Fatalf("the positive control %s does not work:\n%.4000s", control, out)
		}
	}
	for _, e := range []struct{ attack, by, step, says string }{
		{"a push outside the refs", "the commands of a push are read", "main", "remote: agent-sandbox: "},
		{"another repository, by git", "each path is checked", "other", "remote: agent-sandbox: "},
		{"a push to another repository", "each path is checked", "otherpush", "remote: agent-sandbox: "},
		{"another repository, by the API", "each path is checked", "otherrest", `"code":"repository"`},
		{"a ref made by the API", "requests that change refs are refused", "refs", `"code":"ref"`},
		{"a ref deleted by the API", "requests that change refs are refused", "method", `"code":"ref"`},
	} {
		l.entry(t, "credentials", e.attack, e.by, func(t *testing.T, _ func(string)) {
			line := lineOf(out, e.step)
			if !strings.HasPrefix(line, e.step+": refused") || !strings.Contains(line, e.says) {
				t.Errorf("%q", line)
			}
			if off := lineOf(leaky, e.step); strings.Contains(off, "agent-sandbox: ") || strings.Contains(off, `"code":"re`) {
				t.Errorf("without the protection: %q: the entry proves nothing", off)
			}
		})
	}
	if n := gh.Seen("POST", "/acme/shop.git/git-receive-pack"); n != 1 { // the push to main has asked for the refs, and no more
		t.Errorf("GitHub saw %d pushes, want the one that is allowed", n)
	}
	for _, r := range gh.Requests() {
		if strings.Contains(r.Path, "other") || strings.Contains(r.Path, "/git/refs") {
			t.Errorf("GitHub saw %s %s", r.Method, r.Path)
		}
	}
	if shop.Ref("refs/heads/agent/one") == "" || shop.Ref("refs/heads/evil") != "" || open.Ref("refs/heads/main") == shop.Ref("refs/heads/main") {
		t.Error("the refs are not as they should be")
	}
	l.entry(t, "credentials", "a GitHub token anywhere inside", "it is attached outside", func(t *testing.T, _ func(string)) {
		basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + gitHubToken))
		if holds(out, gitHubToken) || strings.Contains(out, basic) || strings.Contains(out, "[redacted:") || !strings.Contains(out, "GH_TOKEN=ghs_") {
			t.Error("the token is there, or nothing was searched")
		}
		off := l.start(t, setup{
			policy: "credentials:\n  github: {from: \"env:ESCAPE_GITHUB\", deliver: env, env: GH_TOKEN}\n", env: map[string]string{"ESCAPE_GITHUB": gitHubToken},
			seam: seam{unmasked: true},
		}, []string{"sh", "-c", ransack}, nil)
		if !holds(string(off.stdout), gitHubToken) {
			t.Errorf("a token that is not attached outside is not found (%v): the entry proves nothing", off.err)
		}
	})
	if !held.has(func(e event.Event) bool {
		q, ok := e.(event.Request)
		return ok && q.Code == "ref" && q.Outcome == "refused"
	}) {
		t.Error("no event tells of the push")
	}
	if !held.has(func(e event.Event) bool {
		u, ok := e.(event.CredentialUsed)
		return ok && u.Name == "github" && u.PerHost["github.com"] > 0
	}) {
		t.Error("no event tells what the credential was used for")
	}
}

// TestGitHubServer: on a GitHub Enterprise Server, whose API and git are on one host, both work, and what is public of other repositories can be read; nothing
// else of them, and without the credential.
func TestGitHubServer(t *testing.T) {
	l := testLab(t)
	w := newWorld(t)
	cert := w.certify(t)
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{Certificate: &cert})
	w.secure = gh.Addr()
	shop, open, closed := gh.AddRepository("acme/shop"), gh.AddRepository("acme/open"), gh.AddRepository("acme/closed")
	for _, r := range []*runnertest.Repository{shop, open, closed} {
		r.WriteFile("README.md", r.Name+"\n")
	}
	open.Public()
	gh.AddToken(runnertest.Token{Text: gitHubToken, Permissions: map[string]string{"contents": "write", "issues": "write"}})
	b := l.start(t, setup{
		world: w, env: map[string]string{"ESCAPE_GITHUB": gitHubToken},
		policy: `
credentials:
  github: {from: "env:ESCAPE_GITHUB", host: ghe.inward.example, repositories: [acme/shop], push: ["refs/heads/agent/*"], public-read: true}
`,
	}, []string{"sh", "-c", `
cd /tmp && export GIT_TERMINAL_PROMPT=0 && git config --global user.name t && git config --global user.email t@example.org
try() { name=$1; shift; if "$@" >/tmp/out 2>&1; then echo "$name: ok"; else echo "$name: refused: $(tr '\n' ' ' </tmp/out)"; fi; }
api() { curl -sS --fail-with-body -X "$1" -H "Authorization: token $GH_TOKEN" "https://ghe.inward.example/api/v3$2" ${3:+-d "$3"}; }
try clone git clone https://ghe.inward.example/acme/shop.git shop
cd shop && git commit -q --allow-empty -m work
try push git push "https://x-access-token:$GH_TOKEN@ghe.inward.example/acme/shop.git" HEAD:agent/one
try rest api POST /repos/acme/shop/issues '{"title":"t"}'
try main git push origin HEAD:main
try public git ls-remote https://ghe.inward.example/acme/open.git
try publicrest api GET /repos/acme/open/issues
try private git ls-remote https://ghe.inward.example/acme/closed.git
try publicpush git push https://ghe.inward.example/acme/open.git HEAD:agent/one
try publicwrite api POST /repos/acme/open/issues '{"title":"t"}'
`}, nil)
	if b.err != nil {
		t.Fatalf("%v\n%s", b.err, b.stderr)
	}
	out := string(b.stdout)
	for step, want := range map[string]string{
		"clone": "ok", "push": "ok", "rest": "ok", "public": "ok", "publicrest": "ok", "main": "refused: ", "private": "refused: ", "publicpush": "refused: ", "publicwrite": "refused: ",
	} {
		if line := lineOf(out, step); !strings.HasPrefix(line, step+": "+want) {
			t.Errorf("%q, want %s", line, want)
		}
	}
	for _, r := range gh.Requests() {
		own := strings.Contains(r.Path, "acme/shop")
		if own != strings.HasSuffix(r.Credential, gitHubToken) || !own && r.Method != "GET" && !strings.HasSuffix(r.Path, "git-upload-pack") {
			t.Errorf("GitHub saw %s %s with %q", r.Method, r.Path, r.Credential)
		}
	}
	if shop.Ref("refs/heads/agent/one") == "" {
		t.Error("the push did not arrive")
	}
}

// TestEscapeReadOnly: with permissions to read, what would change something does not leave. The policy names repositories of two owners, so there are two
// tokens: each repository sees its own.
func TestEscapeReadOnly(t *testing.T) {
	l := testLab(t)
	const work = `
try() { name=$1; shift; if "$@" >/tmp/out 2>&1; then echo "$name: ok"; else echo "$name: refused: $(tr '\n' ' ' </tmp/out)"; fi; }
api() { curl -sS --fail-with-body -X "$1" "https://api.github.com$2" ${3:+-d "$3"}; }
try read api GET /repos/acme/shop/issues
try second api GET /repos/globex/lib/issues
try write api POST /repos/acme/shop/issues '{"title":"t"}'
try mutation api POST /graphql '{"query":"mutation{addStar(input:{}){clientMutationId}}"}'
`
	for _, weak := range []bool{false, true} {
		gh, _, s := atApp(t, "{contents: read, issues: read}", "")
		s.seam.egress.Scopes = weak
		s.policy = strings.Replace(s.policy, "[acme/shop]", "[acme/shop, globex/lib]", 1)
		b := l.start(t, s, []string{"sh", "-c", work}, nil)
		if b.err != nil {
			t.Fatalf("%v\n%s", b.err, b.stderr)
		}
		out, arrived := string(b.stdout), gh.Seen("POST", "/repos/acme/shop/issues")+gh.Seen("POST", "/graphql")
		if weak {
			if arrived != 2 {
				t.Errorf("without the protection %d requests arrive: the entry proves nothing", arrived)
			}
			continue
		}
		l.entry(t, "credentials", "a method beyond the permission", "the permissions are known here", func(t *testing.T, _ func(string)) {
			for _, step := range []string{"write", "mutation"} {
				if line := lineOf(out, step); !strings.Contains(line, `"code":"permission"`) || arrived > 0 {
					t.Errorf("%q; %d requests arrived", line, arrived)
				}
			}
			if lineOf(out, "read") != "read: ok" {
				t.Errorf("the positive control does not work: %q", lineOf(out, "read"))
			}
		})
		checkTwoTokens(t, gh, b)
	}
}

// checkTwoTokens looks at what GitHub and the manifest say of the tokens of two owners.
func checkTwoTokens(t *testing.T, gh *runnertest.GitHub, b *box) {
	t.Helper()
	sent := map[string]string{}
	for _, r := range gh.Requests() {
		for _, repository := range []string{"acme/shop", "globex/lib"} {
			if r.Path == "/repos/"+repository+"/issues" {
				sent[repository] = r.Credential
			}
		}
	}
	if sent["acme/shop"] == "" || sent["globex/lib"] == "" || sent["acme/shop"] == sent["globex/lib"] || lineOf(string(b.stdout), "second") != "second: ok" {
		t.Errorf("the repositories did not each get their token: %t, %t; %q", sent["acme/shop"] != "", sent["globex/lib"] != "", lineOf(string(b.stdout), "second"))
	}
	for _, name := range []string{"github (acme)", "github (globex)"} {
		used := b.has(func(e event.Event) bool {
			u, ok := e.(event.CredentialUsed)
			return ok && u.Name == name && u.Requests == 1
		})
		over := b.has(func(e event.Event) bool {
			r, ok := e.(event.CredentialRevoked)
			return ok && r.Name == name && r.Status == event.RevocationVerified
		})
		if !used || !over {
			t.Errorf("%s: recorded as used %t, as revoked %t", name, used, over)
		}
	}
	if n := len(gh.Live()); n > 0 {
		t.Errorf("%d tokens live", n)
	}
}

// lineOf is the answer of one step.
func lineOf(out, step string) string {
	for line := range strings.SplitSeq(out, "\n") {
		if strings.HasPrefix(line, step+": ") {
			return line
		}
	}
	return ""
}
