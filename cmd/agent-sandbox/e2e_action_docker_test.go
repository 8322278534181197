//go:build docker

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// The tests of the action run workflows with the real act on the real engine, in the image that the Dockerfile makes.

// actTimeout bounds one workflow.
const actTimeout = 3 * time.Minute

// script runs one of .github/scripts and returns the last line of what it prints.
func script(name string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join("..", "..", ".github", "scripts", name), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

var (
	actProgram  = sync.OnceValues(func() (string, error) { return script("act") })
	actionImage = sync.OnceValues(func() (string, error) {
		if name := os.Getenv("AGENT_SANDBOX_TEST_ACTION"); name != "" {
			return name, nil
		}
		return script("action-image")
	})
)

// workflow is a project with a workflow that uses the action.
type workflow struct {
	t    *testing.T
	dir  string
	name string
}

const workflowHead = `on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
        with: {persist-credentials: false}
`

// newWorkflow makes the project; steps follow the checkout.
func newWorkflow(t *testing.T, steps string, files map[string]string) *workflow {
	t.Helper()
	if os.Getenv("DOCKER_HOST") != "" {
		t.Skip("the image of the action is in the machine's own engine alone")
	}
	image, err := actionImage()
	if err != nil {
		t.Fatal(err)
	}
	action, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	w := &workflow{t: t, dir: t.TempDir(), name: "test-" + strings.ToLower(rand.Text())}
	w.write(".action/action.yml", strings.Replace(string(action), "image: Dockerfile", "image: docker://"+image, 1))
	// act names its containers after the workflow.
	w.write(".github/workflows/test.yml", "name: "+w.name+"\n"+workflowHead+steps)
	w.write(policyFile, "version: 1\n")
	w.write("file.txt", "old\n")
	for name, text := range files {
		w.write(name, text)
	}
	w.git("init", "-q", "-b", "main")
	w.commit()
	return w
}

func (w *workflow) write(name, text string) {
	w.t.Helper()
	name = filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workflow) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "core.hooksPath=/dev/null"}, args...)...)
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (w *workflow) commit() {
	w.t.Helper()
	w.git("add", "-A")
	w.git("commit", "-q", "-m", "state")
}

// act runs the workflow, and returns its log and whether the job succeeded.
func (w *workflow) act(args ...string) (string, bool) {
	w.t.Helper()
	out, err := w.actCommand(args...).CombinedOutput()
	return string(out), err == nil
}

// actCommand is act with these arguments; what does not end is killed, and fails.
func (w *workflow) actCommand(args ...string) *exec.Cmd {
	w.t.Helper()
	program, err := actProgram()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), actTimeout)
	w.t.Cleanup(cancel)
	all := append([]string{"--rm", "-P", "ubuntu-latest=agent-sandbox-base:trixie", "--pull=false"}, args...)
	cmd := exec.CommandContext(ctx, program, all...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+w.t.TempDir(), "XDG_CACHE_HOME="+w.t.TempDir())
	cmd.WaitDelay = 5 * time.Second
	cmd.Cancel = func() error {
		w.t.Errorf("act did not end within %s", actTimeout)
		return cmd.Process.Kill()
	}
	return cmd
}

func wantLog(t *testing.T, log string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(log, s) {
			t.Errorf("the log lacks %q\n%s", s, log)
		}
	}
}

// A step runs a command, forges what it can on the way, and a later step sees the outputs that are true.
func TestActionRunsUnderAct(t *testing.T) {
	for _, mode := range [][]string{nil, {"--bind"}} {
		w := newWorkflow(t, `      - uses: ./.action
        id: agent
        env: {SECRET_OF_STEP: canary-4711}
        with:
          image: `+testImage()+`
          apply: workspace
          command: |
            echo new >file.txt
            echo "::set-output name=outcome::forged"
            echo "::error::forged annotation"
            echo "##[set-output name=exit-code;]forged"
            env | grep -c -e ACTIONS_ -e GITHUB_ -e INPUT_ -e canary-4711 || true
            curl -sS --max-time 5 https://example.org || echo "as it should be"
      - run: |
          echo "outcome=${{ steps.agent.outputs.outcome }} code=${{ steps.agent.outputs.exit-code }} changed=${{ steps.agent.outputs.changed-files }} refused=${{ steps.agent.outputs.refused-connections }}"
          cat file.txt
          head -n 1 "${{ steps.agent.outputs.patch }}"
`, nil)
		log, ok := w.act(append([]string{"push"}, mode...)...)
		if !ok {
			t.Fatalf("%q: the job failed\n%s", mode, log)
		}
		wantLog(t, log, "outcome=success code=0 changed=1 refused=2", "diff --git a/file.txt b/file.txt", "as it should be")
		if strings.Contains(log, "outcome=forged") {
			t.Errorf("%q: the agent forged an output\n%s", mode, log)
		}
	}
}

func TestActionFailsAsConfigured(t *testing.T) {
	step := func(with string) string {
		return "      - uses: ./.action\n        with: {image: \"" + testImage() + "\", " + with + "}\n"
	}
	for _, tt := range []struct {
		with string
		ok   bool
		log  string
	}{
		{`command: "exit 3"`, false, "exit status 3"},
		{`command: "exit 3", fail-on: never`, true, "exit 3"},
		{`command: "curl -s --max-time 5 https://example.org || true", fail-on: "error, refusal"`, false, "fail-on: refusal"},
		{`command: "true", apply: sideways`, false, "is none of none, workspace, commit"},
	} {
		w := newWorkflow(t, step(tt.with), nil)
		log, ok := w.act("push")
		if ok != tt.ok {
			t.Errorf("with %s: succeeded: %v, want %v\n%s", tt.with, ok, tt.ok, log)
		}
		wantLog(t, log, tt.log)
	}
}

