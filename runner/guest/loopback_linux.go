package guest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// maxListeners bounds the addresses and ports that the guest listens on. Each is a descriptor of it.
const maxListeners = 1024

// errNoAdmin is why nothing can be captured.
var errNoAdmin = errors.New("the engine grants no CAP_NET_ADMIN")

// mayAdminister tells whether this process may change the network (capget(2)).
func mayAdminister() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("capget: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0, nil
}

// newLoopback is the network of a sandbox that can't be changed: names lead to loopback addresses that the guest listens
// on, and there is no route to any other. It comes after all privileges were dropped, so that what it does now it
// can still do when a name is looked up. Nothing tells of dials that have nowhere to go.
func newLoopback(resolver netip.AddrPort) (*capture, error) {
	dns, err := net.ListenPacket("udp4", resolver.String())
	if err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	c := &capture{dns: []net.PacketConn{dns}}
	c.state.DNSPort = int(resolver.Port())
	if err := checkLoopback(dns); err != nil {
		c.state.Reasons = append(c.state.Reasons, err.Error())
		return c, nil // Listeners stays false, and the runner refuses
	}
	c.state.Listeners = true
	return c, nil
}

// anyLoopback is an address that no name leads to.
var anyLoopback = netip.MustParseAddr("127.255.0.1")

// checkLoopback sees that the addresses can be listened on, and that no other can be reached.
func checkLoopback(dns net.PacketConn) error {
	l, err := net.Listen("tcp4", netip.AddrPortFrom(anyLoopback, 0).String())
	if err != nil {
		return fmt.Errorf("a loopback address can't be listened on: %w", err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if err := checkRelay(l.(*net.TCPListener), at, listenerAddress); err != nil {
		return fmt.Errorf("a dial to %s does not arrive: %w", at, err)
	}
	question := dns.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := checkResolver(dns, question); err != nil {
		return fmt.Errorf("a question to %s does not arrive at the resolver: %w", question, err)
	}
	for _, network := range []string{"tcp", "udp"} {
		out, err := net.DialTimeout(network, elsewhereIPv4.String(), checkTimeout)
		if err == nil {
			return errors.Join(fmt.Errorf("a dial to %s (%s) has somewhere to go", elsewhereIPv4, network), out.Close())
		}
		if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
			return fmt.Errorf("a dial to %s (%s) is not refused: %w", elsewhereIPv4, network, err)
		}
	}
	return nil
}

// listenerAddress is where the agent dialled, if the guest listens right there.
func listenerAddress(conn *net.TCPConn) (netip.AddrPort, error) {
	addr := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
}

// openings are what the guest listens on for names that were looked up.
type openings struct {
	relay *relay

	mu   sync.Mutex // guards open, and makes a second question for a name wait for the first
	open map[netip.AddrPort]bool
}

func newOpenings(r *relay) *openings { return &openings{relay: r, open: map[netip.AddrPort]bool{}} }

// listen opens what is not open yet of one name's ports.
func (o *openings) listen(addr netip.Addr, ports []uint16) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, port := range ports[:min(len(ports), link.MaxPorts)] {
		at := netip.AddrPortFrom(addr, port)
		if o.open[at] {
			continue
		}
		if len(o.open) >= maxListeners {
			return fmt.Errorf("%d addresses and ports are listened on, which is the limit", maxListeners)
		}
		l, err := net.Listen("tcp4", at.String())
		if errors.Is(err, unix.EADDRINUSE) {
			continue // by a server of the agent's own, there or on 0.0.0.0: it deceives nobody but itself
		}
		if err != nil {
			return err
		}
		o.open[at] = true
		o.relay.start(l)
	}
	return nil
}
