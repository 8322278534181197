package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func loadAs(t testing.TB, name, src string) *Policy {
	t.Helper()
	p, err := Load(name, []byte("version: 1\n"+src))
	if err != nil {
		t.Fatalf("%v\nof:\n%s", err, src)
	}
	return p
}

// TestNarrowCredentialHosts: a host that a credential opens has the ceiling's rules, where the ceiling has any.
func TestNarrowCredentialHosts(t *testing.T) {
	const credential = "credentials: {github: {from: github-oidc, repositories: [acme/shop], permissions: {contents: read}}}\n"
	project := loadAs(t, "project.yaml", credential)
	for ceiling, want := range map[string]map[string]bool{
		"":                             {"GET": true, "POST": true},
		"network: {allow: [github]}\n": {"GET": true, "POST": true},
		"network: {allow: [{host: \"*.github.com\", rules: [\"GET /repos/**\"]}]}\n":             {"GET": true, "POST": false},
		"network: {allow: [{host: api.github.com, rules: [\"GET /repos/acme/shop/issues\"]}]}\n": {"GET": true, "POST": false},
		"network: {deny: [api.github.com]}\n":                                                    {"GET": false, "POST": false},
	} {
		out, _, err := Narrow(project, loadAs(t, "ceiling.yaml", ceiling+credential))
		if err != nil {
			t.Fatalf("%s%v", ceiling, err)
		}
		expanded, problems := out.Expand()
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for method, allowed := range want {
			if got := expanded.Decide(Request{Host: "api.github.com", Port: 443, Method: method, Path: "/repos/acme/shop/issues"}); got.Allowed() != allowed {
				t.Errorf("%s%s: %v, want %v", ceiling, method, got.Allowed(), allowed)
			}
		}
	}
	// A ceiling whose own credential goes to another host opens no other.
	other := strings.Replace(credential, "{from", "{host: ghe.example.org, from", 1)
	if _, _, err := Narrow(loadAs(t, "project.yaml", strings.Replace(credential, "{from", "{host: github.com, from", 1)), loadAs(t, "ceiling.yaml", other)); err == nil {
		t.Error("a host is open that the ceiling's credential does not go to")
	}
}

// companyPolicy is a ceiling.
const companyPolicy = `
image: debian:13
workspace: {mode: overlay, hide: ["*.secret", "!.env.test"], protect: {reject: [deploy/]}}
mounts: [{source: /opt/sdk, target: /x}]
env: [CI, LANG]
network:
  allow:
    - npm
    - "*.example.org"
    - {host: api.github.com, rules: ["GET /repos/acme/**"], limits: {upload: 1MiB}}
  deny: [bad.example.org]
  limits: {download: 1GiB}
caches: [npm]
resources: {memory: 2GiB, timeout: 10m, cpus: 1}
evidence: {sign: key, retain: 365d, include: [patch], attest: true}
credentials:
  model: {from: "env:KEY", host: api.example.org, rotate: 30d, rules: ["POST /v1/**"], header: x-api-key}
`

// greedyPolicy asks for more than companyPolicy has, in all that there is.
const greedyPolicy = `
user: root
seccomp: default
workspace: {mode: bind, hide: ["!.env.test", "!.env", "more/"]}
mounts: [{source: /opt/sdk/go, target: /go, readonly: false}]
env: [CI, "A=1"]
network:
  capture: auto
  allow: [npm, a.example.org, api.github.com]
  deny: [worse.example.org]
resources: {memory: 8GiB, pids: 4000, cpus: 0.5}
evidence: {sign: none, include: [prompt]}
credentials:
  model: {from: "env:KEY", deliver: env, env: KEY}
`

