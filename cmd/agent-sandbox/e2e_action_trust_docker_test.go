//go:build docker

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A pull request from a fork gets the base's policy, none of its credentials, and what the log says to do about that works: another policy, also
// the base's, in which there are none.
func TestActionOfAFork(t *testing.T) {
	step := func(id, with string) string {
		return `      - uses: ./.action
        id: ` + id + `
        continue-on-error: true
        env: {MODEL_KEY: canary-4711}
        with: {image: "` + testImage() + `"` + with + `, command: "echo running as ` + id + `; cat .agent-sandbox.yaml; env | grep -c canary || true"}
`
	}
	w := newWorkflow(t, step("trusted", "")+step("careful", ", policy: ci/fork.yaml")+`      - run: echo "trusted=${{ steps.trusted.outcome }} careful=${{ steps.careful.outputs.outcome }}"
`, map[string]string{
		policyFile:     "version: 1\ncredentials:\n  anthropic: {from: \"env:MODEL_KEY\"}\n",
		"ci/fork.yaml": "version: 1\n",
	})
	base := w.git("rev-parse", "HEAD")
	w.write(policyFile, "version: 1\n# without credentials, says the fork\n")
	w.write("ci/fork.yaml", "version: 1\nenv: [\"MODEL_KEY\"]\n")
	w.commit()
	event := filepath.Join(t.TempDir(), "event.json")
	payload := `{"pull_request": {"number": 1, "base": {"ref": "main", "sha": "` + base + `", "repo": {"id": 1}}, "head": {"ref": "x", "sha": "` + base + `", "repo": {"id": 2}}}}`
	if err := os.WriteFile(event, []byte(payload), 0o644); err != nil {
		t.Fatal(err)
	}
	log, ok := w.act("pull_request", "-e", event)
	if !ok {
		t.Fatalf("the job failed\n%s", log)
	}
	wantLog(t, log, "trusted=failure careful=success", "a pull request from a fork", "naming a file without credentials", "running as careful", "says the fork")
	if strings.Contains(log, "| running as trusted") || strings.Contains(log, "| canary-4711") {
		t.Errorf("a fork ran under a policy with credentials, or saw one\n%s", log)
	}
}
