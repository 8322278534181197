package runner

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/workspace"
)

func loaded(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte("version: 1\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestEnvironment: the later wins, a name keeps its place, and the host's variables get in by name alone.
func TestEnvironment(t *testing.T) {
	host := map[string]string{"CI": "true", "TOKEN": "secret", "PATH": "/host", "EMPTY": ""}
	r, _ := newRun(t, Config{LookupEnv: func(name string) (string, bool) {
		v, ok := host[name]
		return v, ok
	}})
	r.cfg.Policy = loaded(t, "env: [CI, EMPTY, ABSENT, 'LANG=de=DE', 'HOME=/elsewhere']\n")
	r.image.Env = []string{"PATH=/image", "LANG=C", "NOVALUE", "USER=of-the-image", "PATH=/image/again"}
	p := &Plan{Agent: Identity{User: "agent", Home: "/home/agent"}}
	if err := r.environment(p); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"PATH=/image/again", "LANG=de=DE", "NOVALUE=", "USER=agent", "HOME=/elsewhere", "LOGNAME=agent",
		"AGENT_SANDBOX=" + r.id, "EMAIL=agent@sandbox.invalid", "GIT_CONFIG_COUNT=2",
		"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=/workspace",
		"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=/workspace/*",
		"CI=true", "EMPTY=", "AGENT_SANDBOX_POLICY=/run/agent-sandbox/policy.json",
	}
	if diff := cmp.Diff(p.environ(), want); diff != "" {
		t.Errorf("the environment is another (-got +want):\n%s", diff)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), `"true"`) {
		t.Errorf("the plan tells a value of the host's: %s", text)
	}
	i := slices.IndexFunc(p.Env, func(v Variable) bool { return v.Name == "CI" })
	if v := p.Env[i]; v.Source != "host" || v.Value != "" {
		t.Errorf("CI is planned as %+v", v)
	}
}

// TestEnvironmentTerminal: TERM is the caller's, where there is a terminal.
func TestEnvironmentTerminal(t *testing.T) {
	r, _ := newRun(t, Config{Term: "xterm-256color"})
	for _, tty := range []bool{false, true} {
		p := &Plan{TTY: tty}
		if err := r.environment(p); err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(p.environ(), "TERM=xterm-256color"); got != tty {
			t.Errorf("tty %t: the environment is %q", tty, p.environ())
		}
	}
}

// TestVolumes: what an image wants kept apart is memory, unless the plan has something there.
func TestVolumes(t *testing.T) {
	p := loaded(t, "mounts: [{source: ./x, target: /mounted}]\nresources: {tmp: 8MiB}\n")
	img := engine.Image{Volumes: []string{"/data/", "/tmp", "/workspace", "/home/agent", "/mounted", "relative", "/dev/shm"}}
	got := volumes(img, p, workspace.IDs{UID: 1, GID: 2})
	want := []engine.Tmpfs{{Target: "/data", Size: 8 << 20, Mode: "0755", UID: 1, GID: 2, Exec: true}}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("another list (-got +want):\n%s", diff)
	}
}
