//go:build docker

package main

import (
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/secret"
)

// rummage prints all that an agent can read of processes and mounts, and names what must not be there. What is not on a mount is the image's, read-only.
const rummage = `
set +e +o pipefail
env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/task/*/environ 2>/dev/null | tr '\0' '\n'; cat /proc/self/mountinfo
for p in /var/run/docker.sock /run/docker.sock /github /var/run/act /var/lib/agent-sandbox /home/runner; do if [ -e "$p" ]; then echo "FOUND $p"; fi; done
awk '{print $5}' /proc/self/mountinfo | grep -v -e '^/$' -e '^/proc' -e '^/sys' | while read -r m; do find "$m" -xdev -type f -size -1024k -exec cat {} + 2>/dev/null || true; done
find / -xdev -type s 2>/dev/null | sed 's/^/FOUND socket /' || true
echo "the search came to its end"`

// The runner's secrets, by where they are on the runner, and the controls, which are where the agent may look.
func runnerSecrets() (hidden, shown map[string]string) {
	return map[string]string{
		"ACTIONS_RUNTIME_TOKEN": "eyJ0eXAiOiJKV1Qi.runtime-4711-9c8d7b6a5f.c2lnbmF0dXJl", "a variable of the step": "deploy-key-4711-1f2e3d4c5b6a",
		"checkout's file in runner_temp": "ghs_checkout4711ab12cd34ef56ab12cd34ef56ab12", "HOME/.docker/config.json": "registry-4711-0a9b8c7d6e5f",
		"event.json": "payload-4711-5e4d3c2b1a0f", "the files for commands": "command-4711-7a8b9c0d1e2f", "the post step's state": "state-4711-3b4c5d6e7f8a",
	}, map[string]string{
		"a variable": "control-variable-4711-aa00bb11", "a file in base64": "control-base64-4711-cc22dd33ee", "a file in hex": "control-hex-4711-ee44ff55",
	}
}

// Nothing of the runner's own is inside, in whatever spelling, nor in what is left of the run.
func TestActionKeepsTheRunnersSecrets(t *testing.T) {
	hidden, shown := runnerSecrets()
	h := newHosted(t, map[string]string{
		policyFile: "version: 1\nenv: [\"CONTROL=" + shown["a variable"] + "\"]\n",
		"control1": base64.StdEncoding.EncodeToString([]byte("x" + shown["a file in base64"] + "y")), "control2": hex.EncodeToString([]byte(shown["a file in hex"])),
	})
	token := hidden["checkout's file in runner_temp"]
	basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + token))
	writeFile(t, filepath.Join(h.temp, "git-credentials-4711.config"), "[http \"https://github.com/\"]\n\textraheader = AUTHORIZATION: basic "+basic+"\n")
	writeFile(t, filepath.Join(h.temp, "_github_home", ".docker", "config.json"), `{"auths": {"r.example.org": {"auth": "`+hidden["HOME/.docker/config.json"]+`"}}}`)
	writeFile(t, filepath.Join(h.temp, "_github_workflow", "event.json"), `{"repository": {"id": 4711}, "client_payload": "`+hidden["event.json"]+`"}`)
	writeFile(t, filepath.Join(h.temp, "_runner_file_commands", "add_path_4711"), hidden["the files for commands"]+"\n")
	config := filepath.Join(h.dir, ".git", "config") // as checkout v6 does, which keeps the credential out of it
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, config, string(text)+"[includeIf \"gitdir:/github/workspace/.git\"]\n\tpath = /github/runner_temp/git-credentials-4711.config\n")
	h.give()
	for name, value := range map[string]string{
		"ACTIONS_RUNTIME_TOKEN": hidden["ACTIONS_RUNTIME_TOKEN"], "ACTIONS_ID_TOKEN_REQUEST_TOKEN": hidden["ACTIONS_RUNTIME_TOKEN"],
		"ACTIONS_ID_TOKEN_REQUEST_URL": "https://127.0.0.1:1/token?x=1", "DEPLOY_KEY": hidden["a variable of the step"], "STATE_token": hidden["the post step's state"],
	} {
		h.env[name] = value
	}
	s := h.run(map[string]string{"image": testImage(), "command": rummage})
	s.want(true, map[string]string{"outcome": "success"})
	wantLog(t, s.log, "the search came to its end")

	log := withoutMasks(s.log)
	for name, value := range shown {
		if !finds(t, log, value) {
			t.Errorf("%s, which is there, was not found: the search proves nothing", name)
		}
	}
	everything := log + recordOf(t, filepath.Join(h.dir, outputDir))
	for name, value := range hidden {
		if finds(t, everything, value) {
			t.Errorf("%s is inside, or in the record", name)
		}
	}
	for _, word := range []string{"FOUND ", "ACTIONS_RUNTIME", "ACTIONS_ID_TOKEN", "DEPLOY_KEY", "STATE_token", "INPUT_", "GITHUB_OUTPUT=", "docker.sock"} {
		if at := strings.Index(ofAgent(log), word); at >= 0 {
			t.Errorf("inside: %.200q", ofAgent(log)[at:])
		}
	}
}

// finds looks for a secret in all spellings.
func finds(t *testing.T, text, value string) bool {
	t.Helper()
	var set secret.Set
	if !set.Add("it", secret.New(value)) {
		t.Fatalf("%q is no secret to be looked for", value)
	}
	return slices.Contains(set.Find(text), "it")
}

// withoutMasks leaves out the commands with which the runner learns what to mask: it does not show them.
func withoutMasks(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "::add-mask::") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// ofAgent is the agent's part of a log, which is where workflow commands are stopped, without the command line in it.
func ofAgent(log string) string {
	var agents strings.Builder
	for rest := log; ; {
		_, after, found := strings.Cut(rest, "::stop-commands::")
		if !found {
			break
		}
		token, after, _ := strings.Cut(after, "\n")
		var text string
		text, rest, _ = strings.Cut(after, "::"+token+"::")
		agents.WriteString(text)
	}
	text := agents.String()
	for _, line := range strings.Split(rummage, "\n") {
		text = strings.ReplaceAll(text, line, "")
	}
	return text
}

// recordOf is all text of a run's files.
func recordOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(p)
		b.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
