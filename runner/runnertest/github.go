package runnertest

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// GitHubConfig is how a [GitHub] serves.
type GitHubConfig struct {
	// TLS serves HTTPS, with the certificate of httptest: [GitHub.Client] trusts it. Certificate is used instead if it is given.
	TLS         bool
	Certificate *tls.Certificate
	// RateLimit is how many requests of the API one credential has in an hour; 0 is GitHub's 5000.
	RateLimit int
	// ShortTokens issues tokens of 40 characters, as GitHub did before 2026, in place of the long ones.
	ShortTokens bool
}

// GitHub is GitHub as far as our programs use it: the REST API of Apps, installations, repositories, pull requests, refs, secrets,
// issues and attestations, and git's smart HTTP with git itself behind it. Tokens have repositories, permissions and an end, by a
// clock that [GitHub.Advance] moves. What it doesn't know it answers with 501, so that no test passes by accident.
//
// The API is at URL+"/api/v3" as on a GitHub Enterprise Server, and at the root for requests to a host that starts with "api.";
// repositories are at URL+"/owner/name.git".
type GitHub struct {
	URL string // without a slash at the end

	faults

	t       testing.TB
	cfg     GitHubConfig
	server  *httptest.Server
	root    string // the bare repositories
	gitHome string
	api     http.Handler
	started time.Time

	mu            sync.Mutex // guards the rest, and what hangs from it
	offset        time.Duration
	lastID        int64
	owners        map[string]*owner
	repositories  map[int64]*Repository
	apps          map[int64]*App
	installations map[int64]*Installation
	tokens        map[string]*Token
	onMint        func(*Token)
	requests      []Request
	used          map[string]int // requests in the present hour, by credential
	usedHour      time.Time
}

// owner is an organisation or user.
type owner struct {
	id      int64
	name    string
	secrets *secretStore
}

// NewGitHub starts one for as long as the test lives.
func NewGitHub(t testing.TB, cfg GitHubConfig) *GitHub {
	t.Helper()
	if cfg.RateLimit == 0 {
		cfg.RateLimit = 5000
	}
	g := &GitHub{
		t: t, cfg: cfg, root: t.TempDir(), gitHome: t.TempDir(), started: time.Now(), lastID: 1000,
		owners: map[string]*owner{}, repositories: map[int64]*Repository{}, apps: map[int64]*App{},
		installations: map[int64]*Installation{}, tokens: map[string]*Token{}, used: map[string]int{},
	}
	g.api = g.routes()
	g.server = httptest.NewUnstartedServer(http.HandlerFunc(g.serve))
	if cfg.Certificate != nil {
		g.server.TLS = &tls.Config{Certificates: []tls.Certificate{*cfg.Certificate}}
	}
	if cfg.TLS || cfg.Certificate != nil {
		g.server.StartTLS()
	} else {
		g.server.Start()
	}
	t.Cleanup(g.server.Close)
	g.URL = g.server.URL
	return g
}

// API is the base URL of the REST API, without a slash at the end.
func (g *GitHub) API() string { return g.URL + "/api/v3" }

// Client trusts the server's certificate.
func (g *GitHub) Client() *http.Client { return g.server.Client() }

// Addr is host:port of the server.
func (g *GitHub) Addr() string { return g.server.Listener.Addr().String() }

// Now is GitHub's time.
func (g *GitHub) Now() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now()
}

func (g *GitHub) now() time.Time { return time.Now().Add(g.offset).UTC() }

// Advance moves the clock: tokens expire by it.
func (g *GitHub) Advance(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.offset += d
}

// Requests are those that came so far, of the API (by their path without /api/v3) and of git.
func (g *GitHub) Requests() []Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]Request(nil), g.requests...)
}

// Seen counts the requests of this method whose path has this prefix.
func (g *GitHub) Seen(method, prefix string) int {
	n := 0
	for _, r := range g.Requests() {
		if r.Method == method && strings.HasPrefix(r.Path, prefix) {
			n++
		}
	}
	return n
}

// id gives numbers that are never used again, as GitHub's are. The caller holds the lock.
func (g *GitHub) id() int64 {
	g.lastID++
	return g.lastID
}

// serve tells the API from git.
func (g *GitHub) serve(w http.ResponseWriter, r *http.Request) {
	path, isAPI := strings.CutPrefix(r.URL.EscapedPath(), "/api/v3")
	isAPI = isAPI || strings.HasPrefix(r.Host, "api.")
	fault := g.pick(r.Method, path)
	fault.wait(r)
	if fault.Drop {
		g.answer(httptest.NewRecorder(), r, path, isAPI)
		panic(http.ErrAbortHandler)
	}
	if fault.Status != 0 {
		g.log(r, path, "")
		if fault.Status == http.StatusForbidden || fault.Status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "60")
			fail(w, fault.Status, "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.")
			return
		}
		fail(w, fault.Status, http.StatusText(fault.Status))
		return
	}
	g.answer(w, r, path, isAPI)
}

func (g *GitHub) answer(w http.ResponseWriter, r *http.Request, path string, isAPI bool) {
	if isAPI {
		g.serveAPI(w, r, path)
		return
	}
	g.serveGit(w, r)
}

func (g *GitHub) log(r *http.Request, path, body string) {
	credential := credentialOf(r.Header)
	if user, password, ok := r.BasicAuth(); ok {
		credential = user + ":" + password
	}
	req := Request{Method: r.Method, Path: path, Credential: strings.TrimPrefix(credential, "token "), Body: body, Header: r.Header.Clone()}
	if r.URL.RawQuery != "" {
		req.Path += "?" + r.URL.RawQuery
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = append(g.requests, req)
}

// fail answers with an error as GitHub words them.
func fail(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]any{"message": message, "documentation_url": "https://docs.github.com/rest", "status": fmt.Sprint(status)})
}
