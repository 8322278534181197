package runnertest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Repository is a repository with a bare git repository behind it, whose default branch has one commit.
type Repository struct {
	ID            int64
	Owner, Name   string
	OwnerID       int64
	DefaultBranch string
	Dir           string // the bare repository

	g            *GitHub
	private      bool
	renamedFrom  []string // full names that lead here
	pulls        []map[string]any
	issues       []map[string]any
	attestations []map[string]any
	secrets      *secretStore
	environments map[string]*secretStore
	files        map[string][]byte // of the default branch, as far as they were read; emptied by pushes
}

// FullName is owner/name.
func (r *Repository) FullName() string { return r.Owner + "/" + r.Name }

// CloneURL is where git finds it.
func (r *Repository) CloneURL() string { return r.g.URL + "/" + r.FullName() + ".git" }

// AddRepository makes a private one, named owner/name.
func (g *GitHub) AddRepository(fullName string) *Repository {
	g.t.Helper()
	ownerName, name, ok := strings.Cut(fullName, "/")
	if !ok {
		g.t.Fatalf("AddRepository(%q): want owner/name", fullName)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.find(ownerName, name); r != nil && r.FullName() == fullName {
		g.t.Fatalf("AddRepository(%q): there is one already", fullName)
	}
	r := &Repository{
		ID: g.id(), Owner: ownerName, OwnerID: g.owner(ownerName).id, Name: name, DefaultBranch: "main", g: g, private: true,
		secrets: newSecretStore(g.t), environments: map[string]*secretStore{}, files: map[string][]byte{},
	}
	r.Dir = filepath.Join(g.root, fmt.Sprintf("%d.git", r.ID)) // by id, so that a rename moves nothing
	r.git("", "init", "--quiet", "--bare", "--initial-branch=main", r.Dir)
	r.git("", "-C", r.Dir, "config", "http.receivepack", "true")
	g.repositories[r.ID] = r
	r.write("refs/heads/main", "README.md", []byte("# "+name+"\n"))
	return r
}

// Public lets everybody read it.
func (r *Repository) Public() *Repository {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	r.private = false
	return r
}

// WriteFile commits a file to the default branch.
func (r *Repository) WriteFile(path, content string) { r.WriteFileAt(r.DefaultBranch, path, content) }

// WriteFileAt commits a file to a branch, which starts at the default branch if it is new.
func (r *Repository) WriteFileAt(branch, path, content string) {
	r.g.t.Helper()
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	r.write("refs/heads/"+branch, path, []byte(content))
}

func (r *Repository) write(ref, path string, content []byte) {
	r.g.t.Helper()
	from := ""
	for _, base := range []string{ref, "refs/heads/" + r.DefaultBranch} {
		if r.Ref(base) != "" {
			from = "from " + base + "^0\n"
			break
		}
	}
	var in bytes.Buffer
	fmt.Fprintf(&in, "commit %s\ncommitter Octo Cat <octocat@example.org> %d +0000\ndata 6\nupdate\n%sM 100644 inline %s\ndata %d\n", ref, time.Now().Unix(), from, path, len(content))
	in.Write(content)
	in.WriteString("\ndone\n")
	r.git(in.String(), "-C", r.Dir, "fast-import", "--quiet", "--force", "--done")
	r.files = map[string][]byte{}
}

// Ref is the commit of a ref such as refs/heads/main, "" if there is none.
func (r *Repository) Ref(name string) string {
	out, err := r.command("-C", r.Dir, "rev-parse", "--verify", "--quiet", name+"^{commit}").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// command is git without what the caller's machine is configured for.
func (r *Repository) command(args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Env = r.g.gitEnv()
	return cmd
}

func (g *GitHub) gitEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + g.gitHome, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=1",
		"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "LC_ALL=C",
	}
}

func (r *Repository) git(stdin string, args ...string) string {
	r.g.t.Helper()
	cmd := r.command(args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.g.t.Fatalf("git %q: %v: %s", args, err, out)
	}
	return string(out)
}

// Rename gives it another name, or another owner. The old name leads to it until another repository takes it.
func (r *Repository) Rename(fullName string) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	r.renamedFrom = append(r.renamedFrom, strings.ToLower(r.FullName()))
	r.Owner, r.Name, _ = strings.Cut(fullName, "/")
	r.OwnerID = r.g.owner(r.Owner).id
}

// Delete removes it.
func (r *Repository) Delete() {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	delete(r.g.repositories, r.ID)
}

