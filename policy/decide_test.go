package policy

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const decidePolicy = `version: 1
network:
  allow:
    - npm
    - example.org
    - "*.example.net"
    - {host: db.internal, port: 5432, tcp: true}
    - {host: 10.1.2.3, port: [80, "8000-8010"]}
    - {host: api.github.com, rules: ["GET /repos/acme/shop/**", "POST /repos/acme/shop/pulls"]}
    - {host: api.github.com, port: 8443}
    - {host: api.github.com, rules: ["GET /rate_limit"]}
    - {host: git.example.com, port: 443, tcp: true}
    - {host: "fd12::1", port: 22, tcp: true}
  deny:
    - bad.example.net
    - {host: "*.evil.example.net", port: 443}
    - {host: example.org, rules: ["* /admin/**", "DELETE /**"]}
    - {host: git.example.com, rules: ["POST /**"]}
`

func TestDecide(t *testing.T) {
	p := mustLoad(t, decidePolicy)
	tests := []struct {
		request Request
		action  Action
		code    Code
		line    int
	}{
		{Request{Host: "example.org", Port: 443}, Allow, CodeAllowed, 5},
		{Request{Host: "EXAMPLE.ORG.", Port: 443}, Allow, CodeAllowed, 5},
		{Request{Host: "example.org", Port: 80}, Deny, CodePort, 5},
		{Request{Host: "example.org", Port: 0}, Deny, CodeBadHost, 0},
		{Request{Host: "www.example.org", Port: 443}, Deny, CodeNoRule, 0},
		{Request{Host: "example.net", Port: 443}, Deny, CodeNoRule, 0},
		{Request{Host: "a.b.example.net", Port: 443}, Allow, CodeAllowed, 6},
		{Request{Host: "evil-example.net", Port: 443}, Deny, CodeNoRule, 0},
		{Request{Host: "bad.example.net", Port: 443}, Deny, CodeDenied, 15},
		{Request{Host: "BAD.example.net.", Port: 443}, Deny, CodeDenied, 15},
		{Request{Host: "x.evil.example.net", Port: 443}, Deny, CodeDenied, 16},
		{Request{Host: "evil.example.net", Port: 443}, Allow, CodeAllowed, 6},
		{Request{Host: "db.internal", Port: 5432}, Allow, CodeAllowed, 7},
		{Request{Host: "10.1.2.3", Port: 8005}, Allow, CodeAllowed, 8},
		{Request{Host: "::ffff:10.1.2.3", Port: 80}, Allow, CodeAllowed, 8},
		{Request{Host: "10.1.2.3", Port: 8011}, Deny, CodePort, 8},
		{Request{Host: "10.1.2.4", Port: 80}, Deny, CodeNoRule, 0},
		{Request{Host: "0x0a.1.2.3", Port: 80}, Deny, CodeBadHost, 0},
		{Request{Host: "a%00.example.net", Port: 443}, Deny, CodeBadHost, 0},
		{Request{Host: "x@example.org", Port: 443}, Deny, CodeBadHost, 0},
		{Request{Host: "", Port: 443}, Deny, CodeBadHost, 0},
		{Request{Host: "fd12::1", Port: 22}, Allow, CodeAllowed, 13},
		{Request{Host: "registry.example.com", Port: 443}, Deny, CodeNoRule, 0},

		{Request{Host: "api.github.com", Port: 443}, Allow, CodeAllowed, 9},
		{Request{"api.github.com", 443, "GET", "/repos/acme/shop"}, Allow, CodeAllowed, 9},
		{Request{"api.github.com", 443, "GET", "/repos/acme/shop/issues/1"}, Allow, CodeAllowed, 9},
		{Request{"api.github.com", 443, "GET", "/repos/%61cme/shop/issues"}, Allow, CodeAllowed, 9},
		{Request{"api.github.com", 443, "POST", "/repos/acme/shop/pulls"}, Allow, CodeAllowed, 9},
		{Request{"api.github.com", 443, "GET", "/rate_limit"}, Allow, CodeAllowed, 11},
		{Request{"api.github.com", 443, "POST", "/repos/acme/shop/issues"}, Deny, CodeRequest, 11},
		{Request{"api.github.com", 443, "GET", "/repos/acme/other"}, Deny, CodeRequest, 11},
		{Request{"api.github.com", 443, "GET", "/repos/acme/shop/../other"}, Deny, CodeBadRequest, 0},
		{Request{"api.github.com", 443, "GET", "/repos/acme/shop/%2e%2e/other"}, Deny, CodeBadRequest, 0},
		{Request{"api.github.com", 443, "GET", "/repos/acme/shop%2F..%2Fother"}, Deny, CodeBadRequest, 0},
		{Request{"api.github.com", 443, "GET", "//repos/acme/shop"}, Deny, CodeBadRequest, 0},
		{Request{"api.github.com", 443, "get", "/rate_limit"}, Deny, CodeBadRequest, 0},
		{Request{"api.github.com", 443, "TRACE", "/rate_limit"}, Deny, CodeBadRequest, 0},
		{Request{"api.github.com", 443, "CONNECT", "/"}, Deny, CodeBadRequest, 0},
		{Request{"api.github.com", 443, "GET", ""}, Deny, CodeBadRequest, 0},
		{Request{"api.github.com", 443, "", "/rate_limit"}, Deny, CodeBadRequest, 0},
		{Request{"api.github.com", 8443, "DELETE", "/anything"}, Allow, CodeAllowed, 10},

		{Request{"example.org", 443, "GET", "/public"}, Allow, CodeAllowed, 5},
		{Request{"example.org", 443, "DELETE", "/public"}, Deny, CodeDenied, 17},
		{Request{"example.org", 443, "GET", "/admin"}, Deny, CodeDenied, 17},
		{Request{"example.org", 443, "GET", "/admin/x"}, Deny, CodeDenied, 17},
		{Request{"example.org", 443, "GET", "/ADMIN/x"}, Deny, CodeDenied, 17},
		{Request{"example.org", 443, "GET", "/admin%2Fx"}, Deny, CodeDenied, 17},
		{Request{"example.org", 443, "GET", "/admin;a=1/x"}, Deny, CodeDenied, 17},
		{Request{"example.org", 443, "GET", "/%61dmin/"}, Deny, CodeDenied, 17},
		{Request{"example.org", 443, "GET", "/administrator"}, Allow, CodeAllowed, 5},
	}
	for _, tt := range tests {
		v := p.Decide(tt.request)
		if v.Action != tt.action || v.Code != tt.code || v.Place().Line != tt.line {
			t.Errorf("Decide(%s) = %s %q in line %d (%s), want %s %q in line %d", tt.request, v.Action, v.Code, v.Place().Line, v.Reason, tt.action, tt.code, tt.line)
		}
		if v.Reason == "" {
			t.Errorf("Decide(%s) gives no reason", tt.request)
		}
		if !v.Allowed() && (v.TCP || v.Inspect) {
			t.Errorf("Decide(%s) denies with %+v", tt.request, v)
		}
	}
}

