//go:build docker

package main

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
)

// TestOverdueCredential: a run with one warns, and is refused where the policy insists; the record has the age, and what was used is
// remembered.
func TestOverdueCredential(t *testing.T) {
	t.Parallel()
	const secret = "sk-test-0123456789abcdefghijABCDEFGHIJ"
	got := make(chan string, 1)
	web := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Authorization") }))
	t.Cleanup(web.Close)
	u := newUser(t)
	u.env = append(u.env, "MODEL_KEY="+secret)
	u.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})), 0o644)
	policy := fmt.Sprintf("network: {allow: [{host: example.com, port: 443, to: %q}]}\n"+
		"credentials:\n  model: {from: 'env:MODEL_KEY', host: example.com, rotate: 30d, rotated: 2020-01-01, rotate-enforce: %%v}\n", web.Listener.Addr())

	u.policy(fmt.Sprintf(policy, false))
	r := u.run("--ca-file", "ca.pem", "--", "sh", "-c", `curl -sS -H "Authorization: Bearer $MODEL_KEY" https://example.com/`)
	u.wantCode(r, 0)
	if !strings.Contains(r.stderr, "the credential model is overdue: it is ") {
		t.Errorf("stderr is %q", r.stderr)
	}
	close(got) // the task is over, and no request comes any more
	if with := <-got; with != "Bearer "+secret {
		t.Errorf("the request had %q", with)
	}
	age := u.summary().Credentials[0].Age
	if age == nil || age.State != event.AgeOverdue || age.Provenance != "asserted" || age.Basis != "declared" {
		t.Errorf("the record has the age %+v", age)
	}
	status := u.finish(u.command("credentials", "status", "--json"))
	if status.code != 1 || !strings.Contains(status.stdout, `"last_used": "20`) {
		t.Errorf("status %d: %s%s", status.code, status.stdout, status.stderr)
	}

	u.policy(fmt.Sprintf(policy, true))
	r = u.run("--ca-file", "ca.pem", "--", "touch", "started")
	if r.code != exitFailure || !strings.Contains(r.stderr, "the credential model is overdue") {
		t.Errorf("where the policy insists: status %d, %q", r.code, r.stderr)
	}
	if s := u.wantOutcome(event.Refused, exitFailure); s.Agent != nil {
		t.Errorf("the agent was started: %+v", s.Agent)
	}
}