// owner is made when it is first named. The caller holds the lock.
func (g *GitHub) owner(name string) *owner {
	key := strings.ToLower(name)
	if g.owners[key] == nil {
		g.owners[key] = &owner{id: g.id(), name: name, secrets: newSecretStore(g.t)}
	}
	return g.owners[key]
}

// find is the repository of this name, or the one that had it. Names don't depend on case.
func (g *GitHub) find(ownerName, name string) *Repository {
	full := strings.ToLower(ownerName + "/" + name)
	var old *Repository
	for _, r := range g.repositories {
		if strings.ToLower(r.FullName()) == full {
			return r
		}
		for _, former := range r.renamedFrom {
			if former == full {
				old = r
			}
		}
	}
	return old
}

func (g *GitHub) repositoryJSON(r *Repository) map[string]any {
	visibility := "public"
	if r.private {
		visibility = "private"
	}
	return map[string]any{
		"id": r.ID, "name": r.Name, "full_name": r.FullName(), "private": r.private, "visibility": visibility, "default_branch": r.DefaultBranch,
		"owner":     map[string]any{"login": r.Owner, "id": r.OwnerID, "type": "Organization"},
		"clone_url": r.CloneURL(), "html_url": r.g.URL + "/" + r.FullName(), "fork": false, "archived": false,
	}
}

func repositoryEndpoints() []endpoint {
	get := func(c *call) {
		if r := c.repository("metadata", "read"); r != nil {
			c.answer(200, c.g.repositoryJSON(r))
		}
	}
	return []endpoint{
		{"GET /repos/{owner}/{repo}", byToken, "metadata=read", get},
		{"GET /repositories/{id}", byToken, "metadata=read", get},
		{"GET /repos/{owner}/{repo}/contents/{path...}", byToken, "contents=read", (*call).contents},
		{"GET /repos/{owner}/{repo}/commits/{ref...}", byToken, "contents=read", (*call).commit},
	}
}

func (c *call) contents() {
	r := c.repository("contents", "read")
	if r == nil {
		return
	}
	ref := c.r.URL.Query().Get("ref")
	if ref == "" {
		ref = "refs/heads/" + r.DefaultBranch
	}
	path := c.value("path")
	content, ok := r.file(ref, path)
	if !ok {
		c.fail(http.StatusNotFound, "Not Found")
		return
	}
	if strings.Contains(c.r.Header.Get("Accept"), "raw") {
		c.w.Header().Set("Content-Type", "application/vnd.github.raw+json")
		_, _ = c.w.Write(content)
		return
	}
	c.answer(200, map[string]any{
		"type": "file", "encoding": "base64", "size": len(content), "name": filepath.Base(path), "path": path, "sha": r.Blob(ref, path),
		"content": wrapped(base64.StdEncoding.EncodeToString(content)),
	})
}

// wrapped breaks lines as GitHub does in contents.
func wrapped(s string) string {
	var b strings.Builder
	for len(s) > 60 {
		b.WriteString(s[:60] + "\n")
		s = s[60:]
	}
	return b.String() + s + "\n"
}

// file reads through a cache, for those who measure.
func (r *Repository) file(ref, path string) ([]byte, bool) {
	key := ref + ":" + path
	if content, ok := r.files[key]; ok {
		return content, content != nil
	}
	content, err := r.command("-C", r.Dir, "cat-file", "blob", key).Output()
	if err != nil {
		content = nil
	} else if content == nil {
		content = []byte{}
	}
	r.files[key] = content
	return content, content != nil
}

// Blob is the object id of a file.
func (r *Repository) Blob(ref, path string) string {
	key := "blob " + ref + ":" + path
	if id, ok := r.files[key]; ok {
		return string(id)
	}
	out, _ := r.command("-C", r.Dir, "rev-parse", ref+":"+path).Output()
	r.files[key] = bytes.TrimSpace(out)
	return strings.TrimSpace(string(out))
}

func (c *call) commit() {
	r := c.repository("contents", "read")
	if r == nil {
		return
	}
	name := strings.TrimPrefix(c.value("ref"), "heads/")
	key := "commit " + name
	sha, known := r.files[key]
	if !known {
		for _, ref := range []string{"refs/heads/" + name, "refs/tags/" + name, name} {
			if sha = []byte(r.Ref(ref)); len(sha) > 0 {
				break
			}
		}
		r.files[key] = sha
	}
	switch {
	case len(sha) == 0:
		c.fail(http.StatusUnprocessableEntity, "No commit found for SHA: "+name)
	case strings.Contains(c.r.Header.Get("Accept"), "sha"):
		_, _ = c.w.Write(sha)
	default:
		c.answer(200, map[string]any{"sha": string(sha), "commit": map[string]any{"message": "update"}})
	}
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
