package egress

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// GitHub binds a credential to repositories. On its hosts, requests for others are refused: a token that reaches further does not
// take the agent there, and a public repository is no way out. A rule of the policy that names such a request ("GET
// /acme/public.git/**") lets it through, without the credential.
//
// What a request is for is told by its path: /repos/OWNER/NAME and /repositories/ID of the REST API, with /api/v3 or /api/uploads before them on
// a GitHub Enterprise Server, and /OWNER/NAME on a git host. Owner and name are compared without regard to case, as GitHub does; escapes in
// them match nothing.
//
// Refs are limited where they are pushed: see Push. So that there is no other way to them, requests of the API that change refs are refused, and so are
// mutations of GraphQL that do.
type GitHub struct {
	Repositories []GitHubRepository // required
	// Push are patterns of the refs that may be pushed, as policy.MatchRef reads them; none: no push at all. What is new may be
	// pushed over what was there, and a ref may be deleted: both are changes of a ref that is the agent's.
	Push []string
	// Scoped: the token itself is good for Repositories alone. Else requests that name no repository are refused, since their answers,
	// GraphQL's above all, have whatever the token can see.
	Scoped bool
	// PublicRead lets other repositories be read, without the credential: what is public of them.
	PublicRead bool
	// ReadOnly: no permission of the token is more than read, so what would change something is refused before it leaves.
	ReadOnly bool
	// Shared: the REST API and git are on one host, as on a GitHub Enterprise Server. Each has a credential of its own there, since they take it
	// in different ways: the API's is for what is below /api/, git's for the rest.
	Shared bool
}

// GitHubRepository is one repository.
type GitHubRepository struct {
	ID   int64  // 0 if it is not known: then requests by number are refused
	Name string // owner/name
}

// CodeRepository, CodeRef and CodePermission are why a request to GitHub is refused.
const (
	CodePermission policy.Code = "permission" // it would change something, and the credential only reads
	CodeRepository policy.Code = "repository" // it is for a repository that the credential is not for
	CodeRef        policy.Code = "ref"        // it would change a ref that may not be pushed
)

// target is what a request to GitHub is for.
type gitTarget struct {
	repository string // owner/name; empty with a zero id: none
	id         int64
	rest       []string // of the path, behind the repository; all of it if there is none
	api        bool
}

// locate reads a path that was cleaned. git tells the two kinds of hosts apart: their paths look alike.
func locate(path string, git bool) gitTarget {
	segments, below := belowAPI(path)
	api := !git || below
	switch {
	case api && len(segments) > 2 && strings.EqualFold(segments[0], "repos"):
		return gitTarget{repository: segments[1] + "/" + segments[2], rest: segments[3:], api: true}
	case api && len(segments) > 1 && strings.EqualFold(segments[0], "repositories"):
		id, err := strconv.ParseInt(segments[1], 10, 64)
		if err != nil || id <= 0 {
			id = -1
		}
		return gitTarget{id: id, rest: segments[2:], api: true}
	case api:
		return gitTarget{rest: segments, api: true}
	case len(segments) > 1:
		name := segments[1]
		if len(name) > 4 && strings.EqualFold(name[len(name)-4:], ".git") {
			name = name[:len(name)-4]
		}
		return gitTarget{repository: segments[0] + "/" + name, rest: segments[2:]}
	}
	return gitTarget{rest: segments}
}

// belowAPI takes the root of the API off a path of a GitHub Enterprise Server; ok is false if that is not there.
func belowAPI(path string) (segments []string, ok bool) {
	segments = strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case len(segments) > 2 && strings.EqualFold(segments[0], "api") && slices.Contains([]string{"v3", "uploads"}, strings.ToLower(segments[1])):
		return segments[2:], true
	case len(segments) == 2 && strings.EqualFold(segments[0], "api") && strings.EqualFold(segments[1], "graphql"):
		return segments[1:], true
	}
	return segments, false
}

// concerns tells whether the credential is the one that such a path would have.
func (c *Credential) concerns(path string) bool {
	if c.GitHub == nil || !c.GitHub.Shared {
		return true
	}
	_, api := belowAPI(path)
	return api != c.isGit()
}

