package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Host is what a rule names: one DNS name, all names below one ("*.example.org"), or one address. It is parsed
// once by [ParseHost]; the zero Host matches nothing. Hosts are comparable.
type Host struct {
	name     string     // lower-case ASCII without a trailing dot; the parent of a wildcard
	wildcard bool       // the names below name, but not name itself
	addr     netip.Addr // valid for an address; then name is empty
	public   bool       // every full name and public address: only [Policy.AllowPublic] makes one
}

// ParseHost reads a host of a policy file. It refuses what another program could read as another host: octal, hex
// and decimal addresses, user information, percent signs, trailing dots, wildcards that cover a public suffix.
func ParseHost(s string) (Host, error) {
	if err := checkHostText(s); err != nil {
		return Host{}, err
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return hostOfAddr(addr)
	}
	if strings.Contains(s, ":") {
		return Host{}, errors.New("a host has no colon; the port has a key of its own")
	}
	if strings.HasSuffix(s, ".") {
		return Host{}, errors.New("write the host without the dot at its end")
	}
	rest, wildcard := strings.CutPrefix(s, "*.")
	if strings.Contains(rest, "*") {
		return Host{}, errors.New(`a wildcard is the whole first name, as in "*.example.org", and stands for all names below`)
	}
	name, err := asciiName(rest)
	if err != nil {
		return Host{}, err
	}
	if addr, err := netip.ParseAddr(name); err == nil { // fullwidth digits become ASCII ones
		if wildcard {
			return Host{}, errors.New("a wildcard needs a name, not an address")
		}
		return hostOfAddr(addr)
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return Host{}, errors.New(`localhost is the sandbox itself; name the service and send it on: {host: db, port: 5432, tcp: true, to: "127.0.0.1:5432"}`)
	}
	if suffix, _ := publicsuffix.PublicSuffix(name); wildcard && suffix == name {
		return Host{}, fmt.Errorf("%q covers a whole public suffix; name the domain, such as %q", s, "*.example."+name)
	}
	return Host{name: name, wildcard: wildcard}, nil
}

// checkHostText gives the common mistakes a message of their own.
func checkHostText(s string) error {
	switch {
	case s == "":
		return errors.New("a host can't be empty")
	case utf8.RuneCountInString(s) > 253:
		return errors.New("a host has at most 253 characters")
	case strings.Contains(s, "://"):
		return errors.New("write the host alone, without scheme and path")
	case strings.Contains(s, "/"):
		return errors.New("a host has no slash; paths go under rules, and address ranges are not supported")
	case strings.Contains(s, "@"):
		return errors.New("a host has no user name")
	case strings.Contains(s, "%"):
		return errors.New("a host has no percent sign, neither for an escape nor for a zone")
	case s == "*":
		return errors.New(`"*" would allow every host; name them, or a domain such as "*.example.org"`)
	}
	return nil
}

// hostOfAddr refuses addresses that no rule can mean: those that stay inside the sandbox, and those that are a
// second spelling of an IPv4 address.
func hostOfAddr(addr netip.Addr) (Host, error) {
	switch class := AddressClass(addr); {
	case addr.Is4In6():
		return Host{}, fmt.Errorf("write the IPv4 address alone: %s", addr.Unmap())
	case class == ClassLoopback:
		return Host{}, errors.New("a loopback address is the sandbox itself; name the service and send it on with `to`")
	case class == ClassMulticast, class == ClassReserved, class == ClassUnspecified:
		return Host{}, fmt.Errorf("%s addresses can't be connected to", class)
	}
	return Host{addr: addr}, nil
}

// asciiName is the one spelling of a DNS name: lower-case, IDN as punycode (UTS 46, as browsers do), labels checked.
// A name that ends in a number is an address to some resolvers (https://url.spec.whatwg.org/#ends-in-a-number-checker),
// so it has to be a plain IPv4 address.
func asciiName(s string) (string, error) {
	if !utf8.ValidString(s) { // idna would read its replacement character instead
		return "", errors.New("a host must be valid UTF-8")
	}
	name := strings.ToLower(s)
	if !isASCII(s) || strings.Contains(name, "xn--") {
		var err error
		if name, err = idna.Lookup.ToASCII(s); err != nil {
			return "", errors.New("not a valid international domain name")
		}
	}
	if len(name) > 253 {
		return "", errors.New("a host has at most 253 characters")
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	if isNumberLabel(labels[len(labels)-1]) {
		if addr, err := netip.ParseAddr(name); err != nil || !addr.Is4() {
			return "", errors.New("a name that ends in a number is an address in octal, hex or decimal to some programs; write a.b.c.d")
		}
	}
	return name, nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("a host can't have an empty name between dots")
	case len(label) > 63:
		return errors.New("each name of a host has at most 63 characters")
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("the names of a host don't start or end with a hyphen")
	}
	for _, c := range []byte(label) {
		if !isLowerAlnum(c) && c != '-' && c != '_' { // the underscore is in real names of buckets and services
			return errors.New("a host is made of letters, digits, hyphens and dots")
		}
	}
	return nil
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func isNumberLabel(label string) bool {
	hex, isHex := strings.CutPrefix(label, "0x")
	if isHex {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// String is the host as the policy has it, in its one spelling.
func (h Host) String() string {
	switch {
	case h.public:
		return EverythingPublic
	case h.addr.IsValid():
		return h.addr.String()
	case h.wildcard:
		return "*." + h.name
	}
	return h.name
}

// MarshalText is [Host.String].
func (h Host) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// IsZero reports whether there is no host.
func (h Host) IsZero() bool { return h == Host{} }

// IsWildcard reports whether the host stands for the names below another.
func (h Host) IsWildcard() bool { return h.wildcard }

// Addr is the address, or the zero Addr when the host is a name.
func (h Host) Addr() netip.Addr { return h.addr }

// isSingleLabel reports a name such as "postgres", which means something on one network only.
func (h Host) isSingleLabel() bool {
	return h.name != "" && !h.wildcard && !strings.Contains(h.name, ".")
}

// covers reports whether every host that o matches is also matched by h.
func (h Host) covers(o Host) bool {
	switch {
	case h.IsZero() || o.IsZero():
		return false
	case h == o:
		return true
	case h.public:
		return o.NeedsEntry() == "" || o.wildcard
	case !h.wildcard || o.addr.IsValid():
		return false
	}
	return strings.HasSuffix(o.name, "."+h.name)
}

// ParseTarget reads the host of a connection, as a client inside named it: in any case, with or without the dot at
// its end, international or punycode, or an address (an IPv4-mapped one becomes IPv4). The answer is never a wildcard.
func ParseTarget(s string) (Host, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return Host{addr: addr.Unmap()}, nil
	}
	name, err := asciiName(strings.TrimSuffix(s, "."))
	if err != nil {
		return Host{}, err
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return Host{addr: addr.Unmap()}, nil
	}
	return Host{name: name}, nil
}
