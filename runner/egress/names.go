package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/org/agent-sandbox/policy"
)

// maxNames bounds the names that one run can resolve.
const maxNames = 1 << 16

// synthetic is the range that names get their addresses from. It must look public: agents have guards of their own against
// server-side request forgery, and those refuse every range of the IANA special-purpose registries. So it is a
// range that was assigned long ago (28.0.0.0/8, to the US Department of Defense) and in which no public service answers; nothing
// is lost by its being out of reach, and no packet ever leaves for it. The /15 has room for maxNames without the
// addresses that end in 0 and 255, which some programs take for a network's own.
var synthetic = netip.MustParsePrefix("28.4.0.0/15")

// loopback is the range that names get their addresses from where nothing else can be listened on: see [Gateway.UseLoopback].
var loopback = netip.MustParsePrefix("127.64.0.0/15")

// names gives each name an address of its own for the life of the run.
type names struct {
	literal map[netip.Addr]bool // addresses that the policy itself names: never a name's

	mu     sync.Mutex // guards what follows
	next   netip.Addr
	byName map[string]netip.Addr
	byAddr map[netip.Addr]string
}

func newNames(p *policy.Policy) *names {
	n := &names{
		literal: map[netip.Addr]bool{}, next: synthetic.Addr(),
		byName: map[string]netip.Addr{}, byAddr: map[netip.Addr]string{},
	}
	for _, rule := range slices.Concat(p.Network.Allow, p.Network.Deny) {
		n.literal[rule.Host.Addr()] = true
		n.literal[rule.To.Host.Addr()] = true
	}
	return n
}

// from makes names get their addresses from another range.
func (n *names) from(p netip.Prefix) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next = p.Addr()
}

// address is the name's; it is false when there are too many names.
func (n *names) address(name string) (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr, ok := n.byName[name]; ok {
		return addr, true
	}
	if len(n.byName) >= maxNames {
		return netip.Addr{}, false
	}
	for !n.usable(n.next) {
		n.next = n.next.Next()
	}
	addr := n.next
	n.next = addr.Next()
	n.byName[name], n.byAddr[addr] = addr, name
	return addr, true
}

func (n *names) usable(addr netip.Addr) bool {
	last := addr.As4()[3]
	return last != 0 && last != 255 && !n.literal[addr]
}

// name is the reverse; it is empty for an address that was not given out.
func (n *names) name(addr netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byAddr[addr]
}

// maxNameBytes is the longest name (RFC 1035, section 2.3.4), with the dot at its end.
const maxNameBytes = 254

// UseLoopback gives names loopback addresses, for a sandbox that has no others. It is for before the first name is resolved.
func (g *Gateway) UseLoopback() { g.names.from(loopback) }

// Ports are those on which the policy may allow connections to a name.
func (g *Gateway) Ports(name string) []policy.PortRange { return g.policy.Ports(name) }

// parseName reads a name or address that the client sent, into its one spelling.
func parseName(s string) (policy.Host, error) {
	if len(s) > maxNameBytes {
		return policy.Host{}, errors.New("a name has at most 253 characters")
	}
	return policy.ParseTarget(s)
}

// cut copies, so that a short text does not keep the client's whole message alive.
func cut(s string) string { return cutTo(s, maxText) }

func cutTo(s string, n int) string { return strings.Clone(s[:min(len(s), n)]) }

// Resolve answers one look-up without asking anybody. An allowed name (on some port) gets its synthetic address when the type is A,
// and no address for any other type: the answer is then that the name exists, without a record (NOERROR). A
// name that is not allowed does not exist (NXDOMAIN); the reason says why, and the refusal is recorded.
func (g *Gateway) Resolve(name, recordType string) (addr netip.Addr, allowed bool, reason string) {
	v := g.reachable(name)
	if !v.Allowed() {
		g.journal.name(NameRefused{Name: name, Type: recordType, Code: v.Code, Reason: v.Reason})
		return netip.Addr{}, false, v.Reason
	}
	if recordType != "A" {
		return netip.Addr{}, true, ""
	}
	addr, ok := g.names.address(v.Target.String())
	if !ok {
		reason = fmt.Sprintf("the run has resolved %d names, which is the limit", maxNames)
		g.journal.name(NameRefused{Name: name, Type: recordType, Code: CodeNames, Reason: reason})
		return netip.Addr{}, false, reason
	}
	return addr, true, ""
}

func (g *Gateway) reachable(name string) policy.Verdict {
	target, err := g.checks.name(name)
	if err != nil {
		return policy.Verdict{Code: policy.CodeBadHost, Reason: err.Error()}
	}
	return g.policy.Reachable(target.String())
}