// public tells whether a request may go without the credential, because it reads another repository.
func (g *GitHub) public(method, path string, git bool) bool {
	t := locate(path, git)
	if !g.PublicRead || t.repository == "" && t.id <= 0 || g.has(t) {
		return false
	}
	return method == http.MethodGet || method == http.MethodHead ||
		method == http.MethodPost && !t.api && slices.Equal(t.rest, []string{"git-upload-pack"})
}

// has tells whether the target is one of the repositories.
func (g *GitHub) has(t gitTarget) bool {
	return slices.ContainsFunc(g.Repositories, func(r GitHubRepository) bool {
		return t.repository != "" && equalFold(r.Name, t.repository) || t.id > 0 && r.ID == t.id
	})
}

// equalFold is for names of ASCII alone: other characters fold to ASCII ones.
func equalFold(a, b string) bool {
	return len(a) == len(b) && !strings.ContainsFunc(b, func(r rune) bool { return r >= 0x80 }) && strings.EqualFold(a, b)
}

// check says why a request may not have the credential.
func (g *GitHub) check(method, path string, git bool) *end {
	t := locate(path, git)
	switch {
	case t.repository == "" && t.id == 0:
		return g.checkGeneral(method, t)
	case !g.has(t):
		return refuse(CodeRepository, fmt.Sprintf("the credential is for %s, and this request is for another repository", g.names()))
	case t.api:
		return g.checkREST(method, t)
	}
	return g.checkGit(method, t)
}

// checkGeneral is for requests that name no repository.
func (g *GitHub) checkGeneral(method string, t gitTarget) *end {
	read := method == http.MethodGet || method == http.MethodHead
	first := strings.ToLower(t.rest[0])
	switch {
	case read && slices.Contains([]string{"", "meta", "rate_limit", "versions", "zen", "octocat", "emojis", "licenses", "gitignore"}, first):
		return nil
	case !g.Scoped:
		return refuse(CodeRepository, "the request names no repository, and its answer could have whatever the credential can see")
	case t.api && read, t.api && first == "graphql" && len(t.rest) == 1:
		return nil
	}
	return refuse(CodeRepository, "the request names no repository, and would change something")
}

// checkREST keeps the API from changing refs past what is checked of a push.
func (g *GitHub) checkREST(method string, t gitTarget) *end {
	if method == http.MethodGet || method == http.MethodHead {
		return nil
	}
	if g.ReadOnly {
		return refuse(CodePermission, "the request would change something, and the credential has no permission but to read")
	}
	path := strings.TrimSuffix(strings.ToLower(strings.Join(t.rest, "/")), ".json")
	for _, way := range []string{"git/refs", "contents", "merges", "merge-upstream", "branches", "dispatches", "transfer", "import"} {
		if path == way || strings.HasPrefix(path, way+"/") {
			return refuse(CodeRef, "the request could change refs; push instead, to "+g.allowed())
		}
	}
	first, rest, _ := strings.Cut(path, "/")
	last := path[strings.LastIndex(path, "/")+1:]
	switch {
	case first == "" && method == http.MethodDelete:
		return refuse(CodeRef, "the request would delete the repository, with all refs")
	case first == "pulls" && (last == "merge" || last == "update-branch"):
		return refuse(CodeRef, "merging is for people: the request would change the pull request's branch")
	case first == "deployments" && rest == "", first == "code-scanning" && last == "commits":
		return refuse(CodeRef, "the request could change refs: a deployment merges the default branch, a fix is committed")
	case first == "keys", first == "collaborators":
		return refuse(CodeRef, "the request could let somebody push who is not held to "+g.allowed())
	}
	return nil
}

// checkGit lets git's smart HTTP through, its large files, and what is read in other ways, such as archives.
func (g *GitHub) checkGit(method string, t gitTarget) *end {
	rest := strings.Join(t.rest, "/")
	switch {
	case method == http.MethodGet, method == http.MethodHead:
		return nil
	case method != http.MethodPost:
	case rest == "git-upload-pack", rest == lfsBatch, rest == "info/lfs/locks/verify":
		return nil
	case rest == receivePack:
		if len(g.Push) == 0 {
			return g.noPush()
		}
		return nil
	}
	return refuse(CodeCredential, "git's smart HTTP has no such request")
}

const receivePack = "git-receive-pack"

