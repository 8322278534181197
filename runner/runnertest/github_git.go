package runnertest

import (
	"net/http"
	"net/http/cgi"
	"os/exec"
	"path/filepath"
	"strings"
)

// serveGit is git's smart HTTP: git itself behind a check of the credential, which is the password of x-access-token.
func (g *GitHub) serveGit(w http.ResponseWriter, r *http.Request) {
	g.log(r, r.URL.Path, "")
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	if len(parts) != 3 {
		http.Error(w, "runnertest: no page of this GitHub", http.StatusNotImplemented)
		return
	}
	service := ""
	switch {
	case r.Method == http.MethodGet && parts[2] == "info/refs":
		service = r.URL.Query().Get("service")
	case r.Method == http.MethodPost:
		service = parts[2]
	}
	level := map[string]string{"git-upload-pack": "read", "git-receive-pack": "write"}[service]
	if level == "" {
		http.Error(w, "runnertest: not git's smart HTTP", http.StatusNotImplemented)
		return
	}
	repo := g.gitAllowed(w, r, parts[0], strings.TrimSuffix(parts[1], ".git"), level)
	if repo == nil {
		return
	}
	backend, err := gitBackend(g)
	if err != nil {
		http.Error(w, "runnertest: "+err.Error(), http.StatusInternalServerError)
		return
	}
	inner := r.Clone(r.Context())
	inner.TransferEncoding = nil // net/http/cgi refuses it, though git reads a body of unknown length to its end
	inner.URL.Path = "/" + filepath.Base(repo.Dir) + "/" + parts[2]
	handler := &cgi.Handler{
		Path: backend, Dir: g.root, InheritEnv: []string{"PATH"},
		Env: append(g.gitEnv(), "GIT_PROJECT_ROOT="+g.root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=x-access-token"),
	}
	handler.ServeHTTP(w, inner)
	if level == "write" {
		g.mu.Lock()
		repo.files = map[string][]byte{}
		g.mu.Unlock()
	}
}

func gitBackend(g *GitHub) (string, error) {
	cmd := exec.Command("git", "--exec-path")
	cmd.Env = g.gitEnv()
	out, err := cmd.Output()
	return filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), err
}

// gitAllowed finds the repository, if the credential may do this there.
func (g *GitHub) gitAllowed(w http.ResponseWriter, r *http.Request, ownerName, name, level string) *Repository {
	g.mu.Lock()
	defer g.mu.Unlock()
	user, password, given := r.BasicAuth()
	var token *Token
	if given {
		if token = g.valid(password); token == nil || user != "x-access-token" {
			gitUnauthorized(w)
			return nil
		}
	}
	repo := g.find(ownerName, name)
	switch {
	case repo != nil && !repo.private && level == "read":
		return repo
	case token == nil:
		gitUnauthorized(w)
	case repo == nil || repo.private && !token.sees(repo):
		http.Error(w, "Repository not found.", http.StatusNotFound)
	case !token.sees(repo) || !token.may("contents", level):
		http.Error(w, "Write access to repository not granted.", http.StatusForbidden)
	default:
		return repo
	}
	return nil
}

func gitUnauthorized(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
	http.Error(w, "Invalid username or token.", http.StatusUnauthorized)
}
