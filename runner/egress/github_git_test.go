package egress

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// gitHub is a fake GitHub that programs of the host reach through a gateway.
type gitHub struct {
	*runnertest.GitHub
	s          *sandbox
	work, url  string
	ca         string
	shop, more *runnertest.Repository
}

func newGitHub(t *testing.T, push ...string) *gitHub {
	needs(t, "git")
	p := newPKI(t)
	cert := p.issue("git.example", time.Now().Add(time.Hour))
	gh := &gitHub{GitHub: runnertest.NewGitHub(t, runnertest.GitHubConfig{Certificate: &cert}), work: t.TempDir()}
	gh.shop, gh.more = gh.AddRepository("acme/shop"), gh.AddRepository("acme/other")
	gh.shop.WriteFile("README.md", "hello\n")
	gh.more.WriteFile("README.md", "other\n")
	gh.AddToken(runnertest.Token{Text: realToken, Permissions: map[string]string{"contents": "write"}})
	_, port, _ := strings.Cut(gh.Addr(), ":")
	var number int
	fmt.Sscan(port, &number)
	c := token(t, "git.example")
	c.Scheme, c.Username, c.GitHub = Basic, "x-access-token", shopScope(push...)
	gh.s = newSandboxWith(t, Config{
		Policy: mustPolicy(t, "  allow: [{host: git.example, port: %d, private: true}]\n", number), CAs: [][]byte{p.pem}, Credentials: []Credential{c},
	}, map[string][]string{"git.example": {"127.0.0.1"}})
	gh.s.bridge("git.example", number)
	gh.url, gh.ca = fmt.Sprintf("https://git.example:%d/", number), filepath.Join(t.TempDir(), "ca.pem")
	t.Setenv("GIT_SSL_CAINFO", gh.ca)
	if err := os.WriteFile(gh.ca, gh.s.g.Authority(), 0o600); err != nil {
		t.Fatal(err)
	}
	return gh
}

func (gh *gitHub) git(dir string, args ...string) (string, error) {
	port := strings.Trim(gh.url[strings.LastIndex(gh.url, ":"):], ":/")
	cmd := gitCommand(dir, append([]string{"-c", "http.curloptResolve=git.example:" + port + ":127.0.0.2"}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestGitThroughTheGateway is git itself, with git behind the fake GitHub: clone, fetch and push where they are allowed, and what it
// says where they are not. What is refused never leaves.
func TestGitThroughTheGateway(t *testing.T) {
	gh := newGitHub(t, "refs/heads/agent/*")
	work := filepath.Join(gh.work, "shop")
	must := func(dir string, args ...string) {
		t.Helper()
		if out, err := gh.git(dir, args...); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		before := len(gh.Requests())
		out, err := gh.git(work, args...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("git %q: %v\n%s\nwant %q", args, err, out, want)
		}
		for _, r := range gh.Requests()[before:] {
			if strings.HasSuffix(r.Path, receivePack) && r.Method == "POST" || strings.Contains(r.Path, "other") {
				t.Errorf("git %q: %s %s got out", args, r.Method, r.Path)
			}
		}
	}
	must(gh.work, "clone", "-q", gh.url+"acme/shop.git", work)
	must(work, "commit", "-q", "--allow-empty", "-m", "second")
	must(work, "push", "origin", "HEAD:agent/one")
	if head := strings.TrimSpace(git(t, work, "rev-parse", "HEAD")); gh.shop.Ref("refs/heads/agent/one") != head {
		t.Errorf("the push did not arrive: %q, want %q", gh.shop.Ref("refs/heads/agent/one"), head)
	}
	must(work, "commit", "-q", "--amend", "--allow-empty", "-m", "another")
	must(work, "push", "-f", "origin", "HEAD:agent/one")
	must(work, "fetch", "-q", "origin")
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // more than http.postBuffer even if it were not chunked
	cmd := exec.Command("openssl", "rand", "3000000")
	if random, err := cmd.Output(); err == nil {
		big = random
	}
	if err := os.WriteFile(filepath.Join(work, "big"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	must(work, "add", "big")
	must(work, "commit", "-q", "-m", "big")
	must(work, "push", "origin", "HEAD:agent/big")
	refused(`remote: agent-sandbox: "refs/heads/main" may not be pushed; allowed: refs/heads/agent/*`, "push", "origin", "HEAD:main")
	refused(`"refs/heads/main" may not be pushed`, "push", "origin", "HEAD:agent/two", "HEAD:main")
	refused(`"refs/heads/main" may not be pushed`, "push", "origin", ":main")
	refused("another repository", "ls-remote", gh.url+"acme/other.git")
	refused("another repository", "push", gh.url+"acme/other.git", "HEAD:agent/one")
	must(work, "push", "origin", ":agent/one")
	if gh.shop.Ref("refs/heads/agent/two") != "" || gh.shop.Ref("refs/heads/agent/one") != "" {
		t.Error("a ref is there that should not be")
	}
}

// TestGitWithoutPush: without `push:` git is told before it has made a pack.
func TestGitWithoutPush(t *testing.T) {
	gh := newGitHub(t)
	work := filepath.Join(gh.work, "shop")
	if out, err := gh.git(gh.work, "clone", "-q", gh.url+"acme/shop.git", work); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := gh.git(work, "push", "origin", "HEAD:agent/one")
	if err == nil || !strings.Contains(out, "remote: agent-sandbox: the policy allows no push") {
		t.Errorf("%v\n%s", err, out)
	}
}