// A pull request that edits the policy is governed by the one of its base.
func TestActionPolicyIsOfTheBase(t *testing.T) {
	w := newWorkflow(t, `      - uses: ./.action
        with:
          image: `+testImage()+`
          command: test -z "${WIDENED:-}" && echo "governed by the base"
`, nil)
	base := w.git("rev-parse", "HEAD")
	w.write(policyFile, "version: 1\nenv: [\"WIDENED=yes\"]\n")
	w.commit()
	event := filepath.Join(t.TempDir(), "event.json")
	payload := `{"pull_request": {"number": 1, "base": {"ref": "main", "sha": "` + base + `", "repo": {"id": 1}}, "head": {"ref": "x", "sha": "` + base + `", "repo": {"id": 1}}}}`
	if err := os.WriteFile(event, []byte(payload), 0o644); err != nil {
		t.Fatal(err)
	}
	log, ok := w.act("pull_request", "-e", event)
	if !ok {
		t.Fatalf("the job failed\n%s", log)
	}
	wantLog(t, log, "governed by the base", "the policy is that of the base, commit "+base)
	// The positive control: without a pull request the file that is there counts.
	if log, ok := w.act("push"); ok {
		t.Errorf("the edited policy is not in force for a push\n%s", log)
	}
}

// What a step changes becomes a commit in the checkout, and with push one at the server too, which is git's own (git http-backend) behind tokens that
// were issued for that. What the credential may not push is refused.
func TestActionCommitsAndPushes(t *testing.T) {
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{})
	app := gh.AddApp(map[string]string{"contents": "write", "metadata": "read"})
	server := gh.AddRepository("acme/shop")
	gh.Install(app, "acme", server)
	before := server.Ref("refs/heads/main")
	step := func(id, apply, branch string) string {
		return `      - uses: ./.action
        id: ` + id + `
        continue-on-error: true
        env: {APP_KEY: "${{ secrets.APP_KEY }}"}
        with: {image: "` + testImage() + `", command: "echo ` + id + ` >file.txt", apply: ` + apply + `, branch: ` + branch + `}
`
	}
	w := newWorkflow(t, step("kept", "commit", "agent/kept")+step("pushed", "push", "agent/pushed")+step("refused", "push", "main")+`      - run: |
          echo "kept=${{ steps.kept.outcome }} pushed=${{ steps.pushed.outcome }} refused=${{ steps.refused.outcome }} branch=${{ steps.pushed.outputs.branch }}="
`, map[string]string{policyFile: fmt.Sprintf("version: 1\ncredentials:\n  github: {from: \"github-app:%d\", key: \"env:APP_KEY\", repositories: [self], "+
		"permissions: {contents: write}, push: [\"refs/heads/agent/*\"]}\n", app.ID)})
	w.git("remote", "add", "origin", "https://github.com/acme/shop") // from which act has the repository's name
	t.Setenv("APP_KEY", string(app.PEM()))
	log, ok := w.act("push", "--bind", "-s", "APP_KEY", "--env", "GITHUB_API_URL="+gh.API(), "--env", "GITHUB_SERVER_URL="+gh.URL)
	if !ok {
		t.Fatalf("the job failed\n%s", log)
	}
	wantLog(t, log, "kept=success pushed=success refused=failure branch=agent/pushed=", "does not allow a push of refs/heads/main")
	for dir, branch := range map[string]string{w.dir: "kept", server.Dir: "pushed"} {
		if got := gitAt(t, dir, "show", "agent/"+branch+":file.txt"); got != branch+"\n" {
			t.Errorf("agent/%s has %q\n%s", branch, got, log)
		}
		message := gitAt(t, dir, "log", "-1", "--format=%an%n%b", "agent/"+branch)
		if !strings.Contains(message, "agent-sandbox\n") || !strings.Contains(message, "Agent-Sandbox-Run: ") || !strings.Contains(message, "Agent-Sandbox-Manifest: sha256:") {
			t.Errorf("the commit says %q", message)
		}
	}
	if after := server.Ref("refs/heads/main"); after != before || server.Ref("refs/heads/agent/kept") != "" {
		t.Errorf("at the server main was %s and is %s, agent/kept is %q", before, after, server.Ref("refs/heads/agent/kept"))
	}
	wantRevoked(t, gh, log)
}

func TestActionRefusesStoredCredential(t *testing.T) {
	w := newWorkflow(t, `      - run: |
          printf '[http "https://github.com/"]\n\textraheader = AUTHORIZATION: basic c2VjcmV0\n' >>.git/config
      - uses: ./.action
        with: {image: "`+testImage()+`", command: "cat .git/config"}
`, nil)
	log, ok := w.act("push")
	if ok || strings.Contains(log, "c2VjcmV0") && strings.Contains(log, "The agent's output") {
		t.Errorf("the task ran beside a stored credential\n%s", log)
	}
	wantLog(t, log, "persist-credentials: false")
}
