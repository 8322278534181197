//go:build docker

package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
)

// TestRunRedacts: a secret that the caller puts on the command line is in nothing that the run says or leaves, whatever form it has.
// That another text of the same kind is there shows that the run did print it.
func TestRunRedacts(t *testing.T) {
	t.Parallel()
	const secret, control = "sk-ant-api03-0123456789abcdefghijABCDEFGHIJ-AA", "sk-ant-api03-of-nobody-abcdefghijABCDEFGHIJ-AA"
	encoded := base64.StdEncoding.EncodeToString([]byte("x:" + secret))
	u := newUser(t)
	u.policy("credentials:\n  anthropic: {from: 'env:ANTHROPIC_API_KEY'}\n")
	u.env = append(u.env, "ANTHROPIC_API_KEY="+secret)
	r := u.run("--", "sh", "-c", "echo "+secret+" "+control+"; echo "+encoded+" >&2")
	u.wantCode(r, 0)
	if want := "[redacted:anthropic] " + control + "\n"; r.stdout != want {
		t.Errorf("stdout is %q, want %q", r.stdout, want)
	}
	if strings.Contains(r.stderr, encoded) || !strings.Contains(r.stderr, "the credential anthropic was taken out of") {
		t.Errorf("stderr is %q", r.stderr)
	}
	where := map[string]bool{}
	for _, red := range u.summary().Redacted {
		where[red.Where] = red.Credential == "anthropic" && red.Count > 0
	}
	for _, place := range []string{event.RedactedStdout, event.RedactedStderr, event.RedactedEvents} {
		if !where[place] {
			t.Errorf("the record counts nothing for %s: %v", place, where)
		}
	}
	controls := 0
	err := filepath.WalkDir(u.state, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		controls += strings.Count(string(b), control)
		for _, form := range []string{secret, encoded} {
			if strings.Contains(string(b), form) {
				t.Errorf("%s has the secret", name)
			}
		}
		return nil
	})
	if err != nil || controls == 0 {
		t.Errorf("the control was met %d times, %v", controls, err)
	}
}
