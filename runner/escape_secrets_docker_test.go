//go:build docker

package runner

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// ransack prints all that an agent can read of processes and of what the sandbox was given, and the files that it finds.
const ransack = `
env; cat /proc/*/environ /proc/*/cmdline /proc/*/task/*/environ /run/agent-sandbox/* /workspace/*/.git/config 2>/dev/null
find / -xdev \( -path /proc -o -path /sys \) -prune -o -type f -newermt '-1 hour' -size -1024k -print0 2>/dev/null | xargs -0 -r cat 2>/dev/null
cat`

// spellings are what a secret looks like in a log.
func spellings(secret string) []string {
	all := []string{secret}
	for _, before := range []string{"", "x", "xx"} {
		encoded := base64.StdEncoding.EncodeToString([]byte(before + secret))
		all = append(all, encoded[4:len(encoded)-4])
	}
	return all
}

func holds(text, secret string) bool {
	for _, s := range spellings(secret) {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// TestEscapeSecrets: a credential that is attached outside is nowhere inside, nor in what is left of the run.
func TestEscapeSecrets(t *testing.T) {
	l := testLab(t)
	env := map[string]string{"ESCAPE_TOKEN": modelSecret, "ESCAPE_BOT": botSecret}
	for _, name := range jobVariables() {
		env[name] = jobSecret
	}
	held := l.ransacked(t, setup{policy: allowedPolicy, world: newWorld(t), env: env})
	// The same secrets are found in all these places: they are ordinary variables of the agent's, in a policy that nobody has read, and one
	// is its container's.
	open := l.ransacked(t, setup{
		policy: "env: [ESCAPE_PLAIN]\n", prepare: storeCredential,
		env: map[string]string{"ESCAPE_PLAIN": modelSecret, "ACTIONS_RUNTIME_TOKEN": jobSecret},
		edit: func(p *policy.Policy) {
			p.Env = append(p.Env, policy.EnvVar{Name: "ACTIONS_RUNTIME_TOKEN", FromHost: true})
		},
		seam: seam{unchecked: true, container: engine.Weakened{Guest: l.weak, GuestEnv: []string{"ESCAPE_TOKEN=" + modelSecret}}},
	})
	for _, e := range []struct {
		attack, by   string
		held, opened string
		control      string // in what was searched
	}{
		{"a credential in the environment, arguments and files of all processes", "a placeholder is inside", held.inside, open.inside, "ESCAPE_TOKEN="},
		{"a credential in policy.json", "it has no secrets", held.policy, open.inside, `"ESCAPE_TOKEN"`},
		{"a credential in the run's record", "what is attached is not recorded", held.record, open.record, "ESCAPE_TOKEN"},
	} {
		l.entry(t, "credentials", e.attack, e.by, func(t *testing.T, _ func(string)) {
			switch {
			case holds(e.held, modelSecret), holds(e.held, botSecret):
				t.Error("the secret is there")
			case strings.Contains(e.held, "[redacted:"):
				t.Error("the secret was there, and was taken out of the output")
			case !strings.Contains(e.held, e.control):
				t.Errorf("the search did not come to %s: the entry proves nothing", e.control)
			case !holds(e.opened, modelSecret):
				t.Error("a secret that is there is not found: the entry proves nothing")
			}
		})
	}
	l.entry(t, "credentials", "ACTIONS_RUNTIME_TOKEN and the id-token variables", "a variable of the runner's gets inside by its name alone, and these never", func(t *testing.T, _ func(string)) {
		if holds(held.inside, jobSecret) || !strings.Contains(held.inside, "ESCAPE_TOKEN=") {
			t.Error("the job's token is inside, or the search proves nothing")
		}
		if !holds(open.inside, jobSecret) {
			t.Error("where the policy may name it, it is not inside either: the entry proves nothing")
		}
		for _, name := range jobVariables() {
			if _, err := policy.Load("policy.yaml", []byte("version: 1\nenv: ["+name+"]\n")); err == nil {
				t.Errorf("a policy may pass %s on", name)
			}
		}
	})
	l.entry(t, "credentials", "a credential in docker inspect", "a container has no variables of the agent's", func(t *testing.T, skip func(string)) {
		if held.inspected == "" {
			skip("there is no docker command")
		}
		switch {
		case holds(held.inspected, modelSecret), holds(held.inspected, botSecret):
			t.Error("the secret is there")
		case !strings.Contains(held.inspected, held.run):
			t.Errorf("it is another container: %s", held.inspected)
		}
		if !holds(open.inspected, modelSecret) {
			t.Error("a container that has it as a variable does not show it: the entry proves nothing")
		}
	})
	l.entry(t, "credentials", "the credential that a checkout stored", "the action refuses such a project", func(t *testing.T, _ func(string)) {
		if err := actions.CheckCheckout(held.project); err != nil {
			t.Errorf("the positive control, a project without: %v", err)
		}
		if err := actions.CheckCheckout(open.project); err == nil || !strings.Contains(err.Error(), "beside/.git/config") {
			t.Errorf("a project with it: %v", err)
		}
		if strings.Contains(held.inside, storedCredential) || !strings.Contains(open.inside, storedCredential) {
			t.Error("the agent does not read it where nobody refuses the project: the entry proves nothing")
		}
	})
}

// storedCredential is what actions/checkout leaves for git.
const storedCredential = "AUTHORIZATION: basic eC1hY2Nlc3MtdG9rZW46Z2hzX3N0b3JlZA=="

// storeCredential leaves it as a checkout does whose path is beside.
func storeCredential(t *testing.T, project string) {
	t.Helper()
	git(t, project, "init", "-q", "beside")
	git(t, filepath.Join(project, "beside"), "config", "http.https://github.com/.extraheader", storedCredential)
}

// jobSecret is what the variables of jobVariables have, which tokens of a whole job are in.
const jobSecret = "job.0123456789-of-the-whole-job-0123456789"

func jobVariables() []string {
	return []string{"ACTIONS_RUNTIME_TOKEN", "ACTIONS_RUNTIME_URL", "ACTIONS_RESULTS_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"}
}

// found is what a search has come to.
type found struct{ run, project, inside, policy, record, inspected string }

// ransacked searches a sandbox from inside, and the engine meanwhile, and afterwards what is left.
func (l *lab) ransacked(t *testing.T, s setup) found {
	t.Helper()
	more, input := io.Pipe()
	s.stdin = more
	var f found
	s.handler = func(e event.Envelope) error {
		if _, ok := e.Data.(event.AgentStarted); ok {
			f.run = e.Run
			f.inspected = inspectRun(t, e.Run)
			return input.Close()
		}
		return nil
	}
	b := l.start(t, s, []string{"sh", "-c", ransack}, nil)
	_ = input.Close()
	if b.err != nil || b.result.ExitCode != 0 {
		t.Fatalf("exit %d, %v\n%s", b.result.ExitCode, b.err, b.stderr)
	}
	f.inside, f.project = string(b.stdout), b.project
	if at := strings.Index(f.inside, `"version": 1`); at >= 0 {
		f.policy = f.inside[at:min(len(f.inside), at+32<<10)]
	}
	err := filepath.WalkDir(b.result.Dir, func(path string, d fs.DirEntry, err error) error {
		// Standard output is the agent's own word, and has all that was found inside.
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		f.record += string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// inspectRun shows the container of a run; empty if there is no docker command.
func inspectRun(t *testing.T, run string) string {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		return ""
	}
	return docker(t, "inspect", docker(t, "ps", "--all", "--quiet", "--filter", "label=agent-sandbox="+run))
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", args...).Output()
	if err != nil {
		t.Errorf("docker %q: %v", args, err)
	}
	return string(bytes.TrimSpace(out))
}
