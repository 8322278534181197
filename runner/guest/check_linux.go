package guest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	// checkTimeout bounds one check, which takes microseconds unless the machine is overloaded: all of it happens here.
	checkTimeout = 10 * time.Second
	// firstTry is how long the first dial may take. A new IPv6 address is not used for some milliseconds, and a SYN that is lost
	// meanwhile would be sent again only after a second.
	firstTry = 5 * time.Millisecond
)

// The addresses that the checks dial come from the documentation ranges as well (RFC 5737, RFC 3849).
var (
	elsewhereIPv4 = netip.MustParseAddrPort("203.0.113.9:9")
	elsewhereIPv6 = netip.MustParseAddrPort("[2001:db8:ffff::9]:9")
)

// check dials out, before anybody else can, to see that everything arrives where it should. What the record says
// about the network is this, and not that the rules were loaded without an error.
func (c *capture) check() error {
	elsewhere := []netip.AddrPort{elsewhereIPv4, elsewhereIPv6}
	for i := range c.relay {
		if err := checkRelay(c.relay[i].(*net.TCPListener), elsewhere[i], originalDestination); err != nil {
			return fmt.Errorf("a dial to %s does not arrive at the relay: %w", elsewhere[i], err)
		}
		question := netip.AddrPortFrom(elsewhere[i].Addr(), 53)
		if err := checkResolver(c.dns[i], question); err != nil {
			return fmt.Errorf("a question to %s does not arrive at the resolver: %w", question, err)
		}
	}
	if c.packets != nil {
		if err := c.packets.check(); err != nil {
			c.state.Datagrams = false
			c.state.Reasons = append(c.state.Reasons, fmt.Sprintf("refused datagrams are not reported: %v", err))
		}
	}
	return nil
}

func checkRelay(l *net.TCPListener, to netip.AddrPort, dialled whereTo) error {
	out, err := dialUntil(to, time.Now().Add(checkTimeout))
	if err != nil {
		return err
	}
	defer out.Close()
	if err := l.SetDeadline(time.Now().Add(checkTimeout)); err != nil {
		return err
	}
	for {
		in, err := l.AcceptTCP()
		if err != nil {
			return err
		}
		got, err := dialled(in)
		_ = in.Close()
		if err != nil {
			return err
		}
		if got != to {
			return fmt.Errorf("it arrives as one to %s", got)
		}
		// A try that was given up may have arrived as well, and before this one.
		if in.RemoteAddr().String() == out.LocalAddr().String() {
			return l.SetDeadline(time.Time{})
		}
	}
}

// dialUntil dials again and again, each time with more patience.
func dialUntil(to netip.AddrPort, deadline time.Time) (net.Conn, error) {
	for patience := firstTry; ; patience *= 2 {
		conn, err := net.DialTimeout("tcp", to.String(), patience)
		late, ok := errors.AsType[net.Error](err)
		if !ok || !late.Timeout() || time.Now().After(deadline) {
			return conn, err
		}
	}
}

func checkResolver(c net.PacketConn, to netip.AddrPort) error {
	out, err := net.DialTimeout("udp", to.String(), checkTimeout)
	if err != nil {
		return err
	}
	defer out.Close()
	// Not a message, so that the resolver would not answer it either.
	if _, err := out.Write([]byte{0}); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(checkTimeout)); err != nil {
		return err
	}
	if _, _, err := c.ReadFrom(make([]byte, 1)); err != nil {
		return err
	}
	return c.SetReadDeadline(time.Time{})
}

// sendElsewhere sends a datagram that is refused. Its error says just that.
func sendElsewhere() {
	out, err := net.DialTimeout("udp", elsewhereIPv4.String(), checkTimeout)
	if err != nil {
		return
	}
	defer out.Close()
	_, _ = out.Write([]byte{0})
}

// check sends a datagram that is refused, and waits for the report of it.
func (l *packetLog) check() error {
	sendElsewhere()
	if err := l.conn.SetReadDeadline(time.Now().Add(checkTimeout)); err != nil {
		return err
	}
	for {
		refused, _, err := l.Receive()
		if err != nil {
			return err
		}
		for _, r := range refused {
			if r.Addr == elsewhereIPv4 {
				return l.conn.SetReadDeadline(time.Time{})
			}
		}
	}
}
