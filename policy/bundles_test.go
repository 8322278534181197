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
			if len(b.Hosts) > 0 || b.Source != "" || b.How == "" || b.Mend == "" {
				t.Errorf("%s is discovered, and has a list, or says not how or what to do: %+v", b.Name, b)
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
			if u, err := url.Parse(h.Source); err != nil || u.Scheme != "https" || h.Reason == "" || len(h.Ports) == 0 {
				t.Errorf("%s: %s lacks a reason, a source or a port: %+v", b.Name, h.Host, h)
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

func found(name string, hosts ...string) Bundle {
	b := Bundle{Name: name, Discovered: true}
	for _, h := range hosts {
		host, port, _ := strings.Cut(h, " ")
		r := PortRange{443, 443}
		if port != "" {
			n, err := parsePort(port)
			if err != nil {
				panic(err)
			}
			r = PortRange{n, n}
		}
		b.Hosts = append(b.Hosts, BundleHost{Host: mustHost(host), Ports: []PortRange{r}, Reason: "project: .npmrc:1"})
	}
	return b
}

func TestExpandWithFound(t *testing.T) {
	p := mustLoad(t, "version: 1\nnetwork:\n  allow: [npm, pypi, \"*.example.org\"]\n  deny: [go]\n")
	got, problems := p.Expand(
		found("npm", "npm.example.com", "old.example.com 80", "npm.example.com 8443"),
		found("pypi", "pip.example.com", "pypi.org"), found("go", "goproxy.example.com"),
		found("cargo", "crates.example.com"), // not in the policy
	)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	tests := []struct {
		host string
		port uint16
		want Code
	}{
		{"npm.example.com", 443, CodeAllowed},
		{"npm.example.com", 8443, CodeAllowed},
		{"npm.example.com", 80, CodePort},
		{"old.example.com", 80, CodeAllowed},
		{"old.example.com", 443, CodePort},
		{"pip.example.com", 443, CodeAllowed},
		{"files.pythonhosted.org", 443, CodeAllowed},
		{"goproxy.example.com", 22, CodeDenied},
		{"crates.example.com", 443, CodeNoRule},
		{"evil.npm.example.com", 443, CodeNoRule},
	}
	for _, tt := range tests {
		if v := got.Decide(Request{Host: tt.host, Port: tt.port}); v.Code != tt.want {
			t.Errorf("Decide(%s:%d) = %q, want %q", tt.host, tt.port, v.Code, tt.want)
		}
	}
	if v := got.Decide(Request{Host: "npm.example.com", Port: 443}); v.Rule.Bundle != "npm" || v.Place().Line != 3 || v.Private {
		t.Errorf("rule %+v", v.Rule)
	}
	again, problems := got.Expand()
	if len(problems) > 0 || len(again.Network.Allow) != len(got.Network.Allow) || len(again.Network.Deny) != len(got.Network.Deny) {
		t.Errorf("expanding twice: %v, %d rules, want %d", problems, len(again.Network.Allow), len(got.Network.Allow))
	}
}

// What a file in the project names must not open the local network.
func TestExpandRefusesLocalHosts(t *testing.T) {
	local := Bundle{Name: "npm", Missing: "the registry is local"}
	for _, addr := range []string{"10.0.0.5", "169.254.169.254", "100.64.0.1", "fd00::1"} {
		h := mustHost(addr)
		local.Hosts = append(local.Hosts, BundleHost{Host: h, Ports: []PortRange{{443, 443}}})
	}
	local.Hosts = append(local.Hosts, BundleHost{Host: Host{name: "nexus"}, Ports: []PortRange{{443, 443}}},
		BundleHost{Host: mustHost("*.example.com"), Ports: []PortRange{{443, 443}}}, BundleHost{Ports: []PortRange{{443, 443}}})
	p := mustLoad(t, "version: 1\nnetwork:\n  allow: [npm]\n")
	got, problems := p.Expand(local)
	if len(got.Network.Allow) != 0 {
		t.Errorf("allowed: %v", got.Network.Allow)
	}
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "the registry is local") || problems[0].Hint == "" {
		t.Errorf("problems: %v", problems)
	}
	if control, problems := p.Expand(found("npm", "9.9.9.9")); len(problems) > 0 || !control.Decide(Request{Host: "9.9.9.9", Port: 443}).Allowed() {
		t.Errorf("a public address: %v", problems)
	}
}

func TestUsedBundles(t *testing.T) {
	p := mustLoad(t, "version: 1\nnetwork:\n  allow: [pypi, npm, a.example]\n  deny: [go, npm]\n")
	if got, want := p.UsedBundles(), []string{"go", "npm", "pypi"}; !slices.Equal(got, want) {
		t.Errorf("UsedBundles() = %q, want %q", got, want)
	}
}