func TestDecideInspect(t *testing.T) {
	p := mustLoad(t, decidePolicy)
	for _, tt := range []struct {
		host         string
		port         uint16
		inspect, tcp bool
	}{
		{"a.example.net", 443, false, false},
		{"example.org", 443, true, false}, // a deny rule looks at requests
		{"api.github.com", 443, true, false},
		{"api.github.com", 8443, false, false},
		{"db.internal", 5432, false, true},
		{"git.example.com", 443, true, false}, // a deny rule with requests takes raw TCP away
	} {
		v := p.Decide(Request{Host: tt.host, Port: tt.port})
		if !v.Allowed() || v.Inspect != tt.inspect || v.TCP != tt.tcp {
			t.Errorf("Decide(%s:%d) = %+v, want inspect %v, tcp %v", tt.host, tt.port, v, tt.inspect, tt.tcp)
		}
	}
}

func TestZeroDenies(t *testing.T) {
	if (Verdict{}).Allowed() || Action(0) != Deny || (Verdict{}).PermitsAddress(netip.MustParseAddr("8.8.8.8")) {
		t.Error("the zero Verdict allows")
	}
	for name, p := range map[string]*Policy{"nil": nil, "zero": {}, "default": Default(), "zero rule": {Network: Network{Allow: []Rule{{}}}}} {
		for _, r := range []Request{{}, {Host: "example.org", Port: 443}, {"example.org", 443, "GET", "/"}, {Host: "10.0.0.1", Port: 1}} {
			if p.Decide(r).Allowed() {
				t.Errorf("the %s policy allows %s", name, r)
			}
		}
	}
}

