package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func items(l Lesson) []string { return convert(l.Add, func(a Addition) string { return a.Item }) }

func requests(targets ...string) []Request {
	return convert(targets, func(s string) Request {
		words := append(strings.Fields(s), "", "")
		r, err := ParseRequest(words[0], words[1], words[2])
		if err != nil {
			panic(err)
		}
		return r
	})
}

func TestLearn(t *testing.T) {
	six := []string{"a.cdn.example.org", "b.example.org", "c.example.org", "d.example.org", "e.example.org", "f.example.org"}
	tests := []struct {
		name    string
		network string
		refused []string
		want    []string
		left    []string // words of the reasons
	}{
		{"hosts", "", []string{"api.example.org", "api.example.org", "www.example.com:8443"}, []string{"api.example.org", "{host: www.example.com, port: 8443, tcp: true}"}, nil},
		{"a bundle", "", []string{"pypi.org", "files.pythonhosted.org", "api.example.org"}, []string{"pypi", "api.example.org"}, nil},
		{"the smaller bundle", "", []string{"pkg-containers.githubusercontent.com"}, []string{"ghcr"}, nil},
		{"a bundle's host on another port", "", []string{"pypi.org:22"}, []string{"{host: pypi.org, port: 22, tcp: true}"}, nil},
		{"found", "", []string{"mirror.example"}, []string{"npm"}, nil},
		{"few names", "", six[:5], []string{"a.cdn.example.org", "b.example.org", "c.example.org", "d.example.org", "e.example.org"}, nil},
		{"many names", "", append([]string{"example.org"}, six...), []string{`"*.example.org"`, "example.org"}, nil},
		{"many names of a public suffix", "", []string{"a.github.io", "b.github.io", "c.github.io", "d.github.io", "e.github.io", "f.github.io"}, []string{"a.github.io", "b.github.io", "c.github.io", "d.github.io", "e.github.io", "f.github.io"}, nil},
		{"allowed by now", "{allow: [pypi]}", []string{"pypi.org"}, []string{}, nil},
		{"denied", "{deny: [\"*.evil.example\"]}", []string{"x.evil.example"}, []string{}, []string{"denies"}},
		{"local", "", []string{"10.0.0.1", "169.254.169.254", "postgres", "db.internal", "1.0.0.127.in-addr.arpa", "printer.local"}, []string{}, []string{"private", "metadata", "without a dot", ".arpa", ".internal", ".local"}},
		{"an address", "", []string{"9.9.9.9:853"}, []string{"{host: 9.9.9.9, port: 853, tcp: true}"}, nil},
		{"no host", "", []string{"0x7f.1", "co.uk", "a..b"}, []string{}, []string{"address", "public suffix", "empty name"}},
		{
			"requests", `{allow: [{host: api.example.org, rules: ["GET /v1/**"]}]}`,
			[]string{"api.example.org POST /v1/x", "api.example.org GET /v2"},
			[]string{`{host: api.example.org, rules: ["POST /v1/x"]}`, `{host: api.example.org, rules: ["GET /v2"]}`},
			nil,
		},
		{"a bundle would open what is limited", `{allow: [{host: api.github.com, rules: ["GET /repos/**"]}]}`, []string{"codeload.github.com"}, []string{"codeload.github.com"}, nil},
		{"a wildcard would open what is limited", `{allow: [{host: api.example.org, rules: ["GET /repos/**"]}]}`, six, []string{"a.cdn.example.org", "b.example.org", "c.example.org", "d.example.org", "e.example.org", "f.example.org"}, nil},
	}
	for _, tt := range tests {
		src := "version: 1\n"
		if tt.network != "" {
			src += "network: " + tt.network + "\n"
		}
		p := mustLoad(t, src)
		l := p.Learn(requests(tt.refused...), found("npm", "mirror.example"))
		if diff := cmp.Diff(tt.want, items(l)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		reasons := fmt.Sprint(l.Left)
		for _, word := range tt.left {
			if !strings.Contains(reasons, word) {
				t.Errorf("%s: nothing left out for %q: %s", tt.name, word, reasons)
			}
		}
		if len(l.Left) != len(tt.left) {
			t.Errorf("%s: left out %v", tt.name, l.Left)
		}
		learned(t, p, l)
	}
}

// learned proves that the additions allow what they are for, and nothing near it.
func learned(t *testing.T, p *Policy, l Lesson) {
	t.Helper()
	if len(l.Add) == 0 {
		return
	}
	after := *p
	add := mustLoad(t, "version: 1\nnetwork:\n  allow:\n"+block(items(l), "    ", "\n"))
	after.Network.Allow = append(after.Network.Allow[:len(after.Network.Allow):len(after.Network.Allow)], add.Network.Allow...)
	expanded, problems := after.Expand(found("npm", "mirror.example"))
	if len(problems) > 0 {
		t.Error(problems)
	}
	for _, a := range l.Add {
		for _, r := range a.Requests {
			if v := expanded.Decide(r); !v.Allowed() {
				t.Errorf("%s is for %s, which is still refused: %s", a.Item, r, v.Reason)
			}
		}
	}
	for _, other := range []string{"unrelated.example", "org", "co.uk", "evil.github.io"} {
		if expanded.Decide(Request{Host: other, Port: 443}).Allowed() {
			t.Errorf("%s is allowed by %v", other, items(l))
		}
	}
}

func TestAllowPublic(t *testing.T) {
	p := mustLoad(t, "version: 1\nnetwork:\n  allow: [pypi, {host: api.example.org, rules: [\"GET /x\"]}, {host: db, port: 5432, tcp: true, to: \"127.0.0.1:5432\"}]\n  deny: [\"*.evil.example\"]\n")
	got, problems := p.AllowPublic().Expand()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	tests := []struct {
		request Request
		want    Code
		tcp     bool
	}{
		{Request{Host: "anything.example", Port: 443}, CodeAllowed, false},
		{Request{Host: "git.example", Port: 22}, CodeAllowed, true},
		{Request{Host: "9.9.9.9", Port: 853}, CodeAllowed, true},
		{Request{Host: "api.example.org", Port: 443, Method: "POST", Path: "/y"}, CodeAllowed, false},
		{Request{Host: "db", Port: 5432}, CodeAllowed, true},
		{Request{Host: "x.evil.example", Port: 443}, CodeDenied, false},
		{Request{Host: "postgres", Port: 5432}, CodeNoRule, false},
		{Request{Host: "10.0.0.1", Port: 443}, CodeNoRule, false},
		{Request{Host: "169.254.169.254", Port: 80}, CodeNoRule, false},
		{Request{Host: "127.0.0.1", Port: 80}, CodeNoRule, false},
		{Request{Host: "168.63.129.16", Port: 80}, CodeNoRule, false},
		{Request{Host: "a..b", Port: 443}, CodeBadHost, false},
	}
	for _, tt := range tests {
		v := got.Decide(tt.request)
		if v.Code != tt.want || v.TCP != tt.tcp {
			t.Errorf("Decide(%s) = %q, tcp %v, want %q, %v", tt.request, v.Code, v.TCP, tt.want, tt.tcp)
		}
		if tt.want != CodeAllowed && p.Decide(tt.request).Allowed() {
			t.Errorf("AllowPublic has changed the policy itself")
		}
	}
	// A name that leads to a local network is as closed as without.
	v := got.Decide(Request{Host: "rebind.example", Port: 443})
	for addr, want := range map[string]bool{"9.9.9.9": true, "10.0.0.1": false, "169.254.169.254": false, "127.0.0.1": false, "100.64.0.1": false, "::1": false} {
		if v.PermitsAddress(netip.MustParseAddr(addr)) != want {
			t.Errorf("PermitsAddress(%s) = %v", addr, !want)
		}
	}
	if !got.Reachable("anything.example").Allowed() || got.Reachable("x.evil.example").Allowed() || got.Reachable("postgres").Allowed() {
		t.Error("Reachable differs from Decide")
	}
	if p.Digest() == p.AllowPublic().Digest() {
		t.Error("the digest does not tell")
	}
	if _, err := Load("x", []byte("version: 1\nnetwork:\n  allow: [\"(everything public)\"]\n")); err == nil {
		t.Error("a file can say it")
	}
}

func TestAddAllow(t *testing.T) {
	add := []string{"pypi", `"*.example.org"`, "{host: db.example, port: 5432, tcp: true}"}
	tests := []struct{ name, src, want string }{
		{"no file", "", "version: 1\nnetwork:\n  allow:\n    - pypi\n    - \"*.example.org\"\n    - {host: db.example, port: 5432, tcp: true}\n"},
		{"no network", "# mine\nversion: 1 # one", "# mine\nversion: 1 # one\nnetwork:\n  allow:\n    - pypi\n    - \"*.example.org\"\n    - {host: db.example, port: 5432, tcp: true}\n"},
		{
			"no allow", "version: 1\nnetwork:\n   # why\n   deny: [a.example]\nuser: root\n",
			"version: 1\nnetwork:\n   # why\n   allow:\n     - pypi\n     - \"*.example.org\"\n     - {host: db.example, port: 5432, tcp: true}\n   deny: [a.example]\nuser: root\n",
		},
		{
			"a block", "version: 1\nnetwork:\n  allow:\n  - a.example # first\n  - host: b.example\n    rules:\n      - GET /x # last\n\n# after\nuser: root\n",
			"version: 1\nnetwork:\n  allow:\n  - a.example # first\n  - host: b.example\n    rules:\n      - GET /x # last\n  - pypi\n  - \"*.example.org\"\n  - {host: db.example, port: 5432, tcp: true}\n\n# after\nuser: root\n",
		},
		{
			"a block that ends in a flow", "version: 1\nnetwork:\n  allow:\n    - host: b.example\n      rules: [\n        GET /x,\n        ]\n  deny: [c.example]\n",
			"version: 1\nnetwork:\n  allow:\n    - host: b.example\n      rules: [\n        GET /x,\n        ]\n    - pypi\n    - \"*.example.org\"\n    - {host: db.example, port: 5432, tcp: true}\n  deny: [c.example]\n",
		},
		{
			"a flow", "version: 1\nnetwork:\n  allow: [a.example, {host: b.example, port: [1, 2]} ] # end]\n",
			"version: 1\nnetwork:\n  allow: [a.example, {host: b.example, port: [1, 2]}, pypi, \"*.example.org\", {host: db.example, port: 5432, tcp: true}] # end]\n",
		},
		{"a flow in a flow", "{version: 1, network: {allow: [a.example]}}", "{version: 1, network: {allow: [a.example, pypi, \"*.example.org\", {host: db.example, port: 5432, tcp: true}]}}"},
		{"an empty flow", "version: 1\nnetwork: \n  allow: []\n", "version: 1\nnetwork: \n  allow: [pypi, \"*.example.org\", {host: db.example, port: 5432, tcp: true}]\n"},
		{"no end of line", "version: 1\nnetwork:\n  allow:\n    - a.example", "version: 1\nnetwork:\n  allow:\n    - a.example\n    - pypi\n    - \"*.example.org\"\n    - {host: db.example, port: 5432, tcp: true}\n"},
		{"other ends of lines", "version: 1\r\nnetwork:\r\n  allow:\r\n    - a.example\r\n", "version: 1\r\nnetwork:\r\n  allow:\r\n    - a.example\r\n    - pypi\r\n    - \"*.example.org\"\r\n    - {host: db.example, port: 5432, tcp: true}\r\n"},
	}
	for _, tt := range tests {
		got, err := AddAllow("policy.yaml", []byte(tt.src), add)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	for _, src := range []string{"{version: 1}", "version: 1\nnetwork: {}\n", "version: 1\nnetwork: {deny: [a.example]}\n"} {
		if got, err := AddAllow("policy.yaml", []byte(src), add); !errors.Is(err, ErrNoPlace) {
			t.Errorf("AddAllow(%q) = %q, %v", src, got, err)
		}
	}
	if _, err := AddAllow("policy.yaml", []byte("version: 1\nnetwork:\n  allow: [pypi]\n"), add); err == nil {
		t.Error("an item that is there already is added")
	}
}

// FuzzAddAllow: whatever the file, the result means what it meant, and the item.
func FuzzAddAllow(f *testing.F) {
	for _, file := range fixtures(f, "valid") {
		f.Add(string(file.Data))
	}
	f.Add("version: 1\nnetwork:\n  allow: [a.example]\n")
	f.Fuzz(func(t *testing.T, src string) {
		got, err := AddAllow("policy.yaml", []byte(src), []string{"added.example"})
		if err != nil {
			return
		}
		p := mustLoad(t, string(got))
		before := Default()
		if strings.TrimSpace(src) != "" {
			before = mustLoad(t, src)
		}
		last := p.Network.Allow[len(p.Network.Allow)-1]
		if last.String() != "added.example" || len(p.Network.Allow) != len(before.Network.Allow)+1 || !p.sameBut(before, p.Network.Allow) {
			t.Errorf("%q became %q", src, got)
		}
	})
}
