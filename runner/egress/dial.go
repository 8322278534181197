package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/org/agent-sandbox/policy"
)

const (
	// nextAttempt is when the next address is tried beside one that has not answered (RFC 8305, section 5).
	nextAttempt = 250 * time.Millisecond
	// maxAddresses bounds the addresses of a name that are tried.
	maxAddresses = 8
)

// halfCloser is a connection whose sending direction can be ended alone: TCP, and TLS to a proxy.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// abort ends a connection with a reset (SO_LINGER of socket(7)), so that the host does not take half of what it was sent for the whole.
func abort(conn net.Conn) {
	for inner := conn; inner != nil; {
		switch c := inner.(type) {
		case *net.TCPConn:
			_ = c.SetLinger(0)
			inner = nil
		case *tls.Conn:
			inner = c.NetConn()
		case tunnel:
			inner = c.halfCloser
		default:
			inner = nil
		}
	}
	_ = conn.Close()
}

// lookupHost asks the host's resolver, and its hosts file.
func lookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// reach opens the connection that the verdict allows, to an address that was checked or through the proxy, and notes
// in the record where it leads.
func (g *Gateway) reach(ctx context.Context, v policy.Verdict, port uint16, record *Connection) (halfCloser, error) {
	host := v.Target
	if !v.To.IsZero() {
		host, port = v.To.Host, v.To.Port
	}
	limit := g.connectLimit(v)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if proxy := g.proxy.forHost(v, host, port); proxy != nil {
		record.Via = proxy.Host
		return g.proxy.connect(ctx, g.dial, proxy, net.JoinHostPort(host.String(), fmt.Sprint(port)))
	}
	addrs, err := g.addresses(ctx, v, host)
	if err != nil {
		return nil, err
	}
	conn, err := g.race(ctx, addrs, port)
	if err != nil {
		return nil, fail(CodeDial, dialReason(host, port, limit, err))
	}
	if remote, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		record.Upstream = remote.AddrPort()
	}
	return conn, nil
}

// connectLimit is the time for a look-up and dial, and for a TLS handshake with the host.
func (g *Gateway) connectLimit(v policy.Verdict) time.Duration {
	limit := g.limits.Connect
	for _, l := range []policy.Limits{g.policy.Network.Limits, v.Rule.Limits} {
		if l.Connect > 0 {
			limit = l.Connect
		}
	}
	return limit
}

// addresses are those of host that the verdict permits. Whatever the resolver says, nothing else is dialled.
func (g *Gateway) addresses(ctx context.Context, v policy.Verdict, host policy.Host) ([]netip.Addr, error) {
	all := []netip.Addr{host.Addr()}
	if !host.Addr().IsValid() {
		var err error
		if all, err = g.lookup(ctx, lookupName(v, host)); err != nil || len(all) == 0 {
			return nil, fail(CodeResolve, fmt.Sprintf("the host's resolver has no address for %s", host))
		}
	}
	var permitted []netip.Addr
	for _, addr := range all {
		if g.checks.address(v, addr) {
			permitted = append(permitted, addr.Unmap())
		}
	}
	if len(permitted) == 0 {
		class := policy.AddressClass(all[0])
		return nil, refuse(CodeAddress, fmt.Sprintf("%s has the %s address %s%s", host, class, all[0], addressHint(class)))
	}
	return alternate(permitted), nil
}

func addressHint(class policy.Class) string {
	if class >= policy.ClassLoopback && class < policy.ClassPublic {
		return "; if that is meant, the entry needs `private: true`"
	}
	return ", which only an entry for the address itself allows"
}

// lookupName is absolute for a name of the public network: the search list of the host's resolver could make another
// name of it. Names of the local network may need that list.
func lookupName(v policy.Verdict, host policy.Host) string {
	if v.Rule.Private || !v.Rule.To.IsZero() || !strings.Contains(host.String(), ".") {
		return host.String()
	}
	return host.String() + "."
}

// alternate puts the families in turn, beginning with that of the first address (RFC 8305, section 4).
func alternate(addrs []netip.Addr) []netip.Addr {
	var first, second, out []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out[:min(len(out), maxAddresses)]
}

type attempt struct {
	conn net.Conn
	err  error
}

// race dials the addresses, each some time after the one before or as soon as that failed, and keeps the first that answers.
func (g *Gateway) race(ctx context.Context, addrs []netip.Addr, port uint16) (halfCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt, len(addrs))
	started, ended := 0, 0
	start := func() {
		address := netip.AddrPortFrom(addrs[started], port).String()
		started++
		go func() {
			conn, err := g.dial(ctx, "tcp", address)
			results <- attempt{conn, err}
		}()
	}
	start()
	timer := time.NewTicker(nextAttempt)
	defer timer.Stop()
	var winner net.Conn
	var firstErr error
	for ended < started {
		select {
		case <-timer.C:
			if winner == nil && started < len(addrs) {
				start()
			}
		case r := <-results:
			ended++
			switch {
			case r.err == nil && winner == nil:
				winner = r.conn
				cancel()
			case r.err == nil:
				_ = r.conn.Close()
			case winner == nil:
				firstErr = errors.Join(firstErr, r.err)
				if started < len(addrs) && ctx.Err() == nil {
					start()
				}
			}
		}
	}
	if winner == nil {
		return nil, firstErr
	}
	return winner.(halfCloser), nil
}

// dialReason is for people: what the kernel said, without the noise around it.
func dialReason(host policy.Host, port uint16, limit time.Duration, err error) string {
	target := net.JoinHostPort(host.String(), fmt.Sprint(port))
	var netErr net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return target + " refuses connections"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Sprintf("%s did not answer within %s", target, limit)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "the host has no route to " + target
	}
	return "can't connect to " + target
}