func TestPermitsAddress(t *testing.T) {
	p := mustLoad(t, `version: 1
network:
  allow:
    - public.example.org
    - private.example.org
    - {host: private.example.org, port: "1-1000", private: true}
    - 10.1.2.3
    - 169.254.169.254
    - {host: db, port: 5432, tcp: true, to: "127.0.0.1:5432"}
    - {host: db2, port: 5432, tcp: true, to: "db.corp.example:5432"}
`)
	for _, tt := range []struct {
		host    string
		port    uint16
		yes, no string
	}{
		{"public.example.org", 443, "8.8.8.8 2606:4700::1", "10.0.0.1 127.0.0.1 ::1 169.254.169.254 100.64.0.1 ::ffff:10.0.0.1 64:ff9b::a00:1 192.0.2.1 0.0.0.0 224.0.0.1 fd00::1"},
		{"private.example.org", 443, "8.8.8.8 10.0.0.1 127.0.0.1 fd00::1 100.64.0.1 169.254.1.1", "169.254.169.254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 0.0.0.0 224.0.0.1 100.100.100.200"},
		{"10.1.2.3", 443, "10.1.2.3 ::ffff:10.1.2.3", "10.1.2.4 8.8.8.8"},
		{"169.254.169.254", 443, "169.254.169.254", "169.254.169.253"},
		{"db", 5432, "127.0.0.1", "127.0.0.2 8.8.8.8"},
		{"db2", 5432, "8.8.8.8 10.0.0.1", "169.254.169.254"},
	} {
		v := p.Decide(Request{Host: tt.host, Port: tt.port})
		for _, s := range strings.Fields(tt.yes) {
			if !v.PermitsAddress(netip.MustParseAddr(s)) {
				t.Errorf("%s may not dial %s", tt.host, s)
			}
		}
		for _, s := range strings.Fields(tt.no) {
			if v.PermitsAddress(netip.MustParseAddr(s)) {
				t.Errorf("%s may dial %s", tt.host, s)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	p := mustLoad(t, decidePolicy)
	for _, tt := range []struct{ target, method, path, line, add string }{
		{"example.org", "", "", "example.org", ""},
		{"new.example.com", "", "", "", "new.example.com"},
		{"new.example.com:80", "", "", "", `"new.example.com:80"`},
		{"new.example.com:5432", "", "", "", "{host: new.example.com, port: 5432, tcp: true}"},
		{"example.org:22", "", "", "example.org", "{host: example.org, port: 22, tcp: true}"},
		{"api.github.com", "delete", "/repos/acme/shop?x=1", `{host: api.github.com, rules: ["GET /rate_limit"]}`, `{host: api.github.com, rules: ["DELETE /repos/acme/shop"]}`},
		{"new.example.com", "GET", "/a*b", "", `{host: new.example.com, rules: ["GET /a%2Ab"]}`},
		{"bad.example.net", "", "", "{host: bad.example.net, port: \"1-65535\"}", ""},
		{"0x7f.1", "", "", "", ""},
		{"127.0.0.1:80", "", "", "", ""},
		{"[2606:4700::1]:443", "", "", "", `"[2606:4700::1]"`},
		{"2606:4700::1", "", "", "", `"[2606:4700::1]"`},
		{"redis:6379", "", "", "", "{host: redis, port: 6379, tcp: true, private: true}"},
		{"*.example.com", "", "", "", ""},
	} {
		r, err := ParseRequest(tt.target, tt.method, tt.path)
		if err != nil {
			t.Errorf("ParseRequest(%q): %v", tt.target, err)
			continue
		}
		e := p.Explain(r)
		got, want := []string{e.Line, e.Add}, []string{tt.line, tt.add}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Explain(%s) (-want +got):\n%s%+v", r, diff, e)
		}
		if e.Verdict.Allowed() == (e.Add != "" || e.Hint != "") {
			t.Errorf("Explain(%s) = %+v", r, e)
		}
		if e.Add != "" { // what is proposed must be accepted, and help
			added := mustLoad(t, "version: 1\nnetwork:\n  allow:\n    - "+e.Add+"\n")
			if v := added.Decide(r); !v.Allowed() {
				t.Errorf("%s does not help %s: %s", e.Add, r, v.Reason)
			}
		}
	}
	for _, s := range []string{"https://example.org/", "example.org/x", "example.org:0", "example.org:x", "example.org:70000"} {
		if r, err := ParseRequest(s, "", ""); err == nil {
			t.Errorf("ParseRequest(%q) = %+v, want an error", s, r)
		}
	}
	if _, err := ParseRequest("example.org", "GET", ""); err == nil {
		t.Error("a method without a path is accepted")
	}
}

// FuzzDecide: no request outside of the allowed pattern is allowed, and none inside of a denied one. The reference decodes
// paths completely, as a lenient server does, and compares hosts as strings.
func FuzzDecide(f *testing.F) {
	for _, s := range []string{
		"example.org|/a/**|/a/b/**|example.org|GET|/a/c", "*.example.org|/*|/x|a.example.org.|POST|/y", "bücher.example|/@*%2F*|/z|BÜCHER.example|GET|/@a%2fb", "10.0.0.1|/**|/**|::ffff:10.0.0.1|GET|/",
		"example.org|/a/*|/q|example.org|GET|/a/..%2fb", "example.org|/**|/admin/**|EXAMPLE.ORG|GET|/ADMIN;x/y", "0x7f.1|/|/|127.0.0.1|GET|/", "example.org|/**|/a%2Fb|example.org|GET|/a%2fb", "example.org|/a/*|/a/b|example.org|GET|/./a/././c",
	} {
		p := strings.Split(s, "|")
		f.Add(p[0], p[1], p[2], uint16(443), p[3], p[4], p[5], uint16(443))
	}
	f.Fuzz(func(t *testing.T, allowHost, allowPath, denyPath string, allowPort uint16, host, method, path string, port uint16) {
		h, err1 := ParseHost(allowHost)
		allow, err2 := ParseHTTPRule("GET " + allowPath)
		deny, err3 := ParseHTTPRule("* " + denyPath)
		if err1 != nil || err2 != nil || err3 != nil {
			return
		}
		ports := []PortRange{{allowPort, allowPort}}
		p := &Policy{Network: Network{
			Allow: []Rule{{Host: h, Ports: ports, HTTP: []HTTPRule{allow}}},
			Deny:  []Rule{{Host: h, Ports: ports, HTTP: []HTTPRule{deny}}},
		}}
		connection := p.Decide(Request{Host: host, Port: port})
		if connection.Allowed() && (!referenceHost(h, host) || port != allowPort || !connection.Inspect || connection.TCP) {
			t.Errorf("policy for %s:%d allows a connection to %q:%d: %+v", h, allowPort, host, port, connection)
		}
		v := p.Decide(Request{host, port, method, path})
		if !v.Allowed() || method == "" && path == "" {
			return
		}
		decoded, err := url.PathUnescape(withoutPlainDots(path))
		if err != nil || hasDots(decoded) {
			t.Fatalf("%q is allowed", path)
		}
		if !connection.Allowed() || method != "GET" || !referenceRule(t, allowPath).MatchString(latin1(decoded)) {
			t.Errorf("%s %s is allowed for %s:%d %s", method, path, h, allowPort, allow)
		}
		if referenceRule(t, lowerBytes(denyPath)).MatchString(latin1(lowerBytes(decoded))) {
			t.Errorf("%s is allowed in spite of %s", path, deny)
		}
	})
}

// lowerBytes lowers ASCII letters alone: strings.ToLower makes all bytes that are no UTF-8 the same.
func lowerBytes(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// withoutPlainDots takes out what every server reads in one way: a segment that is a dot, written as such (RFC 3986, 5.2.4, 2B).
func withoutPlainDots(path string) string {
	for strings.Contains(path, "/./") {
		path = strings.ReplaceAll(path, "/./", "/")
	}
	if strings.HasSuffix(path, "/.") {
		path = strings.TrimSuffix(path, ".")
	}
	return path
}

func hasDots(decoded string) bool {
	for name := range strings.SplitSeq(strings.ReplaceAll(decoded, `\`, "/"), "/") {
		name, _, _ = strings.Cut(name, ";")
		if name == "." || name == ".." {
			return true
		}
	}
	return false
}

// referenceHost compares the plain spellings of ASCII hosts; for others it trusts the ASCII form.
func referenceHost(h Host, host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return h.Addr() == addr.Unmap()
	}
	if h.Addr().IsValid() {
		return false
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	if !isASCII(host) || strings.Contains(name, "xn--") {
		target, err := ParseTarget(host)
		if err != nil {
			return false
		}
		name = target.String()
	}
	if parent, ok := strings.CutPrefix(h.String(), "*."); ok {
		return strings.HasSuffix(name, "."+parent)
	}
	return name == h.String()
}

func TestMatchRef(t *testing.T) {
	for _, tt := range []struct {
		pattern, ref string
		want         bool
	}{
		{"refs/heads/agent/*", "refs/heads/agent/one", true},
		{"refs/heads/agent/*", "refs/heads/agent/one/two", false},
		{"refs/heads/agent/**", "refs/heads/agent/one/two", true},
		{"refs/heads/agent/*", "refs/heads/agent", false},
		{"refs/heads/agent/*", "refs/heads/main", false},
		{"refs/heads/agent/*", "refs/heads/agent/*", false},
		{"refs/heads/agent/*", "refs/heads/Agent/one", false},
		{"refs/heads/main", "refs/heads/main", true},
		{"refs/heads/v*", "refs/tags/v1", false},
	} {
		if got := MatchRef(tt.pattern, tt.ref); got != tt.want {
			t.Errorf("MatchRef(%q, %q) = %v", tt.pattern, tt.ref, got)
		}
	}
}

// TestGivenGitHub: a token that existed before can be held to repositories and refs, and to nothing that only GitHub can see to.
func TestGivenGitHub(t *testing.T) {
	for text, want := range map[string]string{
		`{from: "env:T", repositories: [acme/shop], push: ["refs/heads/agent/*"]}`:  "",
		`{from: "env:T", repositories: [acme/shop]}`:                                "",
		`{from: "env:T", repositories: [self]}`:                                     "credentials.github.repositories",
		`{from: "env:T", push: ["refs/heads/agent/*"]}`:                             "credentials.github.push",
		`{from: "env:T", repositories: [acme/shop], permissions: {contents: read}}`: "credentials.github.permissions",
	} {
		_, err := Load("f", []byte("version: 1\ncredentials:\n  github: "+text+"\n"))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
