package runnertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// endpoint is one operation of the API.
type endpoint struct {
	pattern string
	auth    authKind
	// needs is the permission that it takes, as X-Accepted-GitHub-Permissions words it; "" for none.
	needs string
	serve func(*call)
}

type authKind int

const (
	byToken authKind = iota // an installation's or a person's
	byApp                   // the App's own JWT
)

// call is one request of the API, after its credential was found valid.
type call struct {
	g     *GitHub
	w     http.ResponseWriter
	r     *http.Request
	body  []byte
	token *Token // of [byToken]; nil is anonymous
	app   *App   // of [byApp]
}

func (c *call) value(name string) string { return c.r.PathValue(name) }

func (c *call) fail(status int, message string) { fail(c.w, status, message) }

func (c *call) answer(status int, v any) { writeJSON(c.w, status, v) }

// read decodes the body, and refuses what the API doesn't know.
func (c *call) read(into any) bool {
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		c.fail(http.StatusUnprocessableEntity, "Invalid request: "+err.Error())
		return false
	}
	return true
}

// routes is the API. Each operation checks the credential and the permission first.
func (g *GitHub) routes() http.Handler {
	mux := http.NewServeMux()
	for _, list := range [][]endpoint{appEndpoints(), repositoryEndpoints(), refEndpoints(), secretEndpoints(), otherEndpoints()} {
		for _, e := range list {
			mux.HandleFunc(e.pattern, func(w http.ResponseWriter, r *http.Request) { g.run(w, r, e) })
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotImplemented, "runnertest: this GitHub has no "+r.Method+" "+r.URL.Path)
	})
	return mux
}

// serveAPI notes the request, and serves it by its path below the API's root.
func (g *GitHub) serveAPI(w http.ResponseWriter, r *http.Request, path string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "Payload too large")
		return
	}
	g.log(r, path, string(body))
	plain, err := url.PathUnescape(path)
	if err != nil {
		fail(w, http.StatusBadRequest, "Bad request")
		return
	}
	inner := r.Clone(r.Context())
	inner.URL.Path, inner.URL.RawPath = plain, path
	inner.Body = io.NopCloser(bytes.NewReader(body))
	g.api.ServeHTTP(w, inner)
}

func (g *GitHub) run(w http.ResponseWriter, r *http.Request, e endpoint) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		fail(w, http.StatusBadRequest, "Bad request")
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &call{g: g, w: w, r: r, body: body}
	credential := strings.TrimPrefix(credentialOf(r.Header), "token ")
	if !g.limit(w, credential) {
		return
	}
	switch {
	case e.auth == byApp:
		app, err := g.checkAppJWT(credential)
		if err != nil {
			fail(w, http.StatusUnauthorized, err.Error())
			return
		}
		c.app = app
	case credential != "":
		if c.token = g.valid(credential); c.token == nil {
			fail(w, http.StatusUnauthorized, "Bad credentials")
			return
		}
	}
	if e.needs != "" {
		w.Header().Set("X-Accepted-GitHub-Permissions", e.needs)
	}
	e.serve(c)
}

// limit counts the request of this credential in the present hour.
func (g *GitHub) limit(w http.ResponseWriter, credential string) bool {
	hour := g.now().Truncate(time.Hour)
	if !hour.Equal(g.usedHour) {
		g.usedHour, g.used = hour, map[string]int{}
	}
	g.used[credential]++
	used := g.used[credential]
	h := w.Header()
	h.Set("X-RateLimit-Limit", strconv.Itoa(g.cfg.RateLimit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(max(0, g.cfg.RateLimit-used)))
	h.Set("X-RateLimit-Used", strconv.Itoa(used))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(hour.Add(time.Hour).Unix(), 10))
	h.Set("X-RateLimit-Resource", "core")
	h.Set("X-GitHub-Request-Id", fmt.Sprintf("FAKE:%d", len(g.requests)))
	if used > g.cfg.RateLimit {
		fail(w, http.StatusForbidden, "API rate limit exceeded for installation.")
		return false
	}
	return true
}

// repository finds the one that the path names, and checks that the credential may do there what the operation needs. An
// operation on what one may not see is a 404, so that names of private repositories don't show.
func (c *call) repository(permission, level string) *Repository {
	repo := c.g.find(c.value("owner"), c.value("repo"))
	if id := c.value("id"); id != "" {
		n, _ := strconv.ParseInt(id, 10, 64)
		repo = c.g.repositories[n]
	}
	return c.allowed(repo, permission, level)
}

func (c *call) allowed(repo *Repository, permission, level string) *Repository {
	if repo == nil || repo.private && !c.token.sees(repo) {
		if c.token == nil {
			c.w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
		}
		c.fail(http.StatusNotFound, "Not Found")
		return nil
	}
	if !repo.private && level == "read" && permission != "secrets" {
		return repo
	}
	if c.token == nil {
		c.fail(http.StatusUnauthorized, "Requires authentication")
		return nil
	}
	if !c.token.sees(repo) || !c.token.may(permission, level) {
		c.fail(http.StatusForbidden, "Resource not accessible by integration")
		return nil
	}
	return repo
}

// rank orders the levels of a permission.
func rank(level string) int { return map[string]int{"read": 1, "write": 2, "admin": 3}[level] }

func (t *Token) sees(repo *Repository) bool {
	if t == nil {
		return false
	}
	if t.all() {
		return t.owner == "" || strings.EqualFold(t.owner, repo.Owner)
	}
	for _, id := range t.RepositoryIDs {
		if id == repo.ID {
			return true
		}
	}
	return false
}

func (t *Token) all() bool { return t.RepositoryIDs == nil }

func (t *Token) may(permission, level string) bool {
	if t == nil {
		return false
	}
	return permission == "metadata" && level == "read" || rank(t.Permissions[permission]) >= rank(level)
}
