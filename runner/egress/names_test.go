package egress

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/org/agent-sandbox/policy"
)

func newGateway(t testing.TB, p *policy.Policy) (*Gateway, *recording) {
	t.Helper()
	rec := newRecording(t)
	g, err := New(Config{Policy: p, Recorder: rec})
	if err != nil {
		t.Fatal(err)
	}
	return g, rec
}

func TestResolve(t *testing.T) {
	g, rec := newGateway(t, mustPolicy(t, `  allow: [a.example, "*.wild.example", "xn--bcher-kva.example", pypi, {host: raw.example, port: "22-30", tcp: true}]
  deny: [no.wild.example]
`))
	long := strings.Repeat("a.", 130) + "wild.example"
	tests := []struct {
		name, kind string
		allowed    bool
		address    bool
	}{
		{"a.example", "A", true, true},
		{"A.Example.", "A", true, true},
		{"a.example", "AAAA", true, false},
		{"a.example", "HTTPS", true, false},
		{"a.example", "TXT", true, false},
		{"b\u00fccher.example", "A", true, true},
		{"pypi.org", "A", true, true},
		{"raw.example", "A", true, true},
		{"x.y.wild.example", "A", true, true},
		{"wild.example", "A", false, false},
		{"no.wild.example", "A", false, false},
		{"no.wild.example", "AAAA", false, false},
		{"evil.example", "A", false, false},
		{"a.example..", "A", false, false},
		{".a.example", "A", false, false},
		{"a.example\x00", "A", false, false},
		{"a.example\x00.wild.example", "A", false, false},
		{"a%00.wild.example", "A", false, false},
		{"user@a.wild.example", "A", false, false},
		{"a b.wild.example", "A", false, false},
		{"\xff.wild.example", "A", false, false},
		{long, "A", false, false},
		{strings.Repeat("a", 64) + ".wild.example", "A", false, false},
		{strings.Repeat("\u00fc", 1<<20) + ".wild.example", "A", false, false},
		{"1.2.3.4", "A", false, false},
		{"0x7f.1", "A", false, false},
		{"2130706433", "A", false, false},
		{"", "A", false, false},
	}
	refused := 0
	for _, tt := range tests {
		addr, allowed, reason := g.Resolve(tt.name, tt.kind)
		if allowed != tt.allowed || addr.IsValid() != tt.address || allowed != (reason == "") {
			t.Errorf("Resolve(%.40q, %s) = %v, %v, %q, want %v, %v", tt.name, tt.kind, addr, allowed, reason, tt.allowed, tt.address)
		}
		if !allowed {
			refused++
		}
	}
	if len(rec.names) != refused {
		t.Errorf("%d refusals recorded, want %d", len(rec.names), refused)
	}
	for _, n := range rec.names {
		if len(n.Name) > maxText || n.Reason == "" {
			t.Errorf("record of %d bytes, reason %q", len(n.Name), n.Reason)
		}
	}
}

func TestOneAddressForEachName(t *testing.T) {
	g, _ := newGateway(t, mustPolicy(t, "  allow: [\"*.example.com\", \"28.4.0.2\", \"28.4.0.3\"]\n"))
	byAddr := map[netip.Addr]string{}
	for i := range maxNames {
		name := fmt.Sprintf("n%d.example.com", i)
		addr, ok, reason := g.Resolve(name, "A")
		if !ok || !synthetic.Contains(addr) || policy.AddressClass(addr) != policy.ClassPublic {
			t.Fatalf("%s: %v %v %s", name, addr, ok, reason)
		}
		if other, taken := byAddr[addr]; taken {
			t.Fatalf("%s has the address of %s", name, other)
		}
		byAddr[addr] = name
		if last := addr.As4()[3]; last == 0 || last == 255 {
			t.Fatalf("%s has the address %s", name, addr)
		}
	}
	for _, literal := range []string{"28.4.0.2", "28.4.0.3"} {
		if name := byAddr[netip.MustParseAddr(literal)]; name != "" {
			t.Errorf("%s has the address %s, which the policy names", name, literal)
		}
	}
	if _, ok, reason := g.Resolve("one-more.example.com", "A"); ok || !strings.Contains(reason, "limit") {
		t.Errorf("the bound: %v %q", ok, reason)
	}
	first, _, _ := g.Resolve("n0.example.com", "A")
	if again, _, _ := g.Resolve("N0.example.com.", "A"); again != first || byAddr[first] != "n0.example.com" {
		t.Errorf("%s and %s for one name", first, again)
	}
}

// FuzzResolve: no name gets an address unless its one spelling is a host that the policy allows.
func FuzzResolve(f *testing.F) {
	for _, seed := range []string{"a.example.com", "A.EXAMPLE.COM.", "example.com", "evil.com", "a.example.com\x00.evil", "b\u00fc.example.com", "a.example.com%00", "\uff41.example.com", "evil.com\u3002example.com"} {
		f.Add(seed)
	}
	p := mustPolicy(f, "  allow: [\"*.example.com\"]\n  deny: [no.example.com]\n")
	f.Fuzz(func(t *testing.T, name string) {
		g, _ := newGateway(t, p)
		addr, ok, _ := g.Resolve(name, "A")
		if !ok {
			return
		}
		got := g.names.name(addr)
		if !strings.HasSuffix(got, ".example.com") || got == "no.example.com" || strings.HasSuffix(got, ".") || len(got) > 253 || !utf8.ValidString(name) {
			t.Errorf("%q got an address as %q", name, got)
		}
		for _, c := range []byte(got) {
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
				t.Errorf("%q got an address as %q", name, got)
			}
		}
	})
}

func decide(g *Gateway, host string, port uint16) policy.Verdict {
	return g.policy.Decide(policy.Request{Host: host, Port: port})
}

// TestUseLoopback: every name has a loopback address of its own, and none that a service of the host or the resolver has.
func TestUseLoopback(t *testing.T) {
	g, _ := newGateway(t, mustPolicy(t, "  allow: [\"*.example.com\"]\n"))
	g.UseLoopback()
	seen := map[netip.Addr]bool{}
	for i := range maxNames {
		addr, ok, reason := g.Resolve(fmt.Sprintf("n%d.example.com", i), "A")
		if !ok || !loopback.Contains(addr) || seen[addr] {
			t.Fatalf("n%d: %v, %v, %s; given before: %v", i, addr, ok, reason, seen[addr])
		}
		seen[addr] = true
	}
}
