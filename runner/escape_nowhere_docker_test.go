//go:build docker

package runner

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestEscapeNowhere: while the agent works at GitHub, its token is in no process and no file of the sandbox, nor in anything that the engine
// or the run's record has, in whatever spelling. A text that was planted there is found by the same search.
func TestEscapeNowhere(t *testing.T) {
	l := testLab(t)
	gh, shop, s := atApp(t, mayPush, "")
	hold, held := make(chan struct{}), make(chan struct{})
	gh.Inject(runnertest.Fault{Method: "POST", Path: "/acme/shop.git/git-receive-pack", Skip: 1, Hold: hold, Held: sync.OnceFunc(func() { close(held) })})
	const half, other = "planted-0aXbYcZd", "1eWfVgUh-planted"
	started := make(chan string, 1)
	s.handler = func(e event.Envelope) error {
		if _, ok := e.Data.(event.AgentStarted); ok {
			started <- e.Run
		}
		return nil
	}
	more, input := io.Pipe()
	s.stdin = more
	type searched struct {
		traces
		inspected, image string
		token            string
		err              error
	}
	during := make(chan searched, 1)
	go func() {
		defer input.Close()
		defer close(hold)
		var s searched
		if s.err = seen(t.Context(), func() bool { return isClosed(held) }); s.err == nil {
			run := <-started
			s.token = gh.Live()[0].Text
			texts := spelled("token", ownPart(s.token))
			for name, text := range spelled("planted", half+other) {
				texts[name] = text
			}
			s.inspected, s.image = inspectRun(t, run), docker(t, "history", "--no-trunc", l.image)+docker(t, "image", "inspect", l.image)
			s.traces, s.err = l.searchTraces(t, run, texts)
		}
		during <- s
	}()
	b := l.start(t, s, []string{"bash", "-c", heldPush, "agent", half, other}, nil)
	got := <-during
	if got.err != nil || b.err != nil || b.result.ExitCode != 0 || !strings.Contains(string(b.stdout), "all of it worked\n") {
		t.Fatalf("exit %d, %v, %v\n%s%s", b.result.ExitCode, b.err, got.err, b.stdout, b.stderr)
	}
	if shop.Ref("refs/heads/agent/one") == "" || shop.Ref("refs/heads/agent/held") == "" {
		t.Error("the pushes did not arrive")
	}
	t.Logf("searched %d processes with %d bytes, and %d files with %d bytes", len(got.Processes), got.memory(), got.Files, got.FileBytes)

	inside := func(where func(string) bool, control ...string) func(*testing.T, func(string)) {
		return func(t *testing.T, _ func(string)) {
			for _, hit := range got.Found {
				if strings.HasPrefix(hit.Text, "token ") && where(hit.Where) {
					t.Errorf("the %s is in %s", hit.Text, hit.Where)
				}
			}
			for _, c := range control {
				if !slices.ContainsFunc(got.Found, func(h trace) bool { return h.Where == c && strings.HasPrefix(h.Text, "planted ") }) {
					t.Errorf("what was planted in %s is not found: the entry proves nothing; found: %v", c, got.Found)
				}
			}
		}
	}
	isFile := func(where string) bool { return strings.HasPrefix(where, "/") }
	l.entry(t, "credentials", "a token in the memory of any process", "it is attached outside", inside(func(w string) bool { return strings.HasPrefix(w, "memory ") }, "memory bash", "memory sleep"))
	l.entry(t, "credentials", "a token in the environment or arguments of any process", "it is attached outside", inside(func(w string) bool { return !isFile(w) }, "environ sleep"))
	l.entry(t, "credentials", "a token in any file, also of the image", "it is attached outside", inside(isFile, "/tmp/planted", "/workspace/planted.base64"))
	for _, name := range []string{"guest", "git-remote-http", "bash"} {
		if !slices.ContainsFunc(got.Processes, func(p searchedProcess) bool { return strings.HasPrefix(p.Name, name) && p.Memory > 100<<10 }) {
			t.Errorf("the process %s was not searched: %v", name, got.Processes)
		}
	}
	l.entry(t, "credentials", "a token in what the engine has, of the container and of the image", "it is attached outside", func(t *testing.T, _ func(string)) {
		wantNone(t, "docker inspect", got.inspected, got.token, b.result.Run)
		wantNone(t, "the image's layers", got.image, got.token, "agent-sandbox")
	})
	l.entry(t, "credentials", "a token in logs, events, plan, change set and manifest", "it is attached outside", func(t *testing.T, _ func(string)) {
		record := readAll(t, b.result.Dir)
		for _, name := range []string{runs.EventsFile, runs.PlanFile, runs.StdoutFile, runs.StderrFile, runs.PatchFile, runs.ManifestFile} {
			if _, there := record[name]; !there {
				t.Errorf("there is no %s to be searched", name)
			}
		}
		var whole strings.Builder
		for _, text := range record {
			whole.WriteString(text)
		}
		wantNone(t, "the record", whole.String()+string(b.stdout)+string(b.stderr), got.token, b.result.Run)
		for name := range spelled("planted", half+other) {
			if strings.Contains(whole.String(), spelled("planted", half+other)[name]) {
				return // the change set has the planted file
			}
		}
		t.Error("what was planted in the project is not found: the entry proves nothing")
	})
	l.entry(t, "credentials", "use after the end", "every token is revoked, and that is tried", func(t *testing.T, _ func(string)) {
		use := func(text string) int {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.github.com/repos/acme/shop/issues", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+text)
			resp, err := s.credentials.HTTP.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			return resp.StatusCode
		}
		gh.AddToken(runnertest.Token{Text: gitHubToken, Permissions: map[string]string{"issues": "read"}})
		if after, control := use(got.token), use(gitHubToken); after != http.StatusUnauthorized || control != http.StatusOK {
			t.Errorf("the token is answered with %d, one that is good with %d", after, control)
		}
		c := b.result.Summary.Credentials[0]
		if c.Revoked != event.RevocationVerified || c.Used == nil || c.Used.Permissions["issues"] != "write" || c.Granted == nil || c.Requested == nil {
			t.Errorf("the record is %+v", c)
		}
	})
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

// ownPart is the part of a token that is nobody else's: all JWTs of one algorithm begin alike.
func ownPart(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	return rest
}

// spelled are the spellings of a secret, cut into pieces that overlap, so that a secret which is split is found too.
func spelled(name, secret string) map[string]string {
	reversed := []byte(secret)
	slices.Reverse(reversed)
	whole := map[string]string{
		"text": secret, "text backwards": string(reversed),
		"hex": hex.EncodeToString([]byte(secret)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
	}
	for before := range 3 {
		// The first and the last four characters have a part of what stands around.
		encoded := []byte(strings.Repeat(".", before) + secret)
		whole[fmt.Sprintf("base64 at %d", before)] = inner(base64.RawStdEncoding.EncodeToString(encoded))
		whole[fmt.Sprintf("base64url at %d", before)] = inner(base64.RawURLEncoding.EncodeToString(encoded))
	}
	for form, format := range map[string]string{"URL": "%%%02X", "url": "%%%02x", "JSON": `\u%04x`, "C": `\x%02x`} {
		var b strings.Builder
		for _, c := range []byte(secret) {
			fmt.Fprintf(&b, format, c)
		}
		whole[form] = b.String()
	}
	const piece, step = 16, 8
	pieces := map[string]string{}
	for form, text := range whole {
		for at := 0; at+piece <= len(text); at += step {
			pieces[fmt.Sprintf("%s %s, from %d", name, form, at)] = text[at : at+piece]
		}
	}
	return pieces
}

func inner(encoded string) string { return encoded[4 : len(encoded)-4] }

// traces is tracesearch's report; see there.
type traces struct {
	Processes []searchedProcess `json:"processes"`
	Files     int               `json:"files"`
	FileBytes int64             `json:"file_bytes"`
	Found     []trace           `json:"found"`
}

type searchedProcess struct {
	PID    int
	Name   string
	Memory int64
}

type trace struct{ Where, Text string }

func (t traces) memory() (n int64) {
	for _, p := range t.Processes {
		n += p.Memory
	}
	return n
}

// searchTraces looks for the texts in all that a running sandbox has.
func (l *lab) searchTraces(t *testing.T, run string, texts map[string]string) (traces, error) {
	t.Helper()
	encoded := map[string][]byte{}
	for name, text := range texts {
		encoded[name] = []byte(text)
	}
	request, err := json.Marshal(map[string]any{"texts": encoded})
	if err != nil {
		return traces{}, err
	}
	id := docker(t, "ps", "--quiet", "--filter", "label=agent-sandbox="+run)
	cmd := exec.CommandContext(t.Context(), "docker", "run", "--rm", "--interactive", "--network", "none", "--pid", "container:"+id, "--user", "0",
		"--cap-add", "SYS_PTRACE", "--security-opt", "apparmor=unconfined", "--volume", l.traces+":/tracesearch:ro", "--entrypoint", "/tracesearch", l.image)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), &stderr
	out, err := cmd.Output()
	if err != nil {
		return traces{}, fmt.Errorf("tracesearch: %w\n%s", err, stderr.Bytes())
	}
	var found traces
	return found, json.Unmarshal(out, &found)
}

// seen waits until something has happened at a server.
func seen(ctx context.Context, happened func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, boxTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for what should be seen: %w", ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
