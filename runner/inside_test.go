package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/secret"
)

const modelKey = "sk-ant-api03-0123456789abcdefghijABCDEFGHIJ-AA"

// TestInsidePolicy: the file says all that the agent may do, and nothing about the host.
func TestInsidePolicy(t *testing.T) {
	p := loaded(t, `
workspace: {mode: readonly, hide: [secret-of-the-host]}
mounts: [{source: /secret-of-the-host, target: /mounted}]
network:
  allow:
    - {host: api.github.com, rules: ["GET /repos/acme/shop/**"], limits: {upload: 1MiB}}
    - {host: db, port: 5432, tcp: true, to: "127.0.0.2:5433"}
    - {host: "*.example.org", port: [80, 8000-8010]}
  deny: [bad.example.org]
  limits: {download: 1GiB, idle: 5m}
credentials:
  anthropic: {from: "env:KEY", rules: ["POST /v1/messages"]}
resources: {cpus: 1.5, memory: 1GiB, pids: 100, timeout: 5m}
`)
	r, _ := newRun(t, Config{Policy: p, LookupEnv: func(name string) (string, bool) { return modelKey, name == "KEY" }})
	if err := r.credentials(t.Context()); err != nil {
		t.Fatal(err)
	}
	plan := &Plan{}
	if err := r.environment(plan); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/inside-policy.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.files) != 1 || plan.files[0].Name != insidePolicyFile {
		t.Fatalf("the files are %+v", plan.files)
	}
	if diff := cmp.Diff(string(plan.files[0].Content), string(want)); diff != "" {
		t.Errorf("another file (-got +want):\n%s", diff)
	}
}

