//go:build docker

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/runs"
)

// The real agents do a task in the sandbox, with a model of ours: see .github/scripts/agents and runner/runnertest.

// agentsImage has the agents' programs.
func agentsImage() string { return cmp.Or(os.Getenv("AGENTS"), "agent-sandbox-agents:dev") }

// agentCase is an agent with what its model will have it do: mend calc.py, and run a command.
type agentCase struct {
	name, kit string
	variable  string // of the caller, which has the key
	key       string
	inside    string // variable inside
	host      string
	script    func(command string) []runnertest.Call
}

const (
	brokenCalc = "def add(a, b):\n    return a - b\n"
	// agentTask is a trial for every quoting on the way.
	agentTask = `--fix the 'failing' "test" of $(touch /workspace/quoted) ` + "`add`" + ` \n; don't ask`
)

func agentCases() []agentCase {
	const anthropicKey = "sk-ant-api03-test-KEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYAA"
	return []agentCase{
		{
			name: "claude", kit: "claude", variable: "ANTHROPIC_API_KEY", key: anthropicKey, inside: "ANTHROPIC_API_KEY", host: "api.anthropic.com",
			script: func(command string) []runnertest.Call {
				return []runnertest.Call{
					{Tool: "Read", Input: map[string]any{"file_path": "/workspace/calc.py"}},
					{Tool: "Edit", Input: map[string]any{"file_path": "/workspace/calc.py", "old_string": "a - b", "new_string": "a + b"}},
					{Tool: "Bash", Input: map[string]any{"command": command, "description": "check"}},
				}
			},
		},
		{
			name: "claude_signed_in", kit: "claude", variable: "CLAUDE_CODE_OAUTH_TOKEN", key: "sk-ant-oat01-test-" + strings.Repeat("KEY", 30) + "AA",
			inside: "CLAUDE_CODE_OAUTH_TOKEN", host: "api.anthropic.com",
			script: func(command string) []runnertest.Call {
				return []runnertest.Call{{Tool: "Bash", Input: map[string]any{"command": "sed -i 's/a - b/a + b/' calc.py && " + command, "description": "mend and check"}}}
			},
		},
		{
			name: "codex", kit: "codex", variable: "OPENAI_API_KEY", key: "sk-proj-test-KEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEY", inside: "OPENAI_API_KEY", host: "api.openai.com",
			script: func(command string) []runnertest.Call {
				patch := "*** Begin Patch\n*** Update File: calc.py\n@@\n def add(a, b):\n-    return a - b\n+    return a + b\n*** End Patch\n"
				return []runnertest.Call{
					{Tool: "exec", Text: fmt.Sprintf("text(await tools.apply_patch(%s))", jsonText(patch))},
					{Tool: "exec", Text: fmt.Sprintf("text((await tools.exec_command({cmd: %s})).output)", jsonText(command))},
				}
			},
		},
		{
			name: "gemini", kit: "gemini", variable: "GEMINI_API_KEY", key: "AIzaSyTESTKEYKEYKEYKEYKEYKEYKEYKEYKEYKE", inside: "GEMINI_API_KEY", host: "generativelanguage.googleapis.com",
			script: func(command string) []runnertest.Call {
				return []runnertest.Call{
					{Tool: "replace", Input: map[string]any{"file_path": "/workspace/calc.py", "instruction": "mend it", "old_string": "a - b", "new_string": "a + b"}},
					{Tool: "run_shell_command", Input: map[string]any{"command": command, "description": "check"}},
				}
			},
		},
		{
			name: "opencode", kit: "opencode", variable: "ANTHROPIC_API_KEY", key: anthropicKey, inside: "ANTHROPIC_API_KEY", host: "api.anthropic.com",
			script: opencodeScript,
		},
		{
			name: "opencode_gemini", kit: "opencode", variable: "GEMINI_API_KEY", key: "AIzaSyTESTKEYKEYKEYKEYKEYKEYKEYKEYKEYKE", inside: "GOOGLE_GENERATIVE_AI_API_KEY",
			host: "generativelanguage.googleapis.com", script: opencodeScript,
		},
		{
			name: "opencode_openrouter", kit: "opencode", variable: "OPENROUTER_API_KEY", key: "sk-or-v1-" + strings.Repeat("0123456789abcdef", 4), inside: "OPENROUTER_API_KEY",
			host: "openrouter.ai", script: opencodeScript,
		},
		{
			name: "opencode_openai", kit: "opencode", variable: "OPENAI_API_KEY", key: "sk-proj-test-KEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKEY", inside: "OPENAI_API_KEY", host: "api.openai.com",
			script: opencodeScript,
		},
	}
}

func opencodeScript(command string) []runnertest.Call {
	return []runnertest.Call{
		{Tool: "read", Input: map[string]any{"filePath": "/workspace/calc.py"}},
		{Tool: "bash", Input: map[string]any{"command": "sed -i 's/a - b/a + b/' calc.py && " + command, "description": "mend and check"}},
	}
}