func TestNarrowLowers(t *testing.T) {
	ceiling, project := loadAs(t, "ceiling.yaml", companyPolicy), loadAs(t, "project.yaml", greedyPolicy)
	out, narrowings, err := Narrow(project, ceiling)
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, n := range narrowings {
		fmt.Fprintln(&lines, n)
	}
	checkGolden(t, "narrow.golden", []byte(lines.String()))

	if out.User != UserAgent || out.Seccomp != SeccompStrict || out.Network.Capture != CaptureRequired || out.Workspace.Mode != ModeOverlay || out.Image.Reference != "debian:13" {
		t.Errorf("got %s %s %s %v", out.User, out.Seccomp, out.Workspace.Mode, out.Image)
	}
	if r := out.Resources; r.Memory != 2*GiB || r.CPUs != 0.5 || r.PIDs != 4000 || FormatDuration(r.Timeout) != "10m" {
		t.Errorf("resources %+v", r)
	}
	set := NewPatternSet(out.Workspace.Hide)
	for path, want := range map[string]bool{".env": true, ".env.test": false, "x.secret": true, "more/x": true, "main.go": false} {
		if set.Match(path, false) != want {
			t.Errorf("hidden %s = %v, want %v", path, !want, want)
		}
	}
	if tier, _ := out.Workspace.Protector().Tier("deploy/x"); tier != TierReject {
		t.Error("the ceiling's protected path is gone")
	}
	c := out.Credentials[0]
	if c.Deliver != DeliverInject || c.Hosts[0].String() != "api.example.org" || len(c.Rules) != 1 || c.Header != "x-api-key" || c.Rotate != 30*day {
		t.Errorf("credential %+v", c)
	}
	if project.Workspace.Mode != ModeBind || project.Resources.Memory != 8*GiB {
		t.Error("Narrow changed its argument")
	}
	if !out.Mounts[0].ReadOnly || project.Mounts[0].ReadOnly {
		t.Error("mounts are not narrowed, or the argument is")
	}
	for request, want := range map[Request]Action{
		{Host: "a.example.org", Port: 443}:                  Allow,
		{Host: "b.example.org", Port: 443}:                  Deny,
		{"api.github.com", 443, "GET", "/repos/acme/shop"}:  Allow,
		{"api.github.com", 443, "GET", "/repos/other/shop"}: Deny,
		{Host: "bad.example.org", Port: 443}:                Deny,
		{Host: "worse.example.org", Port: 443}:              Deny,
	} {
		if v := out.Decide(request); v.Action != want {
			t.Errorf("Decide(%s) = %s, want %s", request, v.Action, want)
		}
	}
}

func TestNarrowRefuses(t *testing.T) {
	ceiling := loadAs(t, "ceiling.yaml", `
image: debian:13
agent: claude
mounts: [{source: /opt/sdk, target: /x}]
network:
  allow:
    - npm
    - example.org
    - {host: api.github.com, rules: ["GET /repos/acme/**"]}
    - {host: db.example.org, port: 5432, tcp: true}
    - {host: pg, port: 5432, tcp: true, to: "127.0.0.1:5432"}
credentials:
  github: {from: github-oidc, repositories: [acme/shop], permissions: {contents: write, issues: read}, push: ["refs/heads/agent/**"]}
`)
	project := loadAs(t, "project.yaml", `
image: debian:12
agent: codex
mounts:
  - {source: /opt/sdk2, target: /a}
env: [CI]
caches: [npm]
network:
  allow:
    - go
    - other.example.org
    - example.org:8443
    - "*.example.org"
    - {host: api.github.com, rules: ["GET /repos/acme/shop", "GET /repos/**"]}
    - {host: db.example.org, port: 5433, tcp: true}
    - {host: example.org, port: 443, tcp: true}
    - {host: pg, port: 5432, tcp: true, to: "127.0.0.1:6000"}
credentials:
  github: {from: github-oidc, repositories: [acme/shop, acme/other], permissions: {contents: write, issues: write, actions: read}, push: ["refs/heads/agent/x", "refs/heads/main"], allow-broad: "because"}
  other: {from: "env:X"}
`)
	_, _, err := Narrow(project, ceiling)
	if err == nil {
		t.Fatal("Narrow refuses nothing")
	}
	checkGolden(t, "narrow-refused.golden", []byte(err.Error()+"\n"))

	// A ceiling that says nothing allows nothing of the host and of the network.
	_, _, err = Narrow(project, loadAs(t, "silent.yaml", ""))
	checkGolden(t, "narrow-silent.golden", []byte(err.Error()+"\n"))
}

func TestNarrowBySilence(t *testing.T) {
	for _, src := range []string{"", "image: debian:13\nagent: claude\nuser: agent\nresources: {memory: 64GiB, timeout: 1d}\nenv: [\"A=b\"]\nevidence: {retain: 400d, include: [prompt]}\n"} {
		project := loadAs(t, "project.yaml", src)
		out, narrowings, err := Narrow(project, loadAs(t, "ceiling.yaml", ""))
		if err != nil || len(narrowings) > 0 || out.Digest() != project.Digest() {
			t.Errorf("under a silent ceiling: %v, %v", narrowings, err)
		}
		if out, _, err := Narrow(project, nil); err != nil || out != project {
			t.Errorf("without a ceiling: %v, %v", out, err)
		}
	}
}

