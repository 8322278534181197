package guest

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"

	"github.com/org/agent-sandbox/runner/link"
)

// packet4 is an IPv4 packet with so many bytes of options (RFC 791, section 3.1).
func packet4(proto byte, dst string, options int, payload ...byte) []byte {
	p := make([]byte, 20+options)
	p[0], p[9] = 0x40|byte(5+options/4), proto
	copy(p[16:], netip.MustParseAddr(dst).AsSlice())
	return append(p, payload...)
}

// packet6 is an IPv6 packet (RFC 8200, section 3).
func packet6(next byte, dst string, payload ...byte) []byte {
	p := make([]byte, 40)
	p[0], p[6] = 0x60, next
	copy(p[24:], netip.MustParseAddr(dst).AsSlice())
	return append(p, payload...)
}

func TestParsePacket(t *testing.T) {
	udp := []byte{0, 1, 0x01, 0xbb, 0, 8, 0, 0} // to port 443
	for _, tt := range []struct {
		name   string
		packet []byte
		proto  string
		addr   string // empty: no packet
	}{
		{"UDP", packet4(17, "192.0.2.7", 0, udp...), "udp", "192.0.2.7:443"},
		{"UDP after options", packet4(17, "192.0.2.7", 40, udp...), "udp", "192.0.2.7:443"},
		{"UDP over IPv6", packet6(17, "2001:db8::7", udp...), "udp", "[2001:db8::7]:443"},
		{"UDP, cut", packet4(17, "192.0.2.7", 0, udp[:3]...), "udp", "192.0.2.7:0"},
		{"options, cut", packet4(17, "192.0.2.7", 40)[:30], "udp", "192.0.2.7:0"},
		{"ICMP", packet4(1, "192.0.2.7", 0, 8, 0), "icmp", "192.0.2.7:0"},
		{"ICMPv6", packet6(58, "2001:db8::7", 128), "icmp", "[2001:db8::7]:0"},
		{"SCTP", packet4(132, "192.0.2.7", 0, udp...), "132", "192.0.2.7:0"},
		{"an extension header", packet6(0, "2001:db8::7"), "0", "[2001:db8::7]:0"},
		{"a header length below the least", func() []byte { p := packet4(17, "192.0.2.7", 0, udp...); p[0] = 0x40; return p }(), "udp", "192.0.2.7:0"},
		{"nothing", nil, "", ""},
		{"IPv4, cut", packet4(17, "192.0.2.7", 0)[:19], "", ""},
		{"IPv6, cut", packet6(17, "2001:db8::7")[:39], "", ""},
		{"another version", []byte{0x50, 39: 0}, "", ""},
	} {
		got, ok := parsePacket(tt.packet)
		if tt.addr == "" {
			if ok {
				t.Errorf("%s: read as %+v", tt.name, got)
			}
			continue
		}
		if want := (link.Refused{Proto: tt.proto, Addr: netip.MustParseAddrPort(tt.addr)}); !ok || got != want {
			t.Errorf("%s: %+v %t, want %+v", tt.name, got, ok, want)
		}
	}
}

func TestParseLogged(t *testing.T) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: 1, Data: []byte{0, 0, 0, 0}},
		{Type: nflogPayload, Data: packet4(17, "192.0.2.7", 0, 0, 1, 0, 53)},
		{Type: nflogSeq, Data: []byte{0, 0, 1, 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	head := []byte{2, 0, 0, 5} // struct nfgenmsg
	got, _, ok := parseLogged(slices.Concat(head, attrs))
	if !ok || got.Addr != netip.MustParseAddrPort("192.0.2.7:53") {
		t.Errorf("%+v, %t", got, ok)
	}
	for _, data := range [][]byte{nil, head[:3], head, slices.Concat(head, attrs[:9]), slices.Concat(head, []byte{0xff, 0xff, 9, 0})} {
		if got, _, ok := parseLogged(data); ok {
			t.Errorf("%x was read as %+v", data, got)
		}
	}
}

// FuzzPacket: the agent chooses the bytes of the packets that it sends.
func FuzzPacket(f *testing.F) {
	f.Add(packet4(17, "192.0.2.7", 4, 1, 2, 3, 4))
	f.Add(packet6(17, "2001:db8::7", 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := parsePacket(b); ok && (!r.Addr.Addr().IsValid() || r.Proto == "") {
			t.Errorf("%x was read as %+v", b, r)
		}
		parseLogged(b)
	})
}
