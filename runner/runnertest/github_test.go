package runnertest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v60/github"
	"golang.org/x/crypto/nacl/box"
)

func appJWT(t *testing.T, a *App, iat, exp time.Time) string {
	t.Helper()
	input := part(map[string]any{"alg": "RS256", "typ": "JWT"}) + "." + part(map[string]any{"iss": fmt.Sprint(a.ID), "iat": iat.Unix(), "exp": exp.Unix()})
	sum := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(rand.Reader, a.Key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func client(t *testing.T, g *GitHub, token string) *github.Client {
	t.Helper()
	c := github.NewClient(g.Client())
	if token != "" {
		c = c.WithAuthToken(token)
	}
	c, err := c.WithEnterpriseURLs(g.URL, g.URL)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// world is a GitHub with an App that is installed at acme for one of two repositories.
func world(t *testing.T) (*GitHub, *App, *Installation, *Repository, *Repository) {
	g := NewGitHub(t, GitHubConfig{TLS: true})
	shop, other := g.AddRepository("acme/shop"), g.AddRepository("acme/other")
	app := g.AddApp(map[string]string{"contents": "write", "pull_requests": "write", "metadata": "read", "secrets": "write", "environments": "write"})
	return g, app, g.Install(app, "acme", shop), shop, other
}

func mint(t *testing.T, g *GitHub, a *App, i *Installation, opts *github.InstallationTokenOptions) *github.InstallationToken {
	t.Helper()
	c := client(t, g, appJWT(t, a, g.Now().Add(-time.Minute), g.Now().Add(9*time.Minute)))
	tok, _, err := c.Apps.CreateInstallationToken(t.Context(), i.ID, opts)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// status is that of a go-github error, 0 for none.
func status(t *testing.T, err error) int {
	t.Helper()
	var answer *github.ErrorResponse
	switch {
	case err == nil:
		return 0
	case errors.As(err, &answer):
		return answer.Response.StatusCode
	}
	t.Fatalf("no answer of GitHub: %v", err)
	return 0
}

func TestGitHubAppJWT(t *testing.T) {
	g, app, _, _, _ := world(t)
	stranger := &App{ID: app.ID, Key: g.AddApp(nil).Key}
	for _, tt := range []struct {
		name string
		jwt  string
		want int
	}{
		{"good", appJWT(t, app, g.Now().Add(-time.Minute), g.Now().Add(9*time.Minute)), 0},
		{"iat in the future", appJWT(t, app, g.Now().Add(time.Minute), g.Now().Add(9*time.Minute)), 401},
		{"too long", appJWT(t, app, g.Now().Add(-time.Minute), g.Now().Add(11*time.Minute)), 401},
		{"expired", appJWT(t, app, g.Now().Add(-time.Hour), g.Now().Add(-time.Minute)), 401},
		{"another key", appJWT(t, stranger, g.Now().Add(-time.Minute), g.Now().Add(9*time.Minute)), 401},
		{"no JWT", "ghp_x", 401},
	} {
		_, _, err := client(t, g, tt.jwt).Apps.Get(t.Context(), "")
		if got := status(t, err); got != tt.want {
			t.Errorf("%s: status %d (%v), want %d", tt.name, got, err, tt.want)
		}
	}
}

func TestGitHubInstallationTokens(t *testing.T) {
	g, app, inst, shop, other := world(t)
	c := client(t, g, appJWT(t, app, g.Now().Add(-time.Minute), g.Now().Add(9*time.Minute)))
	found, _, err := c.Apps.FindRepositoryInstallation(t.Context(), "acme", "shop")
	if err != nil || found.GetID() != inst.ID {
		t.Fatalf("installation %v, %v, want %d", found, err, inst.ID)
	}
	_, _, err = c.Apps.FindRepositoryInstallation(t.Context(), "acme", "other")
	if got := status(t, err); got != 404 {
		t.Errorf("the installation of a repository that it has not: %d, want 404", got)
	}
	for _, opts := range []*github.InstallationTokenOptions{
		{RepositoryIDs: []int64{other.ID}},
		{Permissions: &github.InstallationPermissions{Administration: github.String("write")}},
		{RepositoryIDs: make([]int64, 501)},
	} {
		_, _, err = c.Apps.CreateInstallationToken(t.Context(), inst.ID, opts)
		if got := status(t, err); got != 422 {
			t.Errorf("%v: status %d, want 422", opts, got)
		}
	}

	tok := mint(t, g, app, inst, &github.InstallationTokenOptions{RepositoryIDs: []int64{shop.ID}, Permissions: &github.InstallationPermissions{Contents: github.String("read")}})
	if len(tok.Repositories) != 1 || tok.Repositories[0].GetID() != shop.ID || tok.Permissions.GetContents() != "read" || tok.Permissions.PullRequests != nil {
		t.Errorf("token %+v", tok)
	}
	if n := len(tok.GetToken()); n < 450 || n > 560 || !strings.HasPrefix(tok.GetToken(), fmt.Sprintf("ghs_%d_", app.ID)) {
		t.Errorf("a token of %d bytes: %s", n, tok.GetToken())
	}
	if all := mint(t, g, app, inst, nil); all.Permissions.GetSecrets() != "write" {
		t.Errorf("a request that leaves everything out gets %+v, want all", all.Permissions)
	}
}

func TestGitHubTokenLife(t *testing.T) {
	g, app, inst, shop, _ := world(t)
	opts := &github.InstallationTokenOptions{RepositoryIDs: []int64{shop.ID}, Permissions: &github.InstallationPermissions{Contents: github.String("write")}}
	old, revoked := client(t, g, mint(t, g, app, inst, opts).GetToken()), client(t, g, mint(t, g, app, inst, opts).GetToken())
	list := func(c *github.Client) error {
		_, _, err := c.Apps.ListRepos(t.Context(), nil)
		return err
	}
	if err := list(old); err != nil {
		t.Fatal(err)
	}
	if _, err := revoked.Apps.RevokeInstallationToken(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := status(t, list(revoked)); got != 401 {
		t.Errorf("a revoked token: %d, want 401", got)
	}
	if got := len(g.Live()); got != 1 {
		t.Errorf("%d tokens live, want 1", got)
	}
	g.Advance(time.Hour)
	if got := status(t, list(old)); got != 401 {
		t.Errorf("an expired token: %d, want 401", got)
	}
}

func TestGitHubPermissions(t *testing.T) {
	g, app, inst, shop, _ := world(t)
	shop.WriteFile(".github/agent-sandbox/trust/ci.yaml", "issuer: x\n")
	c := client(t, g, mint(t, g, app, inst, &github.InstallationTokenOptions{
		RepositoryIDs: []int64{shop.ID}, Permissions: &github.InstallationPermissions{Contents: github.String("read")},
	}).GetToken())
	file, _, answer, err := c.Repositories.GetContents(t.Context(), "acme", "shop", ".github/agent-sandbox/trust/ci.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := file.GetContent(); text != "issuer: x\n" {
		t.Errorf("content %q", text)
	}
	if got := answer.Header.Get("X-Accepted-GitHub-Permissions"); got != "contents=read" {
		t.Errorf("X-Accepted-GitHub-Permissions %q", got)
	}
	if got := answer.Rate.Limit; got != 5000 {
		t.Errorf("rate limit %d", got)
	}
	_, _, err = c.Repositories.Get(t.Context(), "acme", "other")
	if got := status(t, err); got != 404 {
		t.Errorf("another repository: %d, want 404", got)
	}
	_, _, err = c.PullRequests.Create(t.Context(), "acme", "shop", &github.NewPullRequest{Title: github.String("x"), Head: github.String("x"), Base: github.String("main")})
	if got := status(t, err); got != 403 {
		t.Errorf("beyond the permissions: %d, want 403", got)
	}
	_, _, err = c.Gists.Get(t.Context(), "1")
	if got := status(t, err); got != 501 {
		t.Errorf("what it doesn't know: %d, want 501", got)
	}
}

func TestGitHubSecrets(t *testing.T) {
	g, app, inst, shop, _ := world(t)
	shop.AddEnvironment("production")
	c := client(t, g, mint(t, g, app, inst, nil).GetToken())
	key, _, err := c.Actions.GetRepoPublicKey(t.Context(), "acme", "shop")
	if err != nil {
		t.Fatal(err)
	}
	put := func(key *github.PublicKey, set func(context.Context, *github.EncryptedSecret) (*github.Response, error)) error {
		raw, err := base64.StdEncoding.DecodeString(key.GetKey())
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := box.SealAnonymous(nil, []byte("hush"), (*[32]byte)(raw), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		_, err = set(t.Context(), &github.EncryptedSecret{Name: "KEY", KeyID: key.GetKeyID(), EncryptedValue: base64.StdEncoding.EncodeToString(sealed)})
		return err
	}
	if err := put(key, func(ctx context.Context, s *github.EncryptedSecret) (*github.Response, error) {
		return c.Actions.CreateOrUpdateRepoSecret(ctx, "acme", "shop", s)
	}); err != nil {
		t.Fatal(err)
	}
	if got, _ := shop.Secret("KEY"); got != "hush" {
		t.Errorf("the secret is %q", got)
	}
	g.Advance(30 * time.Minute)
	s, _, err := c.Actions.GetRepoSecret(t.Context(), "acme", "shop", "KEY")
	if age := g.Now().Sub(s.UpdatedAt.Time).Round(time.Minute); err != nil || age != 30*time.Minute {
		t.Errorf("age %v, %v", age, err)
	}
	intoEnvironment := func(ctx context.Context, s *github.EncryptedSecret) (*github.Response, error) {
		return c.Actions.CreateOrUpdateEnvSecret(ctx, int(shop.ID), "production", s)
	}
	if got := status(t, put(key, intoEnvironment)); got != 422 {
		t.Errorf("sealed for another key: %d, want 422", got)
	}
	key, _, err = c.Actions.GetEnvPublicKey(t.Context(), int(shop.ID), "production")
	if err == nil {
		err = put(key, intoEnvironment)
	}
	if got, _ := shop.EnvironmentSecret("production", "KEY"); err != nil || got != "hush" {
		t.Errorf("the environment's secret is %q, %v", got, err)
	}
}

func TestGitHubRename(t *testing.T) {
	g := NewGitHub(t, GitHubConfig{})
	old := g.AddRepository("acme/shop").Public()
	old.Rename("acme/store")
	get := func() int64 {
		r, _, err := client(t, g, "").Repositories.Get(t.Context(), "acme", "shop")
		if err != nil {
			t.Fatal(err)
		}
		return r.GetID()
	}
	if got := get(); got != old.ID {
		t.Errorf("the old name leads to %d, want %d", got, old.ID)
	}
	taken := g.AddRepository("acme/shop").Public()
	if got := get(); got != taken.ID || taken.ID == old.ID {
		t.Errorf("the name leads to %d, want the new repository %d", got, taken.ID)
	}
}

func TestGitHubFaults(t *testing.T) {
	g, app, inst, _, _ := world(t)
	jwt := appJWT(t, app, g.Now().Add(-time.Minute), g.Now().Add(9*time.Minute))
	g.Inject(Fault{Method: "POST", Path: "/app/installations", Status: 502, Times: 1})
	g.Inject(Fault{Method: "POST", Path: "/app/installations", Drop: true, Times: 1})
	_, _, err := client(t, g, jwt).Apps.CreateInstallationToken(t.Context(), inst.ID, nil)
	if got := status(t, err); got != 502 {
		t.Errorf("status %d, want 502", got)
	}
	if _, _, err = client(t, g, jwt).Apps.CreateInstallationToken(t.Context(), inst.ID, nil); err == nil || len(g.Live()) != 1 {
		t.Errorf("a dropped answer: %v, %d tokens, want an error and a token that nobody has", err, len(g.Live()))
	}
	if _, _, err = client(t, g, jwt).Apps.CreateInstallationToken(t.Context(), inst.ID, nil); err != nil {
		t.Errorf("after the faults: %v", err)
	}
	if got := g.Seen("POST", "/app/installations"); got != 3 {
		t.Errorf("%d requests were seen, want 3", got)
	}
}

func TestGitHubGit(t *testing.T) {
	g, app, inst, shop, _ := world(t)
	write := mint(t, g, app, inst, &github.InstallationTokenOptions{RepositoryIDs: []int64{shop.ID}, Permissions: &github.InstallationPermissions{Contents: github.String("write")}}).GetToken()
	read := mint(t, g, app, inst, &github.InstallationTokenOptions{RepositoryIDs: []int64{shop.ID}, Permissions: &github.InstallationPermissions{Contents: github.String("read")}}).GetToken()
	dir := t.TempDir()
	git := func(token string, args ...string) error {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "http.sslVerify=false", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "http.postBuffer=65536"}, args...)...)
		auth := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + token))
		cmd.Env = append(g.gitEnv(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: Basic "+auth)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("git %v: %w: %s", args, err, out)
		}
		return nil
	}
	if err := git(read, "clone", "--quiet", shop.CloneURL(), dir+"/shop"); err != nil {
		t.Fatal(err)
	}
	// Larger than postBuffer, so that git sends it in chunks.
	big := make([]byte, 1<<20)
	_, _ = rand.Read(big)
	if err := os.WriteFile(filepath.Join(dir, "shop", "big"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", "big"}, {"commit", "--quiet", "-m", "big"}} {
		if err := git(read, append([]string{"-C", dir + "/shop"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := git(read, "-C", dir+"/shop", "push", "--quiet", "origin", "HEAD:refs/heads/agent/1"); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a push with contents: read: %v, want 403", err)
	}
	if err := git(write, "-C", dir+"/shop", "push", "--quiet", "origin", "HEAD:refs/heads/agent/1"); err != nil {
		t.Fatal(err)
	}
	if shop.Ref("refs/heads/agent/1") == "" {
		t.Error("the push did not arrive")
	}
	g.Advance(time.Hour)
	if err := git(read, "-C", dir+"/shop", "fetch", "--quiet"); err == nil {
		t.Error("an expired token fetches")
	}
	if err := git(write, "clone", "--quiet", g.URL+"/acme/other.git", dir+"/other"); err == nil {
		t.Error("another repository is cloned")
	}
}

func TestGitHubHost(t *testing.T) {
	g := NewGitHub(t, GitHubConfig{})
	g.AddRepository("acme/shop").Public()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL+"/repos/acme/shop", nil)
	req.Host = "api.github.com"
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != 200 {
		t.Errorf("the API at the root of api.github.com: %d, want 200", res.StatusCode)
	}
}
