package runnertest

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// tokenLife is fixed: nobody can ask for less or more.
const tokenLife = time.Hour

// Token is a credential of the API and of git.
type Token struct {
	Text          string
	RepositoryIDs []int64 // nil is all that its owner has
	Permissions   map[string]string
	Expires       time.Time // zero: never
	Revoked       bool
	Installation  int64 // 0 for a person's

	owner string // whose repositories "all" are; "" for everybody's
}

// AddToken makes a person's token, such as a PAT, of the caller's text. It is valid until it expires, and sees everything if it
// has no RepositoryIDs.
func (g *GitHub) AddToken(t Token) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens[t.Text] = &t
}

// RevokeToken ends a token, as its owner or GitHub may at any time.
func (g *GitHub) RevokeToken(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.tokens[text]; t != nil {
		t.Revoked = true
	}
}

// Tokens are all that were ever issued or added, as they are now, in the order of their end.
func (g *GitHub) Tokens() []Token {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []Token
	for _, t := range g.tokens {
		list = append(list, *t)
	}
	slices.SortFunc(list, func(a, b Token) int { return a.Expires.Compare(b.Expires) })
	return list
}

// Live are the tokens that work now.
func (g *GitHub) Live() []Token {
	now := g.Now()
	return slices.DeleteFunc(g.Tokens(), func(t Token) bool { return t.Revoked || !t.Expires.IsZero() && !now.Before(t.Expires) })
}

// OnMint lets a test change every token that an App gets, before it is stored and answered: GitHub that grants something else.
func (g *GitHub) OnMint(change func(*Token)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.onMint = change
}

// valid is the token of this text, if it works. The caller holds the lock.
func (g *GitHub) valid(text string) *Token {
	t := g.tokens[text]
	if t == nil || t.Revoked || !t.Expires.IsZero() && !g.now().Before(t.Expires) {
		return nil
	}
	return t
}

// mintRequest is what the API takes for a new token. Leaving either list out means ALL.
type mintRequest struct {
	RepositoryIDs []int64           `json:"repository_ids"`
	Repositories  []string          `json:"repositories"`
	Permissions   map[string]string `json:"permissions"`
}

func (c *call) mint() {
	i := c.installation()
	if i == nil {
		return
	}
	var req mintRequest
	if len(c.body) > 0 && !c.read(&req) {
		return
	}
	if i.Suspended {
		c.fail(http.StatusForbidden, "This installation has been suspended")
		return
	}
	ids, problem := c.g.wanted(i, req)
	if problem == "" {
		problem = tooMuch(i, req.Permissions)
	}
	if problem != "" {
		c.fail(http.StatusUnprocessableEntity, problem)
		return
	}
	t := &Token{Text: c.g.tokenText(i.App), RepositoryIDs: ids, Expires: c.g.now().Add(tokenLife).Truncate(time.Second), Installation: i.ID, owner: i.Owner}
	if t.Permissions = maps.Clone(req.Permissions); len(req.Permissions) == 0 {
		t.Permissions = maps.Clone(i.Permissions)
	}
	t.Permissions["metadata"] = "read" // always there
	if c.g.onMint != nil {
		c.g.onMint(t)
	}
	c.g.tokens[t.Text] = t
	v := map[string]any{
		"token": t.Text, "expires_at": t.Expires.Format(time.RFC3339), "permissions": t.Permissions,
		"repository_selection": selection(t.RepositoryIDs),
	}
	if !t.all() {
		v["repositories"] = c.g.repositoriesJSON(t)
	}
	c.answer(http.StatusCreated, v)
}

// wanted resolves the repositories of a request: nil is all of the installation's.
func (g *GitHub) wanted(i *Installation, req mintRequest) (ids []int64, problem string) {
	const unknown = "There is at least one repository that does not exist or is not accessible to the parent installation."
	ids = slices.Clone(req.RepositoryIDs)
	for _, name := range req.Repositories {
		repo := g.find(i.Owner, name)
		if repo == nil {
			return nil, unknown
		}
		ids = append(ids, repo.ID)
	}
	if len(ids) > maxRepositoryIDs {
		return nil, fmt.Sprintf("The maximum number of repositories is %d.", maxRepositoryIDs)
	}
	for _, id := range ids {
		if repo := g.repositories[id]; repo == nil || !i.covers(repo) {
			return nil, unknown
		}
	}
	if len(ids) == 0 {
		return slices.Clone(i.RepositoryIDs), ""
	}
	return ids, ""
}

func tooMuch(i *Installation, permissions map[string]string) string {
	for name, level := range permissions {
		if rank(level) == 0 {
			return fmt.Sprintf("Invalid request. %q is not a level of a permission.", level)
		}
		if name != "metadata" && rank(i.Permissions[name]) < rank(level) {
			return "The permissions requested are not granted to this installation."
		}
	}
	return ""
}

// tokenText has the form of GitHub's: ghs_ and the App's id and a JWT, about 520 characters; before 2026, 36 letters and digits.
func (g *GitHub) tokenText(a *App) string {
	n := 360
	if g.cfg.ShortTokens {
		n = 27
	}
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	if g.cfg.ShortTokens {
		return "ghs_" + strings.NewReplacer("-", "A", "_", "B").Replace(base64.RawURLEncoding.EncodeToString(b))
	}
	enc := base64.RawURLEncoding.EncodeToString
	header := enc([]byte(`{"alg":"RS256","typ":"JWT"}`))
	return fmt.Sprintf("ghs_%d_%s.%s.%s", a.ID, header, enc(b[:100]), enc(b[104:]))
}

func (c *call) revoke() {
	if c.token == nil || c.token.Installation == 0 {
		c.fail(http.StatusUnauthorized, "Requires authentication")
		return
	}
	c.token.Revoked = true
	c.w.WriteHeader(http.StatusNoContent)
}

func (c *call) installationRepositories() {
	switch {
	case c.token == nil:
		c.fail(http.StatusUnauthorized, "Requires authentication")
	case c.token.Installation == 0:
		c.fail(http.StatusForbidden, "You must authenticate with an installation access token in order to list repositories for an installation.")
	default:
		list := c.g.repositoriesJSON(c.token)
		c.answer(200, map[string]any{"total_count": len(list), "repository_selection": selection(c.token.RepositoryIDs), "repositories": list})
	}
}

// repositoriesJSON are those that the token sees, by id.
func (g *GitHub) repositoriesJSON(t *Token) []any {
	list := []any{}
	for _, id := range slices.Sorted(maps.Keys(g.repositories)) {
		if repo := g.repositories[id]; t.sees(repo) {
			list = append(list, g.repositoryJSON(repo))
		}
	}
	return list
}
