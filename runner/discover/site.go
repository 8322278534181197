package discover

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// site is the host of one address in a configuration, or why there is none. It holds nothing else of the address: no path, no
// query and no user.
type site struct {
	host      policy.Host
	port      uint16
	line      int    // in the file; 0 when lines mean nothing
	key       string // of a setting that a stronger configuration replaces; empty for one that adds
	name      string // the host as it is written, for people
	why, mend string // when it is not to be reached
}

const maxAddress = 2048 // bytes of one address

// siteOf reads an address. ok is false when it is not one of the network, such as a path or file://.
func siteOf(address, key string, line int) (site, bool) {
	address = strings.TrimSpace(address)
	if address == "" || len(address) > maxAddress {
		return site{}, false
	}
	for _, prefix := range []string{"sparse+", "registry+", "git+"} { // cargo
		address = strings.TrimPrefix(address, prefix)
	}
	scheme, rest, found := strings.Cut(address, "://")
	scheme = strings.ToLower(scheme)
	if !found || scheme != "https" && scheme != "http" {
		return site{}, false
	}
	authority := rest[:indexAny(rest, `/?#\`)]
	authority = authority[strings.LastIndexByte(authority, '@')+1:] // whatever is before it may be a secret
	s := siteOfAuthority(authority, scheme)
	s.key, s.line = key, line
	if s.why != "" && strings.Contains(rest, "@") { // a secret with a slash in it makes something else look like the host
		s.name, s.mend = "", "name the host in network.allow"
	}
	return s, true
}

func indexAny(s, chars string) int {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return i
	}
	return len(s)
}

// siteOfAuthority reads "host", "host:port" or "[v6]:port". Nothing is decoded: a host that is not written plainly in
// ASCII could be another one to the tool that reads it.
func siteOfAuthority(authority, scheme string) site {
	if strings.ContainsAny(authority, "$%{}*") {
		return site{why: "is not written in full", mend: "write the host itself, or name it in network.allow"}
	}
	u, err := url.Parse("https://" + authority)
	if err != nil || u.Host != authority || !isASCII(authority) {
		return site{why: "the address can't be read", mend: "write it as https://host/path"}
	}
	s := site{port: 443, name: strings.ToLower(u.Hostname())}
	if scheme == "http" {
		s.port = 80
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return site{name: s.name, why: "has no port of 1 to 65535"}
		}
		s.port = uint16(n)
	}
	host, err := policy.ParseHost(s.name)
	if err != nil {
		return site{name: s.name, why: "can't be reached: " + err.Error()}
	}
	if why := host.NeedsEntry(); why != "" {
		return site{name: s.name, why: why, mend: fmt.Sprintf("if it is meant, add to network.allow: - %s", entryFor(host, s.port))}
	}
	s.host = host
	return s
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > '~' || r < '!' }) < 0
}

// entryFor is the entry of a policy for a host of a local network.
func entryFor(host policy.Host, port uint16) string {
	rule := policy.Rule{Host: host, Ports: []policy.PortRange{{First: port, Last: port}}, Private: !host.Addr().IsValid()}
	return rule.String()
}
