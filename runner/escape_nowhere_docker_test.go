//go:build docker

package runner

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/runs"
)

// atApp is a sandbox with tokens that GitHub issues to an App for acme/shop, with these permissions and further keys of the policy.
func atApp(t *testing.T, permissions, more string) (*runnertest.GitHub, *runnertest.Repository, setup) {
	t.Helper()
	w := newWorld(t)
	cert := w.certify(t)
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{Certificate: &cert})
	w.secure = gh.Addr()
	shop := gh.AddRepository("acme/shop")
	shop.WriteFile("README.md", "shop\n")
	app := gh.AddApp(map[string]string{"contents": "write", "issues": "write", "metadata": "read"})
	gh.Install(app, "acme", shop)
	gh.Install(app, "globex", gh.AddRepository("globex/lib"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.authority)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, gh.Addr())
		},
	}}
	t.Cleanup(client.CloseIdleConnections)
	s := setup{
		world: w, env: map[string]string{"ESCAPE_APP": string(app.PEM())}, credentials: CredentialSources{HTTP: client},
		policy: fmt.Sprintf(`
credentials:
  github:
    from: "github-app:%d"
    key: "env:ESCAPE_APP"
    repositories: [acme/shop]
    permissions: %s
%s`, app.ID, permissions, more),
	}
	return gh, shop, s
}

// mayPush are permissions, with the refs that they are for.
const mayPush = "{contents: write, issues: write}\n    push: [\"refs/heads/agent/*\"]"

// heldPush works as the agent of gitHubWork does, and is in the middle of a push while it is searched. What is planted is put together from
// the arguments, so that the whole of it is nowhere but where it is planted.
const heldPush = `
planted=$1$2
printf %s "$planted" >/tmp/planted; printf %s "$planted" | base64 -w 0 >/workspace/planted.base64
PLANTED=$planted sleep 1000 & sleeper=$!
cd /tmp && export GIT_TERMINAL_PROMPT=0 && git config --global user.name t && git config --global user.email t@example.org
api() { curl -sS --fail-with-body -X "$1" "https://api.github.com$2" ${3:+-d "$3"}; }
set -e
git clone -q https://github.com/acme/shop.git shop; cd shop; git commit -q --allow-empty -m work
git push -q origin HEAD:agent/one; git fetch -q origin
api POST /repos/acme/shop/issues '{"title":"t"}' >/dev/null
cp -r . /workspace/shop
git push -q origin HEAD:agent/held & pushed=$!
wait $pushed
echo all of it worked
kill $sleeper
read -r _ || true`

// nowhere is a run whose sandbox was searched while the agent was in the middle of a push.
type nowhere struct {
	traces
	inspected, image string // what the engine shows of the container, and of its image with all layers
	token            string
	box              *box
	gitHub           *runnertest.GitHub
	client           *http.Client
}

// The halves of what is planted.
const plantedHalf, plantedOther = "planted-0aXbYcZd", "1eWfVgUh-planted"

// searchedPush makes one, and waits for its end.
func (l *lab) searchedPush(t *testing.T) *nowhere {
	t.Helper()
	const push = "/acme/shop.git/git-receive-pack"
	gh, shop, s := atApp(t, mayPush, "")
	n := &nowhere{gitHub: gh, client: s.credentials.HTTP}
	hold, held := make(chan struct{}), make(chan struct{})
	gh.Inject(runnertest.Fault{Method: "POST", Path: push, Skip: 1, Hold: hold, Held: sync.OnceFunc(func() { close(held) })})
	started := make(chan string, 1)
	s.handler = func(e event.Envelope) error {
		if _, ok := e.Data.(event.AgentStarted); ok {
			started <- e.Run
		}
		return nil
	}
	more, input := io.Pipe()
	s.stdin = more
	searched := make(chan error, 1)
	go func() {
		defer input.Close()
		defer close(hold)
		err := seen(t.Context(), func() bool { return isClosed(held) })
		if err == nil {
			err = n.search(t, l, <-started)
		}
		searched <- err
	}()
	n.box = l.start(t, s, []string{"bash", "-c", heldPush, "agent", plantedHalf, plantedOther}, nil)
	err, b := <-searched, n.box
	if err != nil || b.err != nil || b.result.ExitCode != 0 || !strings.Contains(string(b.stdout), "all of it worked\n") {
		t.Fatalf("exit %d, %v, %v\n%s%s", b.result.ExitCode, b.err, err, b.stdout, b.stderr)
	}
	if shop.Ref("refs/heads/agent/one") == "" || shop.Ref("refs/heads/agent/held") == "" {
		t.Error("the pushes did not arrive")
	}
	return n
}

// search looks through the sandbox of a run and what the engine has of it.
func (n *nowhere) search(t *testing.T, l *lab, run string) (err error) {
	t.Helper()
	n.token = n.gitHub.Live()[0].Text
	texts := spelled("token", ownPart(n.token))
	for name, text := range spelled("planted", plantedHalf+plantedOther) {
		texts[name] = text
	}
	n.inspected, n.image = inspectRun(t, run), docker(t, "history", "--no-trunc", l.image)+docker(t, "image", "inspect", l.image)
	n.traces, err = l.searchTraces(t, run, texts)
	return err
}