func (g *GitHub) noPush() *end {
	return refuse(CodeRef, "the policy allows no push: `push:` of the credential names no refs")
}

// announcesPush tells whether git asks for the refs in order to push.
func announcesPush(path, query string) bool {
	return strings.HasSuffix(path, "/info/refs") && strings.Contains(query, receivePack)
}

func (g *GitHub) names() string {
	var names []string
	for _, r := range g.Repositories {
		names = append(names, r.Name)
	}
	return strings.Join(names, ", ")
}

func (g *GitHub) allowed() string {
	if len(g.Push) == 0 {
		return "no ref: the policy allows no push"
	}
	return strings.Join(g.Push, ", ")
}

// mayPush tells whether the ref is one of those that may be pushed.
func (g *GitHub) mayPush(ref string) bool {
	return slices.ContainsFunc(g.Push, func(pattern string) bool { return policy.MatchRef(pattern, ref) })
}

// isGit: on a git host the credential is the password of Basic authentication.
func (c *Credential) isGit() bool { return c.Scheme == Basic }

// checkGitHub applies the scopes of the host's credentials. What a rule of the policy names itself goes through without them.
func (x *exchange) checkGitHub(named bool) *end {
	if x.in.c.g.checks.unscoped || !slices.ContainsFunc(x.in.bound, func(c *Credential) bool { return c.GitHub != nil }) {
		return nil
	}
	clean, err := policy.ParsePath(x.path)
	if err != nil {
		return refuse(policy.CodeBadRequest, err.Error())
	}
	x.path = clean.String() // what was checked is what is sent
	if e := x.chooseJudges(); e != nil {
		return e
	}
	for _, c := range x.judges {
		push := announcesPush(x.path, x.query)
		if c.GitHub.public(x.r.Method, x.path, c.isGit()) && !push {
			continue
		}
		e := c.GitHub.check(x.r.Method, x.path, c.isGit())
		if e == nil && c.isGit() && len(c.GitHub.Push) == 0 && push {
			e = c.GitHub.noPush()
		}
		if e == nil {
			x.scope = c.GitHub
		} else if !named || e.code == CodeRef {
			if e.code == CodeRepository && len(x.judges) > 1 {
				e = elsewhere(x.judges)
			}
			x.scope, x.plain = c.GitHub, c.isGit()
			return e
		}
	}
	return nil
}

// chooseJudges finds the credentials of GitHub's whose scopes decide about a request, and one of which it may have: those that are for the
// repository in its path. If its path names no repository, that is the one for what its GraphQL names, or else whose placeholder it has, or else the
// first; if the repository is nobody's, all of them.
func (x *exchange) chooseJudges() *end {
	var general bool
	if x.judges, general = judges(x.in.bound, x.r.Header, x.r.Method, x.path); len(x.judges) == 0 {
		return refuse(CodeRepository, "no credential of the host is for such a path")
	}
	if !general {
		return nil
	}
	if len(x.judges) > 1 && x.isGraphQL() {
		if e := x.judgeQuery(); e != nil {
			return e
		}
	}
	x.judges = x.judges[:1]
	return nil
}

// judges: general says that the path names no repository; then one of them is to be chosen, and those come first whose placeholder the request has.
func judges(bound []*Credential, header http.Header, method, path string) (all []*Credential, general bool) {
	var concerned, having []*Credential
	for _, c := range bound {
		if c.GitHub == nil || !c.concerns(path) {
			continue
		}
		concerned = append(concerned, c)
		t := locate(path, c.isGit())
		general = general || t.repository == "" && t.id == 0
		if c.GitHub.has(t) {
			having = append(having, c)
		}
	}
	switch {
	case len(having) > 0:
		return having, false
	case general && len(concerned) > 1:
		if able := choose(concerned, header, method, path); len(able) > 0 {
			return able, true
		}
		return concerned[:1], true
	}
	return concerned, false
}

// elsewhere refuses a request for a repository that none of the credentials is for.
func elsewhere(credentials []*Credential) *end {
	var all []string
	for _, c := range credentials {
		if names := c.GitHub.names(); !slices.Contains(all, names) {
			all = append(all, names)
		}
	}
	return refuse(CodeRepository, fmt.Sprintf("the credentials are for %s, and this request is for another repository", strings.Join(all, ", ")))
}
