//go:build docker

package runner

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// TestDeliver: a secret that the policy wants inside is there, for the agent alone, and nowhere in what the run says or leaves; that the assurance is lower
// is in the plan, the events and the manifest.
func TestDeliver(t *testing.T) {
	l := testLab(t)
	const one, two = "inside-0123456789abcdefghij", "document-0123456789abcdefghij"
	s := setup{
		env: map[string]string{"ONE": one, "TWO": "[default]\nkey = " + two},
		policy: `
credentials:
  one: {from: "env:ONE", deliver: env, env: INSIDE}
  two: {from: "env:TWO", deliver: file, env: INSIDE_FILE}
`,
		stdin: strings.NewReader(""),
	}
	started := make(chan string, 1)
	s.handler = func(e event.Envelope) error {
		if _, ok := e.Data.(event.AgentStarted); ok {
			started <- inspectRun(t, e.Run)
		}
		return nil
	}
	b := l.start(t, s, []string{"sh", "-c", `
printf %s "$INSIDE" | sha256sum; sha256sum <"$INSIDE_FILE"; stat -c '%a %u' "$INSIDE_FILE"; id -u; stat -f -c %T "$INSIDE_FILE"; echo "$INSIDE_FILE"
echo "$INSIDE"; cat "$INSIDE_FILE"; cp "$INSIDE_FILE" /workspace/kept`}, nil)
	if b.err != nil || b.result.ExitCode != 0 {
		t.Fatalf("exit %d, %v\n%s", b.result.ExitCode, b.err, b.stderr)
	}
	lines := strings.Split(string(b.stdout), "\n")
	want := []string{digest(one), digest("[default]\nkey = " + two), "400 ", "", "tmpfs", "/run/credentials/two", "[redacted:one]"}
	for i, w := range want {
		if i >= len(lines) || !strings.HasPrefix(lines[i], w) {
			t.Fatalf("line %d is not %q:\n%s", i, w, b.stdout)
		}
	}
	if lines[2] != "400 "+lines[3] {
		t.Errorf("mode and owner are %q, the agent is %s", lines[2], lines[3])
	}
	record := readAll(t, b.result.Dir)
	// The file that the agent has made is the agent's, and is left as it is, with a warning.
	for _, name := range []string{runs.PlanFile, runs.EventsFile, runs.StdoutFile, runs.StderrFile, runs.ResultFile, runs.ManifestFile} {
		if text, there := record[name]; !there || strings.Contains(text, one) || strings.Contains(text, two) {
			t.Errorf("%s has a secret, or is not there (%v)", name, there)
		}
	}
	if inspected := <-started; strings.Contains(inspected, one) || strings.Contains(inspected, two) || !strings.Contains(inspected, b.result.Run) {
		t.Error("docker inspect shows a secret, or another container")
	}
	for _, file := range []string{runs.PlanFile, runs.EventsFile} {
		for _, c := range []string{"one: the policy says deliver: env", "two: the policy says deliver: file"} {
			if !strings.Contains(record[file], c) {
				t.Errorf("%s lacks %q", file, c)
			}
		}
	}
	sum := b.result.Summary
	delivered, changed := sum.Credentials[0].Deliver+" "+sum.Credentials[1].Deliver, false
	for _, r := range sum.Redacted {
		changed = changed || r.Where == event.RedactedChanges && r.Credential == "two"
	}
	if delivered != "env file" || len(sum.Lowered) < 2 || !changed {
		t.Errorf("delivered %q, lowered %v, redacted %v", delivered, sum.Lowered, sum.Redacted)
	}
}

func digest(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