// jsonText is a string as JSON and JavaScript have it.
func jsonText(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestAgents: the real programs, started by nothing but their kit's name, mend a file. Their requests carry the key that only the runner has.
func TestAgents(t *testing.T) {
	needAgentsImage(t)
	for _, c := range agentCases() {
		t.Run(c.name, func(t *testing.T) { c.mends(t) })
	}
}

// needAgentsImage skips the test where the image is not built. `make test` builds it, or says why not.
func needAgentsImage(t *testing.T) {
	t.Helper()
	if os.Getenv("DOCKER_HOST") != "" {
		t.Skip("the image of the agents is in the machine's own engine alone")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := dockerOfDefault(ctx, "image", "inspect", "--format", "{{.Id}}", agentsImage()).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: the real agents are not tested, since there is no image %s: .github/scripts/agents builds it\n%s", agentsImage(), out)
	}
}

func (c agentCase) mends(t *testing.T) {
	// Claude Code keeps some variables from what it starts: its own environment has them.
	command := strings.ReplaceAll(`python3 -B -c 'import calc; print(calc.add(2, 3))' >proof.txt;
		{ printenv NAME || tr '\0' '\n' </proc/$PPID/environ | sed -n 's/^NAME=//p'; } >seen.txt`, "NAME", c.inside)
	model := &runnertest.Model{Key: c.key, Script: c.script(command), Last: "The test passes now."}
	u, args := c.userOf(t, model)
	r := u.finish(u.command(append(args, "--agent", c.kit, "--", agentTask)...))
	u.wantCode(r, 0)
	if !strings.Contains(r.stdout, model.Last) {
		t.Errorf("stdout %q has no %q\nstderr: %s", r.stdout, model.Last, r.stderr)
	}
	diff := u.finish(u.command("diff", "last"))
	for _, want := range []string{"+    return a + b", "proof.txt", "+5\n"} {
		if !strings.Contains(diff.stdout, want) {
			t.Errorf("the diff has no %q:\n%s", want, diff.stdout)
		}
	}
	if strings.Contains(diff.stdout, "quoted") {
		t.Errorf("a shell has read the task:\n%s", diff.stdout)
	}
	c.checkRequests(t, model, placeholderIn(t, diff.stdout))
	c.checkRecord(u)
}

// userOf is somebody who has the key, and a policy that names the agent and leads its host to the model.
func (c agentCase) userOf(t *testing.T, model *runnertest.Model) (*user, []string) {
	t.Helper()
	cert, ca := certificateFor(t, c.host)
	_, port, err := net.SplitHostPort(model.Start(t, cert))
	if err != nil {
		t.Fatal(err)
	}
	u := newUser(t)
	u.env = append(u.env, c.variable+"="+c.key)
	u.write("calc.py", brokenCalc, 0o644)
	u.policy(fmt.Sprintf("agent: %s\nnetwork: {allow: [{host: %s, port: 443, to: \"127.0.0.1:%s\"}]}\n", c.kit, c.host, port))
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	return u, []string{"run", "--image", agentsImage(), "--ca-file", caFile}
}

// certificateFor makes a certificate for a host, and the authority that signed it.
func certificateFor(t *testing.T, host string) (tls.Certificate, []byte) {
	t.Helper()
	caKey, key := newKey(t), newKey(t)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the model's authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	ca := certificate(t, authority, authority, &caKey.PublicKey, caKey)
	leaf := certificate(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}, authority, &key.PublicKey, caKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(leaf, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return cert, ca
}

// placeholderIn finds what the agent's command saw as the key.
func placeholderIn(t *testing.T, diff string) string {
	t.Helper()
	_, rest, ok := strings.Cut(diff, "+++ b/seen.txt\n")
	_, rest, found := strings.Cut(rest, "\n+")
	line, _, _ := strings.Cut(rest, "\n")
	if !ok || !found || len(line) < 20 {
		t.Fatalf("the agent has no placeholder:\n%s", diff)
	}
	return line
}

func (c agentCase) checkRequests(t *testing.T, model *runnertest.Model, placeholder string) {
	t.Helper()
	if placeholder == c.key || len(placeholder) != len(c.key) {
		t.Errorf("inside the key is %q", placeholder)
	}
	requests := model.Requests()
	if len(requests) <= len(model.Script) {
		t.Fatalf("%d requests, want more than %d", len(requests), len(model.Script))
	}
	told := false
	for _, r := range requests {
		if r.Credential != c.key {
			t.Errorf("%s %s came with the credential %q", r.Method, r.Path, r.Credential)
		}
		if strings.Contains(fmt.Sprint(r.Header)+r.Body, placeholder) {
			t.Errorf("%s %s has the placeholder", r.Method, r.Path)
		}
		told = told || holdsText(r.Body, agentTask)
	}
	if !told {
		t.Errorf("no request has the task as it was given: %q", agentTask)
	}
}

// holdsText tells whether a string somewhere in the JSON contains the text.
func holdsText(body, text string) bool {
	var v any
	if json.Unmarshal([]byte(body), &v) != nil {
		return false
	}
	var holds func(v any) bool
	holds = func(v any) bool {
		switch v := v.(type) {
		case string:
			return strings.Contains(v, text)
		case []any:
			for _, item := range v {
				if holds(item) {
					return true
				}
			}
		case map[string]any:
			for _, item := range v {
				if holds(item) {
					return true
				}
			}
		}
		return false
	}
	return holds(v)
}

// checkRecord looks at what is kept: the kit, one host, and nowhere the key.
func (c agentCase) checkRecord(u *user) {
	u.t.Helper()
	s := u.wantOutcome(event.Success, 0)
	if s.Start.Kit != c.kit {
		u.t.Errorf("recorded with the kit %q, want %s", s.Start.Kit, c.kit)
	}
	if len(s.Hosts) != 1 || s.Hosts[0].Host != c.host {
		u.t.Errorf("the record has the hosts %+v, want %s alone", s.Hosts, c.host)
	}
	if len(s.Refused) > 0 {
		u.t.Errorf("the agent tried other hosts: %+v", s.Refused)
	}
	var plan struct {
		Kit *struct {
			Name, Credential string
			Added            bool `json:"credential_added"`
		}
	}
	if err := json.Unmarshal([]byte(u.log(runs.PlanFile)), &plan); err != nil {
		u.t.Fatal(err)
	}
	if plan.Kit == nil || plan.Kit.Name != c.kit || plan.Kit.Credential == "" || !plan.Kit.Added {
		u.t.Errorf("the plan has the kit %+v", plan.Kit)
	}
	if shown := u.finish(u.command("show", "last")); !strings.Contains(shown.stdout, "agent       "+c.kit+" ") {
		u.t.Errorf("show has no agent:\n%s", shown.stdout)
	}
	for _, file := range []string{runs.PlanFile, runs.EventsFile} {
		if strings.Contains(u.log(file), c.key) {
			u.t.Errorf("the key is in %s", file)
		}
	}
}

// TestAgentOnTerminal: a conversation with an agent on a terminal, which asks nothing first. It follows the terminal's size, and Ctrl-C
// stops what it does, and at last the agent.
func TestAgentOnTerminal(t *testing.T) {
	needAgentsImage(t)
	c := agentCases()[0]
	model := &runnertest.Model{Key: c.key, Script: c.script("sleep 1000"), Last: "unreached"}
	u, args := c.userOf(t, model)
	tm := u.terminal(append([]string{"run", "-t"}, args[1:]...)...)
	tm.shows("permissions") // below the place for a task
	tm.types("mend")
	tm.shows("mend")
	tm.types("\r")
	tm.shows("calc.py", "sleep")
	tm.resize(30, 100)
	tm.shows(strings.Repeat("─", 100))
	tm.types(ctrlC)
	tm.shows("Interrupted")
	tm.types(ctrlC)
	tm.shows("again")
	tm.types(ctrlC)
	tm.wantCode(0)
	if diff := u.finish(u.command("diff", "last")); !strings.Contains(diff.stdout, "+    return a + b") {
		t.Errorf("the diff is\n%s", diff.stdout)
	}
	if n := len(model.Requests()); n < len(model.Script) {
		t.Errorf("%d requests came to the model", n)
	}
	c.checkRecord(u)
}

// TestAgentWithAnotherKey: the model answers nobody without the key, so that the tests above can't pass with what is inside. The record says what
// the agent's exit status means.
func TestAgentWithAnotherKey(t *testing.T) {
	needAgentsImage(t)
	c := agentCases()[0]
	model := &runnertest.Model{Key: "sk-ant-another", Script: c.script("true"), Last: "unreached"}
	u, args := c.userOf(t, model)
	r := u.finish(u.command(append(args, "mend it")...))
	u.wantCode(r, 1)
	s := u.wantOutcome(event.Failure, 1)
	if want := "claude ended with 1: the task failed, or the API refused"; s.Reason != want || s.Changes != nil && s.Changes.Added+s.Changes.Modified > 0 {
		t.Errorf("recorded: %q, %+v; want %q", s.Reason, s.Changes, want)
	}
}

// TestAgentNotInImage: what is missing is said before anything else, and how to get it.
func TestAgentNotInImage(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.env = append(u.env, "ANTHROPIC_API_KEY=sk-ant-api03-test-KEYKEYKEYKEYKEYKEYKEYKEY")
	u.policy("image: " + testImage() + "\n")
	r := u.run("--agent", "claude", "mend it")
	u.wantCode(r, 125)
	for _, want := range []string{"the agent claude is not in the image", "hint: `image: {from: REFERENCE, agents: [claude]}`"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("stderr has no %q: %s", want, r.stderr)
		}
	}
	u.wantOutcome(event.Refused, 125)
}
