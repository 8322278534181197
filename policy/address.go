package policy

import "net/netip"

// Class is what kind of network an address belongs to. The zero Class is not public, so that a forgotten
// assignment fails closed.
type Class int

// The classes, from the most to the least guarded.
const (
	ClassReserved    Class = iota // not assigned, documentation, benchmarking, broadcast, or no valid address
	ClassUnspecified              // 0.0.0.0/8, ::
	ClassMulticast
	ClassMetadata  // the services that hand cloud credentials to whoever asks
	ClassLoopback  // 127.0.0.0/8, ::1
	ClassLinkLocal // 169.254.0.0/16, fe80::/10
	ClassCGNAT     // 100.64.0.0/10
	ClassPrivate   // RFC 1918, fc00::/7, fec0::/10
	ClassPublic
)

// String is the word for messages.
func (c Class) String() string {
	names := []string{"reserved", "unspecified", "multicast", "cloud metadata", "loopback", "link-local", "carrier-grade NAT", "private", "public"}
	if c < 0 || int(c) >= len(names) {
		return "reserved"
	}
	return names[c]
}

// AddressClass classifies an address. One that carries an IPv4 address inside (mapped, NAT64, 6to4, Teredo) has the
// class of that, when it is not public: the network would deliver it there.
func AddressClass(addr netip.Addr) Class {
	addr = addr.WithZone("").Unmap()
	if inner, ok := embeddedIPv4(addr); ok {
		if class := AddressClass(inner); class != ClassPublic {
			return class
		}
	}
	for _, row := range addressTable() {
		for _, prefix := range row.prefixes {
			if netip.MustParsePrefix(prefix).Contains(addr) {
				return row.class
			}
		}
	}
	if !addr.IsValid() || addr.Is6() && !netip.MustParsePrefix("2000::/3").Contains(addr) && !isNAT64(addr) {
		return ClassReserved // outside of global unicast nothing is assigned
	}
	return ClassPublic
}

type addressRow struct {
	class    Class
	prefixes []string
}

// addressTable follows the IANA special-purpose registries
// (https://www.iana.org/assignments/iana-ipv4-special-registry, -ipv6-); the first row that matches counts.
func addressTable() []addressRow {
	return []addressRow{
		{ClassMetadata, []string{
			"169.254.169.254/32", "fd00:ec2::254/128", // AWS, GCP, Azure, most others
			"169.254.170.2/32", "169.254.170.23/32", "fd00:ec2::23/128", // ECS and EKS task credentials
			"100.100.100.200/32",  // Alibaba
			"168.63.129.16/32",    // Azure's host agent, a public address
			"192.0.0.192/32",      // Oracle
			"fd20:ce::254/128",    // GCP over IPv6
			"fe80::a9fe:a9fe/128", // Scaleway and OpenStack
			"169.254.0.23/32",     // Tencent
			"169.254.42.42/32",    // Scaleway
			"169.254.169.253/32",  // the VPC resolver, which leaks by name
		}},
		{ClassLoopback, []string{"127.0.0.0/8", "::1/128"}},
		{ClassUnspecified, []string{"0.0.0.0/8", "::/128"}},
		{ClassLinkLocal, []string{"169.254.0.0/16", "fe80::/10"}},
		{ClassCGNAT, []string{"100.64.0.0/10"}},
		{ClassPrivate, []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"}},
		{ClassMulticast, []string{"224.0.0.0/4", "ff00::/8"}},
		{ClassReserved, []string{
			"192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "192.88.99.0/24",
			"100::/64", "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32", "3fff::/20", "5f00::/16",
		}},
	}
}

func isNAT64(addr netip.Addr) bool { return netip.MustParsePrefix("64:ff9b::/96").Contains(addr) }

// embeddedIPv4 is the IPv4 address that a translator or tunnel would deliver to.
func embeddedIPv4(addr netip.Addr) (netip.Addr, bool) {
	if !addr.Is6() {
		return netip.Addr{}, false
	}
	b := addr.As16()
	switch {
	case isNAT64(addr), netip.MustParsePrefix("64:ff9b:1::/48").Contains(addr), netip.MustParsePrefix("::/96").Contains(addr) && b[12] != 0:
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case netip.MustParsePrefix("2002::/16").Contains(addr): // 6to4
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case netip.MustParsePrefix("2001::/32").Contains(addr): // Teredo has the client's address inverted at the end
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	}
	return netip.Addr{}, false
}
