package convert

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

func convert(t *testing.T, kind string, s Source) (policyText, left string) {
	t.Helper()
	c, err := From(kind, s)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, l := range c.Left {
		fmt.Fprintf(&b, "%s\n", l.What)
	}
	return string(c.Policy), b.String()
}

// fromTest is a source, the policy that is made of it, and what is left out, a line for each.
type fromTest struct {
	name, kind   string
	source       Source
	policy, left string
}

func checkFrom(t *testing.T, tests []fromTest) {
	t.Helper()
	for _, tt := range tests {
		text, left := convert(t, tt.kind, tt.source)
		if diff := cmp.Diff(tt.policy, text); diff != "" {
			t.Errorf("%s: policy (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.left, left); diff != "" {
			t.Errorf("%s: left out (-want +got):\n%s", tt.name, diff)
		}
		if strings.Contains(text+left, "hunter2") {
			t.Errorf("%s: a value of the environment is shown", tt.name)
		}
	}
}

func TestFromClaude(t *testing.T) {
	checkFrom(t, []fromTest{
		{
			"claude", "claude",
			Source{Name: "settings.json", Text: []byte(`{
  "$schema": "x", // a comment, with "quotes"
  "permissions": {
    "allow": ["WebFetch(domain:docs.example.org)", "WebFetch(domain:*.example.com)", "WebFetch", "Bash(npm test)", "WebFetch(domain:*)",],
    "deny": ["Read(./.env.production)", "Read(secrets/**)", "Read(~/.ssh/**)", "WebFetch(domain:evil.example.org)", "Edit(x)"],
    "ask": ["Bash(git push)"]
  },
  "sandbox": {"enabled": true, "network": {"allowedDomains": ["api.example.org", "*.com", "localhost", "API.example.org", "10.0.0.1", "b.example:8443"], "deniedDomains": ["*.evil.example"], "allowUnixSockets": ["/x"]}},
  "env": {"TOKEN": "hunter2"}
}`)},
			`# Converted from "settings.json".
version: 1
workspace:
  hide:
    - "/.env.production"
    - "secrets/**"
network:
  allow:
    - docs.example.org
    - "*.example.com"
    - api.example.org
    - "b.example:8443"
  deny:
    - evil.example.org
    - "*.evil.example"
`,
			`permissions.allow: WebFetch
permissions.allow: Bash(npm test)
permissions.allow: *
permissions.deny: ~/.ssh/**
permissions.deny: Edit(x)
permissions.ask
sandbox.network.allowedDomains: *.com
sandbox.network.allowedDomains: localhost
sandbox.network.allowedDomains: 10.0.0.1
sandbox.network.allowedDomains
sandbox.network.allowUnixSockets
sandbox.enabled
env
`,
		},
		{"nothing", "claude", Source{Name: "a\nb", Text: []byte(`{}`)}, "# Converted from \"a\\nb\".\nversion: 1\n", ""},
	})
}

func TestFromDomainLists(t *testing.T) {
	checkFrom(t, []fromTest{
		{
			"srt", "srt",
			Source{Name: "srt.json", Text: []byte(`{"network":{"allowedDomains":["github.com","*.github.com"],"deniedDomains":[]},"filesystem":{"denyRead":["~/.ssh","/etc/x","./keys"],"allowWrite":["."]},"enableWeakerNestedSandbox":true}`)},
			"# Converted from \"srt.json\".\nversion: 1\nworkspace:\n  hide:\n    - \"/keys\"\nnetwork:\n  allow:\n    - github.com\n    - \"*.github.com\"\n",
			"network.allowedDomains\nfilesystem.denyRead: ~/.ssh\nfilesystem.denyRead: //etc/x\nfilesystem.allowWrite\nenableWeakerNestedSandbox\n",
		},
		{
			"awf", "awf",
			Source{Name: "domains.txt", Text: []byte("# ours\ngithub.com, api.example.org # two\n\n*.googleapis.com\nhttps://only.example/\nhttp://plain.example\n*\nco.uk\napi-*.example.org\n")},
			`# Converted from "domains.txt".
version: 1
network:
  allow:
    - github.com
    - "*.github.com"
    - api.example.org
    - "*.api.example.org"
    - only.example
    - "*.only.example"
    - "plain.example:80"
    - "*.plain.example:80"
    - co.uk
`,
			"domain: *.googleapis.com\ndomain: *\ndomain: *.co.uk\ndomain: api-*.example.org\nports\n",
		},
	})
}

func TestFromDevcontainer(t *testing.T) {
	checkFrom(t, []fromTest{
		{
			"devcontainer", "devcontainer",
			Source{
				Name: ".devcontainer/devcontainer.json",
				Text: []byte(`{
  /* ours */ "name": "x", "build": {"dockerfile": "Dockerfile", "args": {"A": "b"}},
  "features": {"ghcr.io/x/node:1": {}}, "runArgs": ["--cap-add=NET_ADMIN"],
  "containerEnv": {"NODE_OPTIONS": "--max-old-space-size=4096", "HOME_DIR": "${localEnv:HOME}", "SSH_AUTH_SOCK": "/x"},
  "postStartCommand": "sudo init-firewall.sh", "customizations": {}
}`),
				Firewall: []byte(`#!/bin/bash
iptables -A OUTPUT -p udp --dport 53 -j ACCEPT
iptables -A OUTPUT -p tcp --dport 22 -j ACCEPT
curl -s https://api.github.com/meta
for cidr in $(x); do
  echo evil.example
done
for domain in \
    "registry.example.org" \
    "api.example.com" \ # not a comment for bash, but no domain either
    "sentry.example"; do
    echo no.example
done
declare -a EXTRA_DOMAINS=(
    "one.example"  # why
    'two.example' $THREE
)
PATHS=("no.example.org")
`),
			},
			`# Converted from ".devcontainer/devcontainer.json".
version: 1
image: {build: ".devcontainer/Dockerfile"}
env:
  - "NODE_OPTIONS=--max-old-space-size=4096"
network:
  allow:
    - registry.example.org
    - api.example.com
    - sentry.example
    - one.example
    - two.example
    - github
`,
			`build.args
containerEnv.HOME_DIR
containerEnv.SSH_AUTH_SOCK
features: ghcr.io/x/node:1
postStartCommand
runArgs
init-firewall.sh: the addresses of GitHub
init-firewall.sh: SSH to any host
init-firewall.sh: DNS to any host
`,
		},
		{
			"the firewall alone", "devcontainer",
			Source{Name: "init-firewall.sh", Text: []byte("for domain in a.example b.example; do\n:\ndone\n")},
			"# Converted from \"init-firewall.sh\".\nversion: 1\nnetwork:\n  allow:\n    - a.example\n    - b.example\n", "",
		},
		{"an image", "devcontainer", Source{Name: "devcontainer.json", Text: []byte(`{"image":"mcr.example/base:1"}`)}, "# Converted from \"devcontainer.json\".\nversion: 1\nimage: \"mcr.example/base:1\"\n", ""},
	})
}

func TestFromRefuses(t *testing.T) {
	for _, tt := range []struct{ kind, text, want string }{
		{"claude", "[]", "not JSON"},
		{"claude", "null", "not a JSON object"},
		{"srt", "{", "not JSON"},
		{"nonsense", "{}", "want one of awf, claude, devcontainer, srt"},
		{"awf", strings.Repeat("#", MaxSize+1), "more than"},
	} {
		if _, err := From(tt.kind, Source{Name: "x", Text: []byte(tt.text)}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("From(%s, %.10q) = %v, want %q", tt.kind, tt.text, err, tt.want)
		}
	}
}

func TestPlainJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a": "// no /* */", /* x */ "b": [1, 2, ], // y` + "\n}": `{"a": "// no /* */",  "b": [1, 2 ]` + "\n}",
		`{"a":"\"//"}`: `{"a":"\"//"}`,
		`[1,/*x*/]`:    `[1]`,
		`"open`:        `"open`,
		`/* open`:      ``,
		`[",]"]`:       `[",]"]`,
	} {
		if got := string(plainJSON([]byte(in))); strings.ReplaceAll(got, ",  \n", "\n") != want && strings.Join(strings.Fields(got), "") != strings.Join(strings.Fields(want), "") {
			t.Errorf("plainJSON(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzFrom: what comes out loads, and allows no host that the source does not name.
func FuzzFrom(f *testing.F) {
	f.Add(`{"permissions":{"allow":["WebFetch(domain:a.example)"]},"sandbox":{"network":{"allowedDomains":["*.b.example"]}}}`)
	f.Add(`{"network":{"allowedDomains":["a.example:80","*"]},"filesystem":{"denyRead":["./x","!y"]}}`)
	f.Add("a.example, *.b.example # c\nhttp://d.example\n")
	f.Add(`{"image":"x","containerEnv":{"A":"b\u0000"},"build":{"dockerfile":"../../x"}}`)
	f.Add("for domain in \\\n \"a.example\" \\\n b.example; do\nX_DOMAINS=(c.example)\n")
	f.Fuzz(func(t *testing.T, text string) {
		lower := strings.ToLower(text)
		for _, kind := range append(Kinds(), "sh") {
			s := Source{Name: "x.json", Text: []byte(text)}
			if kind == "sh" {
				kind, s.Name = "devcontainer", "x.sh"
			}
			c, err := From(kind, s)
			if err != nil {
				if strings.Contains(err.Error(), "is not valid") {
					t.Errorf("%s: %v, of %q", kind, err, text)
				}
				continue
			}
			p, err := policy.Load("x", c.Policy)
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			for _, r := range p.Network.Allow {
				name := strings.TrimPrefix(r.Host.String(), "*.")
				if r.Bundle == "" && !r.Host.Addr().IsValid() && !strings.Contains(text, `\`) && !strings.Contains(name, "xn--") && isASCII(text) && !strings.Contains(lower, name) {
					t.Errorf("%s: %s is not in %q", kind, r.Host, text)
				}
				if r.Private || r.TCP || !r.To.IsZero() {
					t.Errorf("%s: %s", kind, r)
				}
			}
		}
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > '~' }) < 0
}