// TestNarrowProperty: what the narrowed policy allows, hides, protects and gives is within both.
func TestNarrowProperty(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 3000 {
		project, ceiling := randomPolicy(t, rng, "project.yaml", 2), randomPolicy(t, rng, "ceiling.yaml", 5)
		out, _, err := Narrow(project, ceiling)
		if err != nil {
			continue
		}
		accepted++
		for _, r := range randomRequests() {
			v := out.Decide(r)
			p, c := project.Decide(r), ceiling.Decide(r)
			if v.Allowed() && (!p.Allowed() || !c.Allowed() || v.TCP && (!p.TCP || !c.TCP) || v.Private && (!p.Private || !c.Private)) {
				t.Fatalf("%s: narrowed %+v, project %+v, ceiling %+v", r, v, p, c)
			}
			if v.Allowed() && !v.Inspect && r.Method == "" && (p.Inspect || c.Inspect) {
				t.Fatalf("%s is not inspected: narrowed %+v, project %+v, ceiling %+v", r, v, p, c)
			}
		}
		hidden, byProject, byCeiling := NewPatternSet(out.Workspace.Hide), NewPatternSet(project.Workspace.Hide), NewPatternSet(ceiling.Workspace.Hide)
		for _, path := range []string{".env", ".env.test", "a/b", "a", "b", "a/c", "x.pem", "test.pem"} {
			if (byProject.Match(path, false) || byCeiling.Match(path, false)) && !hidden.Match(path, false) {
				t.Fatalf("%s shows: project %v, ceiling %v, narrowed %v", path, project.Workspace.Hide, ceiling.Workspace.Hide, out.Workspace.Hide)
			}
		}
		again, _, err := Narrow(out, ceiling)
		if err != nil {
			t.Fatalf("narrowing twice: %v", err)
		}
		if diff := cmp.Diff(convert(out.Network.Allow, Rule.String), convert(again.Network.Allow, Rule.String)); diff != "" {
			t.Fatalf("narrowing twice is not the same:\n%s", diff)
		}
	}
	if accepted < 300 {
		t.Errorf("only %d of 3000 pairs fit together", accepted)
	}
}

func randomPolicy(t *testing.T, rng *rand.Rand, name string, rules int) *Policy {
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	for {
		var b strings.Builder
		b.WriteString("version: 1\nnetwork:\n  allow:\n")
		for range 1 + rng.IntN(rules) {
			host := pick("a.example.org", "b.example.org", `"*.example.org"`, `"*.b.example.org"`, "example.net")
			entry := fmt.Sprintf("    - {host: %s, port: %s", host, pick("443", "[80, 443]", `"1-1000"`, "8443"))
			switch rng.IntN(4) {
			case 0:
				entry += ", tcp: true"
			case 1:
				entry += fmt.Sprintf(`, rules: ["%s %s"]`, pick("GET", "*", "POST"), pick("/a/**", "/a/*", "/a/b", "/**", "/"))
			}
			b.WriteString(entry + pick("", ", private: true") + "}\n")
		}
		if rng.IntN(3) == 0 {
			fmt.Fprintf(&b, "  deny: [%s]\n", pick("a.example.org", `{host: b.example.org, rules: ["POST /**"]}`))
		}
		fmt.Fprintf(&b, "workspace: {hide: [%s, %s]}\n", pick("a", "a/b", `"!.env"`, `"*.pem"`, `"!a"`), pick("b", "a/*", `"!test.pem"`, `"!b"`, `"**/c"`))
		if p, err := Load(name, []byte(b.String())); err == nil { // rules that limit nothing are refused
			return p
		}
	}
}

func randomRequests() []Request {
	var all []Request
	for _, host := range []string{"a.example.org", "b.example.org", "x.b.example.org", "example.net", "example.org"} {
		for _, port := range []uint16{80, 443, 8443, 22} {
			all = append(all, Request{Host: host, Port: port})
			for _, method := range []string{"GET", "POST"} {
				for _, path := range []string{"/", "/a", "/a/b", "/a/b/c", "/x"} {
					all = append(all, Request{host, port, method, path})
				}
			}
		}
	}
	return all
}
