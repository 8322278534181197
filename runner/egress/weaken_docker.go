//go:build docker

package egress

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// Weakened says which checks of a gateway are left out, and what is in the place of the world. It exists only in builds
// with the tag docker, so that the escape suite can show what each check is good for.
type Weakened struct {
	Addresses bool // whatever a name leads to is dialled
	Hosts     bool // requests may be for another host than the connection
	Methods   bool // every method is passed on
	Leaks     bool // placeholders may go anywhere
	Scopes    bool // GitHub's repositories and refs are not looked at
	Redaction bool // answers may repeat a credential
	Names     bool // names end at a NUL, as they do for programs in C

	// Lookup and Dial are the resolver and the network that the gateway has; nil for the real ones.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

func (w Weakened) apply(g *Gateway) {
	if w.Lookup != nil {
		g.lookup = w.Lookup
	}
	if w.Dial != nil {
		g.dial = w.Dial
	}
	if w.Addresses {
		g.checks.address = func(policy.Verdict, netip.Addr) bool { return true }
	}
	if w.Hosts {
		g.checks.host = func(*request, policy.Host, uint16) *end { return nil }
	}
	if w.Methods {
		g.checks.method = func(string) bool { return true }
	}
	if w.Leaks {
		g.checks.patterns = func([]Credential, []*Credential) []pattern { return nil }
	}
	if w.Names {
		g.checks.name = func(s string) (policy.Host, error) {
			name, _, _ := strings.Cut(s, "\x00")
			return parseName(name)
		}
	}
	g.checks.unscoped = w.Scopes
	if w.Redaction {
		g.checks.redact = func(http.Header, []attachment) {}
		g.checks.echo = func(attachment) *secret.Set { return nil }
	}
}