// TestInsidePolicyOfNothing: the default policy's lists are there, and empty.
func TestInsidePolicyOfNothing(t *testing.T) {
	r, _ := newRun(t, Config{})
	text, err := json.Marshal(r.insidePolicy())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"allow":[]`, `"deny":[]`, `"credentials":[]`, `"writable":true`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in %s", want, text)
		}
	}
}

// TestInsidePolicyFits: a policy as long as the loader takes can be told.
func TestInsidePolicyFits(t *testing.T) {
	r, _ := newRun(t, Config{})
	var rules strings.Builder
	for n := range 500 {
		fmt.Fprintf(&rules, "    - {host: h%d.example.org, rules: ['GET /%s']}\n", n, strings.Repeat("a", 60))
	}
	every := strings.Join(policy.Bundles(), ", ")
	r.cfg.Policy = loaded(t, "network:\n  deny: ["+every+"]\n  allow:\n"+rules.String())
	r.authority = []byte("pem")
	if err := r.environment(&Plan{}); err != nil {
		t.Error(err)
	}
}

// TestIdentityIsRedacted: a service that quotes the job's identity in its refusal does not get it into the record.
func TestIdentityIsRedacted(t *testing.T) {
	const jwt = "eyJhbGciOiJSUzI1NiJ9.0123456789abcdefghij.0123456789abcdefghij"
	vault := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{"no good: " + string(body)}})
	}))
	defer vault.Close()
	r, _ := newRun(t, Config{LookupEnv: func(string) (string, bool) { return "", false }})
	host := strings.TrimPrefix(vault.URL, "https://")
	r.cfg.Policy = loaded(t, "credentials: {anthropic: {from: 'vault:kv/data/a#b', broker: 'https://"+host+"', identity: ci}}\n")
	r.cfg.Credentials = CredentialSources{HTTP: vault.Client(), OIDC: func(context.Context, string) (secret.Value, error) { return secret.New(jwt), nil }}
	err := r.secrets.err(r.credentials(t.Context()))
	if err == nil || strings.Contains(err.Error(), jwt) || !strings.Contains(err.Error(), "no good: ") || !strings.Contains(err.Error(), "[redacted:identity]") {
		t.Errorf("%v", err)
	}
}

// TestPlaceholderInside: the agent's variables have the placeholder, and neither plan nor record the secret.
func TestPlaceholderInside(t *testing.T) {
	r, log := newRun(t, Config{LookupEnv: func(string) (string, bool) { return "ghp_0123456789abcdefghij", true }})
	r.cfg.Policy = loaded(t, "credentials: {github: {from: 'env:TOKEN', allow-broad: a test}}\n")
	r.image.Env = []string{"GH_TOKEN=of-the-image"}
	if err := r.credentials(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := &Plan{}
	if err := r.environment(p); err != nil {
		t.Fatal(err)
	}
	placeholder := r.grants[0].Placeholder
	for _, name := range []string{"GH_TOKEN", "GITHUB_TOKEN"} {
		i := slices.IndexFunc(p.Env, func(v Variable) bool { return v.Name == name })
		if i < 0 || p.Env[i].Value != placeholder || p.Env[i].Source != "credential" {
			t.Errorf("%s is planned as %+v", name, p.Env)
		}
	}
	if n := len(log.of("lowered")); n != 1 {
		t.Errorf("%d times it is recorded that the token reaches too far", n)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(text), strings.Join(p.environ(), "\n"), string(p.files[0].Content)} {
		if strings.Contains(s, "0123456789abcdefghij") {
			t.Errorf("the secret is in %s", s)
		}
	}
}

// TestTrust: every variable points to a file that will be there, and what it named before is merged, not lost.
func TestTrust(t *testing.T) {
	vars := newVariables()
	vars.set("SSL_CERT_FILE", "/image/all.pem", "image")
	vars.set("PIP_CERT", "/image/pip.pem", "image")
	vars.set("REQUESTS_CA_BUNDLE", "/image/all.pem", "policy")
	vars.set("NODE_EXTRA_CA_CERTS", "/image/node.pem", "host")
	vars.set("NODE_USE_SYSTEM_CA", "0", "policy")
	vars.set("APT_CONFIG", "/image/apt.conf", "image")
	vars.set("JAVA_TOOL_OPTIONS", `-Xmx1g  "-Da=b c" -Djavax.net.ssl.trustStore=/image/java.jks`, "image")
	got, files := trust([]byte("pem"), vars)
	want := &link.Trust{
		CA: []byte("pem"), Bundles: []string{"/image/all.pem", "/image/pip.pem"}, Extra: []string{"/image/node.pem"}, Stores: []string{"/image/java.jks"},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("another order to the guest (-got +want):\n%s", diff)
	}
	for name, want := range map[string]string{
		"NODE_USE_SYSTEM_CA": "0", // somebody's choice
		"JAVA_TOOL_OPTIONS": `-Xmx1g  "-Da=b c" -Djavax.net.ssl.trustStore=/image/java.jks -Djavax.net.ssl.trustStore=/run/agent-sandbox/ca.jks ` +
			`-Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStorePassword=changeit`,
		"SSL_CERT_FILE": "/run/agent-sandbox/ca-bundle.crt", "NODE_EXTRA_CA_CERTS": "/run/agent-sandbox/ca.crt",
		"SYSTEM_WGETRC": "/run/agent-sandbox/wgetrc", "APT_CONFIG": "/run/agent-sandbox/apt.conf",
	} {
		if got := vars.value(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	made := []string{link.CAFile, link.BundleFile, link.StoreFile}
	for _, f := range files {
		made = append(made, f.Name)
	}
	if files[0].After != "/etc/wgetrc" || files[1].After != "/image/apt.conf" {
		t.Errorf("the settings come after %q and %q", files[0].After, files[1].After)
	}
	for _, v := range vars.list {
		if strings.HasPrefix(v.value, "/") && !slices.Contains(made, strings.TrimPrefix(v.value, link.FilesDir+"/")) {
			t.Errorf("%s points to %s, which nobody makes", v.Name, v.value)
		}
		if path.Dir(v.value) == link.FilesDir && (v.Source != "sandbox" || v.Value != v.value) {
			t.Errorf("the plan has %+v", v)
		}
	}
}

// TestTrustKeepsHostsValues: the options that come from the host are in force, and not in the plan.
func TestTrustKeepsHostsValues(t *testing.T) {
	vars := newVariables()
	vars.set(javaVariable, "-Dpassword=of-the-host", "host")
	trust([]byte("pem"), vars)
	if got := vars.value(javaVariable); !strings.HasPrefix(got, "-Dpassword=of-the-host -D") {
		t.Errorf("the options are %q", got)
	}
	text, err := json.Marshal(vars.list)
	if err != nil || strings.Contains(string(text), "of-the-host") {
		t.Errorf("the plan has %s (%v)", text, err)
	}
}

// TestTrustOnlyWhenNeeded: without interception nothing about certificates changes.
func TestTrustOnlyWhenNeeded(t *testing.T) {
	for _, authority := range [][]byte{nil, []byte("pem")} {
		r, _ := newRun(t, Config{})
		r.authority = authority
		p := &Plan{}
		if err := r.environment(p); err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Contains(strings.Join(p.environ(), "\n"), "SSL_CERT_FILE="), authority != nil; got != want || (p.trust != nil) != want {
			t.Errorf("authority %q: the environment is %q", authority, p.environ())
		}
		if want := map[bool]int{false: 1, true: 6}[authority != nil]; len(p.Files) != want {
			t.Errorf("authority %q: the plan has the files %q", authority, p.Files)
		}
	}
}
