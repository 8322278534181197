package policy

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestBundlesAreComplete(t *testing.T) {
	var names []string
	for _, row := range bundleData() {
		names = append(names, row.name)
		b, ok := LookupBundle(row.name)
		if !ok || b.Name != row.name || b.About == "" {
			t.Errorf("LookupBundle(%q) = %+v, %v", row.name, b, ok)
		}
		if b.Discovered {
			if len(b.Hosts) > 0 || b.Source != "" {
				t.Errorf("%s is discovered, and has a list", b.Name)
			}
			continue
		}
		if u, err := url.Parse(b.Source); err != nil || u.Scheme != "https" {
			t.Errorf("%s: source %q", b.Name, b.Source)
		}
		if len(b.Hosts) == 0 {
			t.Errorf("%s has no host", b.Name)
		}
		for i, h := range b.Hosts {
			if h.Reason == "" || len(h.Ports) == 0 {
				t.Errorf("%s: %s lacks a reason or a port", b.Name, h.Host)
			}
			if i > 0 && cmp.Compare(b.Hosts[i-1].Host.String(), h.Host.String()) >= 0 {
				t.Errorf("%s: %s is there twice", b.Name, h.Host)
			}
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, Bundles()) {
		t.Errorf("data for %v, the loader knows %v", names, Bundles())
	}
	if _, ok := LookupBundle("nonsense"); ok {
		t.Error("a bundle that isn't")
	}
}

func TestExpand(t *testing.T) {
	p := mustLoad(t, "version: 1\nnetwork:\n  allow: [pypi, \"*.example.org\"]\n  deny: [ghcr]\n")
	got, problems := p.Expand()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for host, want := range map[string]Code{
		"pypi.org": CodeAllowed, "files.pythonhosted.org": CodeAllowed, "a.example.org": CodeAllowed,
		"ghcr.io": CodeDenied, "evil.pypi.org": CodeNoRule,
	} {
		if v := got.Decide(Request{Host: host, Port: 443}); v.Code != want {
			t.Errorf("Decide(%s) = %q, want %q", host, v.Code, want)
		}
	}
	if v := got.Decide(Request{Host: "ghcr.io", Port: 22}); v.Code != CodeDenied {
		t.Errorf("a denied bundle on another port: %q", v.Code)
	}
	v := got.Decide(Request{Host: "pypi.org", Port: 443})
	if v.Rule.String() != "pypi" || v.Place().Line != 3 {
		t.Errorf("rule %q at %s", v.Rule, v.Place())
	}
	if v := p.Decide(Request{Host: "pypi.org", Port: 443}); v.Allowed() {
		t.Error("Expand has changed the policy itself")
	}
}

func TestExpandNamesDiscoveredBundles(t *testing.T) {
	p := mustLoad(t, "version: 1\nnetwork:\n  allow: [pypi, npm]\n  deny: [go]\n")
	_, problems := p.Expand()
	if len(problems) != 2 || problems[0].Path != "network.allow[1]" || problems[1].Path != "network.deny[0]" || !strings.Contains(problems[0].Message, "npm") {
		t.Errorf("problems: %v", problems)
	}
}

func TestReachable(t *testing.T) {
	p := mustLoad(t, `version: 1
network:
  allow:
    - {host: a.example, port: [80, "8000-8010"]}
    - {host: shut.example, port: "100-200"}
    - {host: hole.example, port: "100-200"}
    - "*.wild.example"
    - {host: 1.1.1.1}
  deny:
    - shut.example
    - {host: hole.example, port: "1-150"}
`)
	tests := []struct {
		name string
		want Code
	}{
		{"a.example", CodeAllowed},
		{"A.Example.", CodeAllowed},
		{"x.wild.example", CodeAllowed},
		{"wild.example", CodeNoRule},
		{"shut.example", CodeDenied},
		{"hole.example", CodeAllowed},
		{"other.example", CodeNoRule},
		{"1.1.1.1", CodeBadHost},
		{"a.example\x00.evil", CodeBadHost},
		{"", CodeBadHost},
	}
	for _, tt := range tests {
		if v := p.Reachable(tt.name); v.Code != tt.want || v.Allowed() != (tt.want == CodeAllowed) {
			t.Errorf("Reachable(%q) = %q, %v, want %q", tt.name, v.Code, v.Action, tt.want)
		}
	}
	var none *Policy
	if none.Reachable("a.example").Allowed() {
		t.Error("no policy allows")
	}
}

func TestPorts(t *testing.T) {
	p := mustLoad(t, `version: 1
network:
  allow: ["*.example.org", "git.example.org:22", {host: db.example.org, port: [5432, "8000-8010"], tcp: true}, 8.8.8.8, {host: shut.example.org}]
  deny: ["db.example.org:8005", shut.example.org]
`)
	for name, want := range map[string]string{
		"x.example.org":    "443",
		"git.example.org":  "22, 443",
		"DB.example.org.":  "443, 5432, 8000-8004, 8006-8010",
		"shut.example.org": "",
		"example.org":      "",
		"8.8.8.8":          "",
		"":                 "",
	} {
		if got := joinPorts(p.Ports(name)); got != want {
			t.Errorf("Ports(%q) = %q, want %q", name, got, want)
		}
	}
	var none *Policy
	if got := none.Ports("a.example"); got != nil {
		t.Errorf("no policy has the ports %v", got)
	}
}

// FuzzReachable holds the shortcut over ports against asking for every one.
func FuzzReachable(f *testing.F) {
	f.Add(uint16(100), uint16(200), uint16(1), uint16(150))
	f.Add(uint16(1), uint16(65535), uint16(1), uint16(65534))
	f.Fuzz(func(t *testing.T, a, b, c, d uint16) {
		if a == 0 || c == 0 || a >= b || c >= d {
			t.Skip()
		}
		p := mustLoad(t, fmt.Sprintf("version: 1\nnetwork:\n  allow: [{host: a.example, port: \"%d-%d\"}]\n  deny: [{host: a.example, port: \"%d-%d\"}]\n", a, b, c, d))
		want := false
		ports := p.Ports("a.example")
		for port := 1; port <= allPorts; port++ {
			allowed := p.Decide(Request{Host: "a.example", Port: uint16(port)}).Allowed()
			want = want || allowed
			if listed := slices.ContainsFunc(ports, func(r PortRange) bool { return r.contains(uint16(port)) }); listed != allowed {
				t.Fatalf("allow %d-%d, deny %d-%d: port %d is among %v: %v, want %v", a, b, c, d, port, ports, listed, allowed)
			}
		}
		if got := p.Reachable("a.example").Allowed(); got != want {
			t.Errorf("allow %d-%d, deny %d-%d: %v, want %v", a, b, c, d, got, want)
		}
	})
}
