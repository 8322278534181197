package policy

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Rule is one entry of network.allow or network.deny: a bundle, or a host with what is allowed or denied there.
type Rule struct {
	Bundle  string      // of [Bundles]; then everything below is zero
	Host    Host        // zero for a bundle
	Ports   []PortRange // sorted and apart; never empty for a host
	TCP     bool        // any protocol, not inspected
	Private bool        // the name may have a private, loopback or link-local address
	To      Endpoint    // where the runner dials instead; zero: the host itself
	HTTP    []HTTPRule  // when not empty, only these requests: the connection is inspected
	Limits  Limits
	Place   Place
}

// PortRange is all ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

const allPorts = 65535

// String is "443" or "8000-8010".
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalText is [PortRange.String].
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r PortRange) contains(port uint16) bool { return r.First <= port && port <= r.Last }

func (r PortRange) covers(o PortRange) bool { return r.First <= o.First && o.Last <= r.Last }

// parsePortRange reads "8000-8010".
func parsePortRange(s string) (PortRange, error) {
	first, last, found := strings.Cut(s, "-")
	if !found {
		return PortRange{}, errors.New(`a port is a number, or a range such as "8000-8010"`)
	}
	low, err1 := parsePort(first)
	high, err2 := parsePort(last)
	switch {
	case err1 != nil || err2 != nil:
		return PortRange{}, errors.New("a port is a number from 1 to 65535")
	case high <= low:
		return PortRange{}, errors.New("a range of ports goes from the lower to the higher")
	}
	return PortRange{low, high}, nil
}

func parsePort(s string) (uint16, error) {
	n, err := parseDecimal(s)
	if err != nil || n < 1 || n > allPorts {
		return 0, errors.New("a port is a number from 1 to 65535")
	}
	return uint16(n), nil
}

// Endpoint is a host and a port that the runner dials.
type Endpoint struct {
	Host Host
	Port uint16
}

// String is "host:port", with brackets for IPv6; empty for the zero Endpoint.
func (e Endpoint) String() string {
	if e.IsZero() {
		return ""
	}
	return net.JoinHostPort(e.Host.String(), strconv.Itoa(int(e.Port)))
}

// IsZero reports whether there is no endpoint.
func (e Endpoint) IsZero() bool { return e.Host.IsZero() }

// parseEndpoint reads "127.0.0.1:5432", "[::1]:5432" or "db.internal:5432". Unlike the host of a rule it is seen
// from the runner, so loopback and short names make sense.
func parseEndpoint(s string) (Endpoint, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Endpoint{}, errors.New(`write it as "host:port", such as "127.0.0.1:5432"`)
	}
	n, err := parsePort(port)
	if err != nil {
		return Endpoint{}, err
	}
	target, err := ParseTarget(host)
	if err != nil {
		return Endpoint{}, err
	}
	if class := AddressClass(target.Addr()); target.Addr().IsValid() && (class <= ClassMetadata) {
		return Endpoint{}, fmt.Errorf("%s addresses can't be dialled", class)
	}
	return Endpoint{target, n}, nil
}

// parseShortRule reads an entry that is one word: a bundle, "host" or "host:port". The ports are left to the caller
// when the word has none.
func parseShortRule(s string) (Rule, error) {
	if slices.Contains(Bundles(), s) {
		return Rule{Bundle: s}, nil
	}
	if !strings.ContainsAny(s, ".:[/@%*") {
		hint := "it is no bundle (" + strings.Join(Bundles(), ", ") + "), and a host has a dot"
		if near := didYouMean(s, Bundles()); near != "" {
			hint = near
		}
		return Rule{}, hintedError{"unknown bundle " + strconv.Quote(shorten(s)), hint}
	}
	host, port := s, ""
	if colon := strings.LastIndexByte(s, ':'); colon >= 0 && (strings.HasPrefix(s, "[") || strings.Count(s, ":") == 1) && !strings.HasSuffix(s, "]") && !strings.Contains(s, "://") {
		host, port = s[:colon], s[colon+1:]
	} else if colon >= 0 && strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "[") && !strings.Contains(s, "://") {
		return Rule{}, errors.New("write an IPv6 address in brackets")
	}
	var rule Rule
	if port != "" || strings.HasSuffix(s, ":") {
		n, err := parsePort(port)
		if err != nil {
			return Rule{}, err
		}
		rule.Ports = []PortRange{{n, n}}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok || !strings.Contains(inner, ":") {
			return Rule{}, errors.New("brackets are for one IPv6 address")
		}
		host = inner
	}
	var err error
	rule.Host, err = ParseHost(host)
	if err == nil && rule.Host.isSingleLabel() {
		return Rule{}, errors.New("a name without a dot needs an entry with `to` or `private: true`")
	}
	return rule, err
}

// hintedError is an error whose mend goes to [Problem.Hint].
type hintedError struct{ message, hint string }

func (e hintedError) Error() string { return e.message }

// matchHost reports whether the rule is about this host and port. A bundle matches nothing by itself.
func (r Rule) matchHost(target Host, port uint16) bool {
	return r.Host.covers(target) && slices.ContainsFunc(r.Ports, func(p PortRange) bool { return p.contains(port) })
}

// normalizePorts sorts, and joins ranges that touch.
func normalizePorts(ports []PortRange) []PortRange {
	sorted := slices.SortedFunc(slices.Values(ports), func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var out []PortRange
	for _, r := range sorted {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}
