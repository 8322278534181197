//go:build docker

package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// planned is what these tests read of a plan.
type planned struct {
	Run, Project, Dir string
	Argv              []string
	Agent             struct {
		UID, GID int
	}
	Env []struct{ Name, Value, Source string }
}

// TestRunEnvironment: inside are the variables of the plan and no others, whatever the caller has.
func TestRunEnvironment(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	// The caller has an identity to sign with, by an address that does not exist.
	u.policy("env: [CI, EMPTY, ABSENT, 'FIXED=a b=c']\nevidence: {sign: none}\n")
	u.env = append(u.env, "CI=host's value", "EMPTY=", "GITHUB_TOKEN=secret-of-the-host", "ANTHROPIC_API_KEY=secret-of-the-host",
		"AWS_SECRET_ACCESS_KEY=secret-of-the-host", "DOCKER_CONFIG=/nonexistent", "SSH_AUTH_SOCK=/nonexistent", "LD_PRELOAD=",
		"HTTP_PROXY=http://secret-of-the-host", "ACTIONS_RUNTIME_TOKEN=secret-of-the-host",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN=secret-of-the-host", "ACTIONS_ID_TOKEN_REQUEST_URL=https://secret-of-the-host", "BASH_ENV=/nonexistent")
	r := u.run("--", "env", "-0")
	u.wantCode(r, 0)
	got := strings.Split(strings.TrimSuffix(r.stdout, "\x00"), "\x00")
	sort.Strings(got)

	var plan planned
	readPlan(t, u.log(runs.PlanFile), &plan)
	var want []string
	for _, v := range plan.Env {
		value := v.Value
		if v.Source == "host" {
			if value != "" {
				t.Errorf("the plan tells the host's value of %s", v.Name)
			}
			value = map[string]string{"CI": "host's value", "EMPTY": ""}[v.Name]
		}
		want = append(want, v.Name+"="+value)
	}
	sort.Strings(want)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("the environment is not the plan's (-inside +plan):\n%s", diff)
	}
	for _, must := range []string{"CI=host's value", "EMPTY=", "FIXED=a b=c", "HOME=/home/agent", "USER=agent", "AGENT_SANDBOX=" + plan.Run} {
		if !slices.Contains(got, must) {
			t.Errorf("%q is missing in %q", must, got)
		}
	}
	for _, kv := range got {
		if strings.Contains(kv, "secret-of-the-host") || strings.HasPrefix(kv, "DOCKER_") || strings.HasPrefix(kv, "XDG_") || strings.HasPrefix(kv, "ABSENT") {
			t.Errorf("%q is inside", kv)
		}
	}
	for _, name := range []string{runs.PlanFile, runs.EventsFile, runs.ResultFile} {
		if strings.Contains(u.log(name), "secret-of-the-host") {
			t.Errorf("%s holds a secret", name)
		}
	}
}

func readPlan(t *testing.T, text string, plan *planned) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), plan); err != nil {
		t.Fatalf("plan: %v\n%s", err, text)
	}
}

// TestRunHidden: what is hidden is not there, also where the policy adds to the defaults.
func TestRunHidden(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("workspace: {hide: [private/, '*.key', '!public.key']}\n")
	for _, dir := range []string{"private", "deep/er"} {
		if err := os.MkdirAll(u.project+"/"+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".env", "private/a", "deep/er/b.key", "deep/er/public.key", "deep/er/.env", "seen"} {
		u.write(name, "content-of-"+name, 0o644)
	}
	r := u.sh("cat seen deep/er/public.key; echo; cat .env private/a deep/er/b.key deep/er/.env; find . -type f -size +0 | sort")
	if want := "content-of-seencontent-of-deep/er/public.key\n./.agent-sandbox.yaml\n./deep/er/public.key\n./seen\n"; r.stdout != want {
		t.Errorf("inside is\n%swant\n%s", r.stdout, want)
	}
	for _, name := range []string{".env", "private/a", "deep/er/b.key", "deep/er/.env"} {
		if strings.Contains(r.stderr, "content-of-"+name) {
			t.Errorf("%s can be read", name)
		}
	}
	if s := u.summary(); s.Changes == nil || s.Changes.Total() != 0 {
		t.Errorf("hiding shows as a change: %+v", s.Changes)
	}
}

// TestRunDryRun: what --dry-run prints is what then runs, and it leaves nothing behind.
func TestRunDryRun(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("env: [A=b]\nresources: {memory: 128MiB, pids: 100}\n")
	u.write("file", "content", 0o644)
	argv := []string{"--", "sh", "-c", "id -u; pwd"}
	dry := u.run(append([]string{"--dry-run", "--json"}, argv...)...)
	u.wantCode(dry, 0)
	if list, err := u.runs.List(0); err != nil || len(list) > 0 {
		t.Errorf("the dry run left %v (%v)", list, err)
	}
	var plan planned
	readPlan(t, dry.stdout, &plan)
	u.wantNothingLeft(plan.Run)

	r := u.run(argv...)
	u.wantCode(r, 0)
	if diff := cmp.Diff(sameRun(t, dry.stdout), sameRun(t, u.log(runs.PlanFile))); diff != "" {
		t.Errorf("the run's plan is another (-dry +run):\n%s", diff)
	}
	u.wantOutcome(event.Success, 0)
}

// sameRun decodes a plan and replaces what is the process' own: the run's id, which is in several places, and its
// descriptors.
func sameRun(t *testing.T, text string) map[string]any {
	t.Helper()
	var plan planned
	readPlan(t, text, &plan)
	if plan.Run == "" {
		t.Fatalf("the plan has no id: %s", text)
	}
	var m map[string]any
	text = regexp.MustCompile(`/proc/\d+/fd/\d+`).ReplaceAllString(strings.ReplaceAll(text, plan.Run, "RUN"), "FD")
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestRunSubdirectory: the command runs where the caller stands, also below the project's root.
func TestRunSubdirectory(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("")
	if err := os.MkdirAll(u.project+"/a/b c", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := u.command("run", "--", "sh", "-c", "pwd; ls ../..")
	cmd.Dir = u.project + "/a/b c"
	r := u.finish(cmd)
	u.wantCode(r, 0)
	if r.stdout != "/workspace/a/b c\na\n" {
		t.Errorf("inside: %q", r.stdout)
	}
}

// TestRunNetworkFiles: the files that engines write for a container with a network are there without one, and tell
// nothing of the host.
func TestRunNetworkFiles(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := u.run("--", "cat", "/etc/hostname", "/etc/resolv.conf", "/etc/hosts")
	u.wantCode(r, 0)
	const want = "sandbox\nnameserver 192.0.2.53\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\tsandbox\n"
	if diff := cmp.Diff(r.stdout, want); diff != "" {
		t.Errorf("(-got +want)\n%s", diff)
	}
	r = u.run("--", "sh", "-c", "getent ahostsv4 sandbox >/dev/null && getent ahosts localhost >/dev/null && hostname")
	u.wantCode(r, 0)
	if got := strings.TrimSpace(r.stdout); got != "sandbox" {
		t.Errorf("the sandbox is called %q", got)
	}
}
