package rotate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// Commands have the secrets in their environment, and not in their arguments.
func TestRotateByCommands(t *testing.T) {
	w := newWorld(t, "file")
	script := func(name, body string) string {
		w.write(name, "#!/bin/sh\nset -eu\ncase \"$*\" in *sk-test*|*admin*) exit 9;; esac\n"+body+"\n", 0o700)
		return filepath.Join(w.dir, name)
	}
	src := strings.NewReplacer("DIR", w.dir, "CREATE", script("create", `[ "$AGENT_SANDBOX_TOKEN" = "$(cat "$1/admin")" ]; echo sk-test-new0123456789; echo made >&2`),
		"PROVE", script("prove", `grep -qxF "$AGENT_SANDBOX_NEW" "$1/live"`),
		"STORE", script("store", `printf %s "$AGENT_SANDBOX_NEW" >"$1/stored"`),
		"REVOKE", script("revoke", `grep -vxF "$AGENT_SANDBOX_OLD" "$1/live" >"$1/rest"; mv "$1/rest" "$1/live"`)).Replace(`version: 1
credentials:
  model:
    from: file:./key
    rotation:
      token: env:ADMIN
      create: {command: [CREATE, DIR]}
      prove: {command: [PROVE, DIR]}
      store: [{file: ./key}, {command: [STORE, DIR]}]
      revoke: {command: [REVOKE, DIR]}
`)
	w.write("admin", w.provider.Admin, 0o600)
	w.write("live", w.old+"\nsk-test-new0123456789\n", 0o600)
	result, err := Rotate(t.Context(), loadCredential(t, src), w.config(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"key": "sk-test-new0123456789\n", "stored": "sk-test-new0123456789", "live": "sk-test-new0123456789\n"} {
		if got, err := os.ReadFile(filepath.Join(w.dir, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if result.Revocation != event.RevocationVerified || result.Stores[1].Verified {
		t.Errorf("result %+v", result)
	}
}

func TestPick(t *testing.T) {
	answer := secret.New(`{"a": {"b/c": ["x", {"~": "y"}]}, "n": 12345678901234567890, "e": "", "o": {}}`)
	for pointer, want := range map[string]string{"/a/b~1c/0": "x", "/a/b~1c/1/~0": "y", "/n": "12345678901234567890", "/e": "", "/o": "", "/a/b~1c/2": "", "/a/b~1c/x": "", "/n/x": "", "/z": ""} {
		if got, err := pick(answer, pointer); got != want || (err == nil) != (want != "") {
			t.Errorf("pick(%q) = %q, %v, want %q", pointer, got, err, want)
		}
	}
	if got, err := pick(secret.New(" key\n"), ""); got != "key" || err != nil {
		t.Errorf("the whole answer is %q, %v", got, err)
	}
	if _, err := pick(secret.New("no JSON"), "/a"); err == nil {
		t.Error("an answer that is no JSON was taken")
	}
}

// Each value is escaped for where it stands.
func TestRequest(t *testing.T) {
	v := values{token: secret.New(`t"&`), newID: "a/b?c"}
	for kind, want := range map[string]string{"": `{"k":"t\"\u0026"}`, "application/x-www-form-urlencoded": `{"k":"t%22%26"}`} {
		step := policy.RotationStep{Request: policy.StepRequest{Method: "POST", URL: "https://api.example.com/{new-id}"}, Body: `{"k":"{token}"}`, Headers: map[string]string{"X-A": "{token}"}}
		if kind != "" {
			step.Headers["Content-Type"] = kind
		}
		req, err := request(t.Context(), step, v)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 100)
		n, _ := req.Body.Read(body)
		if string(body[:n]) != want || req.URL.EscapedPath() != "/a%2Fb%3Fc" || req.Header.Get("X-A") != `t"&` {
			t.Errorf("%q: %s %s %v", kind, req.URL, body[:n], req.Header)
		}
	}
}
