package policy

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseHost(t *testing.T) {
	good := map[string]string{
		"example.org":           "example.org",
		"EXAMPLE.Org":           "example.org",
		"*.Example.org":         "*.example.org",
		"bücher.example":        "xn--bcher-kva.example",
		"xn--bcher-kva.example": "xn--bcher-kva.example",
		"例え。テスト":                "xn--r8jz45g.xn--zckzah",
		"ＥＸＡＭＰＬＥ.org":           "example.org",
		"a_b.example.org":       "a_b.example.org",
		"r3---sn.example.org":   "r3---sn.example.org",
		"10.1.2.3":              "10.1.2.3",
		"１０.1.2.3":              "10.1.2.3",
		"2001:4860::1":          "2001:4860::1",
		"169.254.169.254":       "169.254.169.254", // an address that is named is meant
		"postgres":              "postgres",
		"github.io":             "github.io",
		"*.acme.github.io":      "*.acme.github.io",
		"1.2.3.4.example":       "1.2.3.4.example",
	}
	for s, want := range good {
		h, err := ParseHost(s)
		if err != nil || h.String() != want {
			t.Errorf("ParseHost(%q) = %q, %v; want %q", s, h, err, want)
		}
	}
	for _, s := range []string{
		"", ".", "..", "*", "*.", "*.com", "*.co.uk", "*.github.io", "*.internal", "*.*.example.org", "a*.example.org", "*a.example.org", "example.*",
		"example.org.", ".example.org", "a..b", "-a.b", "a-.b", "a b.c", "a\x00.b", "a%00.b", "exam%70le.org", "user@example.org", "example.org:443", "https://example.org", "example.org/x", "10.0.0.0/8",
		"127.0.0.1", "0.0.0.0", "0", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "1.2.3", "1.2.3.256", "1.2.3.4.5", "1.2.3.0x4", "a.0x", "a.1", "１２７.0.0.1",
		"::1", "::", "[::1]", "fe80::1%eth0", "::ffff:10.0.0.1", "ff02::1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "localhost", "LOCALHOST", "a.localhost", "*.10.0.0.1",
		strings.Repeat("a", 64) + ".org", strings.Repeat("a.", 127) + "org", "xn--a.org", "xn--.org", "a\u202eb.org", "\xff.org", "ex\u00adample..org", "a,b.org", "a;b.org", `a\b.org`,
	} {
		if h, err := ParseHost(s); err == nil {
			t.Errorf("ParseHost(%q) = %q, want an error", s, h)
		} else if h != (Host{}) {
			t.Errorf("ParseHost(%q) gives %q beside its error", s, h)
		}
	}
}

func TestHostCovers(t *testing.T) {
	tests := []struct {
		pattern, target string
		want            bool
	}{
		{"example.org", "example.org", true},
		{"example.org", "EXAMPLE.ORG.", true},
		{"example.org", "a.example.org", false},
		{"*.example.org", "a.example.org", true},
		{"*.example.org", "a.b.example.org", true},
		{"*.example.org", "example.org", false},
		{"*.example.org", "aexample.org", false},
		{"*.example.org", "example.org.evil.com", false},
		{"bücher.example", "BÜCHER.example", true},
		{"bücher.example", "xn--BCHER-kva.example", true},
		{"10.1.2.3", "10.1.2.3", true},
		{"10.1.2.3", "::ffff:10.1.2.3", true},
		{"2001:4860::1", "2001:4860:0::1", true},
	}
	for _, tt := range tests {
		pattern, err := ParseHost(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		target, err := ParseTarget(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		if got := pattern.covers(target); got != tt.want {
			t.Errorf("%s covers %s = %v, want %v", tt.pattern, tt.target, got, tt.want)
		}
	}
	for _, s := range []string{"", ".", "a..", "a%00b", "a b", "x@y", "0x7f.1", "127.1", "fe80::1%eth0", "a:b", "*.example.org", "\x00"} {
		if h, err := ParseTarget(s); err == nil {
			t.Errorf("ParseTarget(%q) = %q, want an error", s, h)
		}
	}
	if (Host{}).covers(Host{}) {
		t.Error("the zero Host covers itself")
	}
}

func TestAddressClass(t *testing.T) {
	for text, want := range map[string]Class{
		"8.8.8.8": ClassPublic, "140.82.114.22": ClassPublic, "2606:4700::1": ClassPublic, "64:ff9b::808:808": ClassPublic, "2002:808:808::1": ClassPublic,
		"10.0.0.1": ClassPrivate, "172.16.0.1": ClassPrivate, "172.31.255.255": ClassPrivate, "172.32.0.1": ClassPublic, "192.168.1.1": ClassPrivate, "fd00::1": ClassPrivate, "fec0::1": ClassPrivate,
		"127.0.0.1": ClassLoopback, "127.255.255.255": ClassLoopback, "::1": ClassLoopback, "::ffff:127.0.0.1": ClassLoopback, "::127.0.0.1": ClassLoopback,
		"64:ff9b::7f00:1": ClassLoopback, "64:ff9b:1::a00:1": ClassPrivate, "2002:7f00:1::": ClassLoopback, "2002:a00:1::": ClassPrivate, "2001:0:1::f5ff:fffe": ClassPrivate,
		"169.254.1.1": ClassLinkLocal, "fe80::1": ClassLinkLocal,
		"169.254.169.254": ClassMetadata, "::ffff:169.254.169.254": ClassMetadata, "64:ff9b::a9fe:a9fe": ClassMetadata, "2002:a9fe:a9fe::": ClassMetadata, "fd00:ec2::254": ClassMetadata, "100.100.100.200": ClassMetadata, "168.63.129.16": ClassMetadata,
		"100.64.0.1": ClassCGNAT, "100.127.255.255": ClassCGNAT, "100.128.0.1": ClassPublic,
		"224.0.0.1": ClassMulticast, "239.255.255.255": ClassMulticast, "ff02::1": ClassMulticast,
		"0.0.0.0": ClassUnspecified, "0.1.2.3": ClassUnspecified, "::": ClassUnspecified,
		"198.18.0.1": ClassReserved, "198.19.255.255": ClassReserved, "192.0.2.1": ClassReserved, "203.0.113.1": ClassReserved, "240.0.0.1": ClassReserved, "255.255.255.255": ClassReserved,
		"2001:db8::1": ClassReserved, "100::1": ClassReserved, "4000::1": ClassReserved, "64:ff9b:1::808:808": ClassReserved,
	} {
		if got := AddressClass(netip.MustParseAddr(text)); got != want {
			t.Errorf("AddressClass(%s) = %s, want %s", text, got, want)
		}
	}
	if got := AddressClass(netip.Addr{}); got == ClassPublic {
		t.Error("no address is public")
	}
	if Class(0) == ClassPublic {
		t.Error("the zero Class is public")
	}
}

// FuzzParseHost: a host that is accepted has one spelling, which means the same to every resolver.
func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"example.org", "*.example.org", "bücher.example", "0x7f.1", "127.1", "::ffff:1.2.3.4", "a%00b", "１２７.1", "例え。テスト", "xn--bcher-kva.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHost(s)
		if err != nil {
			return
		}
		again, err := ParseHost(h.String())
		if err != nil || again != h {
			t.Errorf("ParseHost(%q) = %q, but that gives %q, %v", s, h, again, err)
		}
		if h.Addr().IsValid() {
			return
		}
		name := strings.TrimPrefix(h.String(), "*.")
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "0123456789") == "" {
			t.Errorf("ParseHost(%q) = %q", s, h)
		}
	})
}