// TestEscapeNowhere: while the agent works at GitHub, its token is in no process and no file of the sandbox, nor in anything that the engine
// or the run's record has, in whatever spelling. A text that was planted there is found by the same search.
func TestEscapeNowhere(t *testing.T) {
	l := testLab(t)
	n := l.searchedPush(t)
	t.Logf("searched %d processes with %d bytes, and %d files with %d bytes", len(n.Processes), n.memory(), n.Files, n.FileBytes)
	for _, name := range []string{"guest", "git-remote-http", "bash"} {
		if !slices.ContainsFunc(n.Processes, func(p searchedProcess) bool { return strings.HasPrefix(p.Name, name) && p.Memory > 100<<10 }) {
			t.Errorf("the process %s was not searched: %v", name, n.Processes)
		}
	}
	isFile := func(where string) bool { return strings.HasPrefix(where, "/") }
	isMemory := func(where string) bool { return strings.HasPrefix(where, "memory ") }
	const outside = "it is attached outside"
	l.entry(t, "credentials", "a token in the memory of any process", outside, n.notIn(isMemory, "memory bash", "memory sleep"))
	l.entry(t, "credentials", "a token in the environment or arguments of any process", outside,
		n.notIn(func(where string) bool { return !isFile(where) }, "environ sleep"))
	l.entry(t, "credentials", "a token in any file, also of the image", outside, n.notIn(isFile, "/tmp/planted", "/workspace/planted.base64"))
	l.entry(t, "credentials", "a token in what the engine has, of the container and of the image", outside, func(t *testing.T, _ func(string)) {
		wantNone(t, "docker inspect", n.inspected, n.token, n.box.result.Run)
		wantNone(t, "the image's layers", n.image, n.token, "agent-sandbox")
	})
	l.entry(t, "credentials", "a token in logs, events, plan, change set and manifest", outside, n.notInRecord)
	l.entry(t, "credentials", "use after the end", "every token is revoked, and that is tried", func(t *testing.T, _ func(string)) {
		n.notUsable(t)
		gh, _, s := atApp(t, mayPush, "")
		s.seam.unrevoked = true
		off := l.start(t, s, []string{"true"}, nil)
		if live := gh.Live(); off.err != nil || len(live) != 1 || (&nowhere{client: s.credentials.HTTP}).use(t, live[0].Text) != http.StatusOK {
			t.Errorf("without the protection (%v) %d tokens live, or they are not taken: the entry proves nothing", off.err, len(live))
		}
	})
}

// notIn is an entry: the token is in none of the places, and what was planted in some of them is found.
func (n *nowhere) notIn(where func(string) bool, planted ...string) func(*testing.T, func(string)) {
	return func(t *testing.T, _ func(string)) {
		for _, hit := range n.Found {
			if strings.HasPrefix(hit.Text, "token ") && where(hit.Where) {
				t.Errorf("the %s is in %s", hit.Text, hit.Where)
			}
		}
		for _, place := range planted {
			if !slices.ContainsFunc(n.Found, func(h trace) bool { return h.Where == place && strings.HasPrefix(h.Text, "planted ") }) {
				t.Errorf("what was planted in %s is not found: the entry proves nothing; found: %v", place, n.Found)
			}
		}
	}
}

func (n *nowhere) notInRecord(t *testing.T, _ func(string)) {
	record := readAll(t, n.box.result.Dir)
	for _, name := range []string{runs.EventsFile, runs.PlanFile, runs.StdoutFile, runs.StderrFile, runs.PatchFile, runs.ManifestFile} {
		if _, there := record[name]; !there {
			t.Errorf("there is no %s to be searched", name)
		}
	}
	var whole strings.Builder
	for _, text := range record {
		whole.WriteString(text)
	}
	wantNone(t, "the record", whole.String()+string(n.box.stdout)+string(n.box.stderr), n.token, n.box.result.Run)
	for _, text := range spelled("planted", plantedHalf+plantedOther) {
		if strings.Contains(whole.String(), text) {
			return // the change set has the planted file
		}
	}
	t.Error("what was planted in the project is not found: the entry proves nothing")
}

func (n *nowhere) notUsable(t *testing.T) {
	t.Helper()
	n.gitHub.AddToken(runnertest.Token{Text: gitHubToken, Permissions: map[string]string{"issues": "read"}})
	if after, control := n.use(t, n.token), n.use(t, gitHubToken); after != http.StatusUnauthorized || control != http.StatusOK {
		t.Errorf("the token is answered with %d, one that is good with %d", after, control)
	}
	c := n.box.result.Summary.Credentials[0]
	if c.Revoked != event.RevocationVerified || c.Used == nil || c.Used.Permissions["issues"] != "write" || c.Granted == nil || c.Requested == nil {
		t.Errorf("the record is %+v", c)
	}
}

// use is how GitHub answers a request with the token.
func (n *nowhere) use(t *testing.T, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.github.com/repos/acme/shop/issues", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := n.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// wantNone searches a text for a token, and for something that is there.
func wantNone(t *testing.T, where, text, token, control string) {
	t.Helper()
	for name, spelling := range spelled("token", ownPart(token)) {
		if strings.Contains(text, spelling) {
			t.Errorf("the %s is in %s", name, where)
		}
	}
	switch {
	case strings.Contains(text, "[redacted:"):
		t.Errorf("the token was in %s, and was taken out", where)
	case !strings.Contains(text, control):
		t.Errorf("%s was not searched: it lacks %q", where, control)
	}
}

// readAll are the files of a run.
func readAll(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		all[filepath.Base(path)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
