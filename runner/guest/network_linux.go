package guest

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// The addresses of the sandbox's only interface, besides the loopback range. They come from the documentation
// ranges (RFC 5737, RFC 3849), so that they collide with nothing. Without them resolvers would give up at once:
// getaddrinfo's AI_ADDRCONFIG does not count loopback addresses (RFC 3493, section 6.1).
var (
	ownIPv4 = netip.MustParseAddr("192.0.2.2")
	ownIPv6 = netip.MustParseAddr("2001:db8::2")
)

// nflogGroup is the netfilter log group that refused datagrams are copied to, within this network namespace.
const nflogGroup = 5

// capture is the guest's hold on the sandbox's network: every TCP dial ends at its relay, every DNS question at its
// resolver, and every other packet is refused and reported. Without the right to change the network it is less: see newLoopback.
type capture struct {
	relay   []net.Listener   // 127.0.0.1 and, with IPv6, ::1; the same port
	dns     []net.PacketConn // likewise
	packets *packetLog       // nil where the kernel has no netfilter log
	state   link.Network
}

// newCapture sets the network up. It needs CAP_NET_ADMIN in the container's own network namespace.
func newCapture() (*capture, error) {
	c := &capture{}
	if skip("capture") {
		return c, nil
	}
	if admin, err := mayAdminister(); err != nil || !admin {
		return nil, cmp.Or(err, errNoAdmin)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("bring lo up: %w", err)
	}
	if err := everythingIsLocal(lo, ownIPv4, 32); err != nil {
		return nil, err
	}
	if ipv6Available() {
		if err := everythingIsLocal(lo, ownIPv6, 128); err != nil {
			return nil, err
		}
		c.state.IPv6 = true
	} else {
		c.state.Reasons = append(c.state.Reasons, "IPv6 is off in the sandbox: the kernel refuses such dials itself, and nobody sees them")
	}
	if err := c.listen(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.redirect(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.check(); err != nil {
		c.state.Reasons = append(c.state.Reasons, err.Error())
		return c, nil // Capture stays false, and the runner refuses
	}
	c.state.Capture = true
	return c, nil
}

func ipv6Available() bool {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	return err == nil && len(off) > 0 && off[0] == '0'
}

// everythingIsLocal gives lo the address own and makes every destination of its family arrive at this host
// (a route of type "local", ip-route(8)), so that no dial fails for want of a route before it is seen.
func everythingIsLocal(lo netlink.Link, own netip.Addr, bits int) error {
	size := own.BitLen()
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: own.AsSlice(), Mask: net.CIDRMask(bits, size)},
		// Duplicate address detection would leave the IPv6 address unusable for a second.
		Flags: unix.IFA_F_NODAD,
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		return fmt.Errorf("add %s to lo: %w", own, err)
	}
	route := &netlink.Route{
		LinkIndex: lo.Attrs().Index,
		Dst:       &net.IPNet{IP: make(net.IP, size/8), Mask: net.CIDRMask(0, size)},
		Type:      unix.RTN_LOCAL,
		Scope:     unix.RT_SCOPE_HOST,
		Table:     unix.RT_TABLE_MAIN,
		Src:       own.AsSlice(),
	}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("route every address to lo: %w", err)
	}
	return nil
}

// relayPorts are tried in order. Port 1 (tcpmux, RFC 1078) is one that no development server wants; 0 lets the
// kernel choose where low ports are not ours to have.
var relayPorts = []int{1, 0}

func (c *capture) listen() error {
	var err error
	for _, port := range relayPorts {
		if err = c.listenAt(port); err == nil {
			return nil
		}
	}
	return err
}

// listenAt opens the four sockets, on one port number for each protocol since the redirect names one.
func (c *capture) listenAt(port int) error {
	relay, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	c.relay = append(c.relay, relay)
	c.state.RelayPort = relay.Addr().(*net.TCPAddr).Port
	dns, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	c.dns = append(c.dns, dns)
	c.state.DNSPort = dns.LocalAddr().(*net.UDPAddr).Port
	if !c.state.IPv6 {
		return nil
	}
	relay6, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", c.state.RelayPort))
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	c.relay = append(c.relay, relay6)
	dns6, err := net.ListenPacket("udp6", fmt.Sprintf("[::1]:%d", c.state.DNSPort))
	if err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	c.dns = append(c.dns, dns6)
	return nil
}

// redirect installs the netfilter rules. The packet log comes first: a rule that logs to a group with no listener
// would drop its reports silently.
func (c *capture) redirect() error {
	log, err := newPacketLog(nflogGroup)
	if err != nil {
		c.state.Reasons = append(c.state.Reasons, fmt.Sprintf("refused datagrams are not reported: %v", err))
	} else {
		c.packets, c.state.Datagrams = log, true
	}
	if skip("rules") {
		return nil
	}
	if err := c.install(nftables.TableFamilyIPv4, ownIPv4, netip.MustParsePrefix("127.0.0.0/8")); err != nil {
		return err
	}
	if c.state.IPv6 {
		return c.install(nftables.TableFamilyIPv6, ownIPv6, netip.MustParsePrefix("::1/128"))
	}
	return nil
}

// install adds one family's table: a NAT chain that redirects TCP and DNS, and a filter chain that refuses what is
// left. What goes to loopback or to the sandbox's own address is the agent's own affair.
func (c *capture) install(family nftables.TableFamily, own netip.Addr, loopback netip.Prefix) error {
	nft, err := nftables.New()
	if err != nil {
		return fmt.Errorf("netfilter: %w", err)
	}
	table := nft.AddTable(&nftables.Table{Family: family, Name: "agent-sandbox"})
	nat := nft.AddChain(&nftables.Chain{
		Name: "capture", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	filter := nft.AddChain(&nftables.Chain{
		Name: "refuse", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
	})
	add := func(chain *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: all})
	}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	for _, chain := range []*nftables.Chain{nat, filter} {
		add(chain, destination(loopback), accept)
		add(chain, destination(netip.PrefixFrom(own, own.BitLen())), accept)
	}
	add(nat, protocol(unix.IPPROTO_TCP), redirectTo(c.state.RelayPort))
	add(nat, protocol(unix.IPPROTO_UDP), destinationPort(53), redirectTo(c.state.DNSPort))
	if c.packets != nil {
		add(filter, logTo(nflogGroup))
	}
	add(filter, refuse(family))
	if err := nft.Flush(); err != nil {
		return fmt.Errorf("install netfilter rules: %w", err)
	}
	return nil
}

// Close gives the sockets back.
func (c *capture) Close() error {
	var errs []error
	for _, l := range c.relay {
		errs = append(errs, l.Close())
	}
	for _, d := range c.dns {
		errs = append(errs, d.Close())
	}
	if c.packets != nil {
		errs = append(errs, c.packets.Close())
	}
	return errors.Join(errs...)
}
