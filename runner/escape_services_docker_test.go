//go:build docker

package runner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// hostServices are listeners on the host that attacks are aimed at.
type hostServices struct {
	loopback, everywhere, bridge string // TCP addresses; bridge is empty where the engine's host has no docker0
	abstract                     string
	missing                      string // why there are none
}

// hostServices listens where the engine's host is, for as long as the test runs.
func (l *lab) hostServices(t *testing.T) hostServices {
	t.Helper()
	if !l.facts.Local {
		return hostServices{missing: "the engine runs elsewhere"}
	}
	var s hostServices
	err := inEngineNetwork(l.socket, func() error {
		var err error
		if s.loopback, err = listenTCP(t, "127.0.0.1"); err != nil {
			return err
		}
		if s.everywhere, err = listenTCP(t, "0.0.0.0"); err != nil {
			return err
		}
		if gateway := addressOf("docker0"); gateway != "" {
			if s.bridge, err = listenTCP(t, gateway); err != nil {
				return err
			}
		}
		s.abstract = fmt.Sprintf("@agent-sandbox-escape-%s", strings.TrimPrefix(s.loopback, "127.0.0.1:"))
		abstract, err := net.Listen("unix", s.abstract)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = abstract.Close() })
		return nil
	})
	if err != nil {
		t.Fatalf("listen on the engine's host: %v", err)
	}
	return s
}

// listenTCP greets whoever connects.
func listenTCP(t *testing.T, address string) (string, error) {
	t.Helper()
	l, err := net.Listen("tcp4", net.JoinHostPort(address, "0"))
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("the host's own service"))
			_ = conn.Close()
		}
	}()
	return l.Addr().String(), nil
}

// addressOf is an interface's IPv4 address, empty if there is none.
func addressOf(name string) string {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return ""
	}
	addrs, err := i.Addrs()
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p.Addr().String()
		}
	}
	return ""
}

// hostAttacks are aimed at what listens on the host.
func hostAttacks(s hostServices) []attack {
	all := []attack{
		{
			name: "the host's loopback service", op: "tcp", args: []string{s.loopback}, refused: refusals("ECONNREFUSED"), by: "network none",
			control: "control: loopback", off: hostNetwork,
		},
		{
			name: "the host's abstract Unix socket", op: "unix", args: []string{s.abstract}, refused: refusals("ECONNREFUSED"), by: "network none",
			control: "control: a unix socket", off: hostNetwork,
		},
	}
	for _, a := range []struct{ name, to string }{
		{"the host's service on 0.0.0.0, by the address of docker0", strings.Replace(s.everywhere, "0.0.0.0", addressOfHost(s.bridge), 1)},
		{"the host's service on docker0", s.bridge},
	} {
		b := attack{
			name: a.name, op: "tcp", args: []string{a.to}, refused: refusals("ECONNRESET"), by: "network none", control: "control: loopback", off: hostNetwork,
		}
		if s.bridge == "" {
			b.skip = "the engine's host has no docker0"
		} else {
			b.recorded = refusedConnection("tcp", netip.MustParseAddrPort(a.to))
		}
		all = append(all, b)
	}
	for i := range all {
		if s.missing != "" {
			all[i].skip = s.missing
		}
	}
	return all
}

func addressOfHost(hostPort string) string {
	host, _, _ := net.SplitHostPort(hostPort)
	return host
}

// inEngineNetwork calls f in the network namespace of the engine that listens on the socket: an engine for tests may
// have one of its own, in which nothing is set up.
func inEngineNetwork(socket string, f func() error) error {
	pid, err := peer(socket)
	if err != nil {
		return err
	}
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer theirs.Close()
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ours.Close()
	same, err := sameFile(ours, theirs)
	if err != nil || same {
		return errors.Join(err, f())
	}
	runtime.LockOSThread()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	if lo, lookErr := netlink.LinkByName("lo"); lookErr == nil {
		err = netlink.LinkSetUp(lo)
	}
	err = errors.Join(err, f())
	if back := unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

func sameFile(a, b *os.File) (bool, error) {
	x, err := a.Stat()
	if err != nil {
		return false, err
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y), err
}

// peer is the process that listens on a Unix socket.
func peer(socket string) (int, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// captureAttacks are on the capture itself, and on the way back to the right to change it.
func captureAttacks() []attack {
	all := []attack{
		{
			name: "the guest's relay, dialled itself", op: "tcp", args: []string{"127.0.0.1:1"}, refused: refusals("ECONNRESET"),
			by: "the runner decides", control: "control: loopback", off: noRules, unrecorded: true,
			recorded: refusedConnection("tcp", netip.MustParseAddrPort("127.0.0.1:1")),
		},
		{
			name: "listening in the relay's place", op: "bindtcp", args: []string{"127.0.0.1:1"}, refused: refusals("EADDRINUSE"),
			by: "the relay is there first", control: "control: loopback", off: noCapture,
		},
	}
	for _, a := range []struct {
		name, op string
		args     []string
	}{
		{"a raw socket", "socket", []string{"2", "3", "1"}},
		{"a raw IPv6 socket", "socket", []string{"10", "3", "58"}},
		{"a packet socket", "socket", []string{"17", "3", "768"}},
		{"SO_MARK, to pass rules by", "mark", nil},
		{"IP_TRANSPARENT, to have foreign addresses", "transparent", nil},
		{"regaining CAP_NET_ADMIN by capset", "capset", nil},
		{"regaining CAP_NET_ADMIN by the ambient set", "ambient", nil},
		{"a network namespace of its own", "clone_net", nil},
		{"netlink: another route", "add_route", nil},
		{"netlink: another nftables table", "add_nft", nil},
		{"netlink: flushing the redirect", "flush_nft", nil},
		{"netlink: removing the capturing route", "flush_route", nil},
		{"netlink: taking loopback down", "lo_down", nil},
	} {
		all = append(all, attack{
			name: a.name, op: a.op, args: a.args, refused: refusals("EPERM", "EAFNOSUPPORT", "ESOCKTNOSUPPORT"), by: "no capabilities, seccomp",
			control: "control: netlink", off: capabilities,
		})
	}
	return all
}

// TestEscapeNamesStayInside: what a sandbox asks for never reaches a resolver, whatever the name.
func TestEscapeNamesStayInside(t *testing.T) {
	l := testLab(t)
	l.entry(t, "network", "a name that reaches a resolver of the host", "the runner looks nothing up", func(t *testing.T, _ func(string)) {
		var asked atomic.Int64
		was := net.DefaultResolver
		t.Cleanup(func() { net.DefaultResolver = was })
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			asked.Add(1)
			return nil, errors.New("no resolver in this test")
		}}
		b := l.try(t, setup{name: "names"}, []step{
			{"one", "lookup", []string{"secret.tunnel.example"}}, {"two", "dns", []string{"192.0.2.53:53", "b.tunnel.example"}},
		})
		if n := asked.Load(); n != 0 {
			t.Errorf("%d questions left the runner", n)
		}
		if !b.has(refusedName("secret.tunnel.example")) || !b.has(refusedName("b.tunnel.example")) {
			t.Error("the names are not recorded")
		}
		l.try(t, setup{seam: seam{asked: askHost}}, []step{{"one", "lookup", []string{"secret.tunnel.example"}}})
		if asked.Load() == 0 {
			t.Error("a runner that looks names up asks nothing either: the entry proves nothing")
		}
	})
}

// askHost asks the host's resolver.
func askHost(ctx context.Context, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// TestEscapeUnseen: what a sandbox tried is recorded, also if it does its best not to be seen.
func TestEscapeUnseen(t *testing.T) {
	l := testLab(t)
	l.entry(t, "network", "hiding a datagram behind 20,000 others", "refused packets are added up, not sampled", func(t *testing.T, _ func(string)) {
		among, hidden := netip.MustParseAddrPort("8.8.8.8:9999"), netip.MustParseAddrPort("203.0.113.99:4444")
		flood := []step{{"hide", "hide", []string{"20000", among.String(), hidden.String()}}}
		b := l.try(t, setup{}, flood)
		if !b.has(refusedConnection("udp", hidden)) && b.result.Summary.Unlisted.Connections == 0 {
			t.Error("neither the datagram nor a gap is recorded")
		}
		if n := b.result.Summary.Counts.RefusedConnections; strconv.FormatUint(n, 10) != b.answers["hide"].Detail || n < 10_000 {
			t.Errorf("%d refusals are counted of %s", n, b.answers["hide"].Detail)
		}
		if off := l.try(t, weak("", "", []string{"rules"}, engine.Weakened{}), flood); off.result.Summary.Counts.RefusedConnections != 0 {
			t.Error("they are counted without the rules as well: the entry proves nothing")
		}
	})
	l.entry(t, "network", "acting in the last moment", "the guest reads everything to its end", func(t *testing.T, _ func(string)) {
		for range 3 {
			b := l.start(t, setup{}, []string{"/workspace/.probe/escapeprobe", "-last"}, nil)
			for what, wanted := range map[string]func(event.Event) bool{
				"datagram": refusedConnection("udp", netip.MustParseAddrPort("8.8.4.4:443")),
				"dial":     refusedConnection("tcp", netip.MustParseAddrPort("8.8.4.4:8080")),
				"question": refusedName("last.moment.example"),
			} {
				if !b.has(wanted) {
					t.Errorf("the %s is not recorded", what)
				}
			}
		}
		// On a machine that is busy the guest may be in time all the same.
		for range 5 {
			off := l.start(t, weak("", "", []string{"settle"}, engine.Weakened{}), []string{"/workspace/.probe/escapeprobe", "-last"}, nil)
			if !off.has(refusedConnection("udp", netip.MustParseAddrPort("8.8.4.4:443"))) {
				return
			}
		}
		t.Error("the datagram is recorded without that as well: the entry proves nothing")
	})
}

// TestEscapeInterfaces: there is nothing but loopback to send anything through.
func TestEscapeInterfaces(t *testing.T) {
	l := testLab(t)
	l.entry(t, "network", "another network interface", "network none", func(t *testing.T, skip func(string)) {
		look := []step{{"interfaces", "interfaces", nil}}
		others := func(b *box) []string {
			return slices.DeleteFunc(strings.Fields(b.answers["interfaces"].Detail), func(name string) bool {
				return name == "lo" || slices.Contains(fallbackInterfaces(), name)
			})
		}
		b := l.try(t, setup{name: "interfaces"}, look)
		if found := others(b); len(found) > 0 || !strings.Contains(b.answers["interfaces"].Detail, "lo") {
			t.Errorf("there are %q of %q", found, b.answers["interfaces"].Detail)
		}
		off := l.try(t, weak("interfaces of the host", "", []string{"capture"}, engine.Weakened{HostNetwork: true}), look)
		if len(others(off)) > 0 {
			return
		}
		if !l.facts.Local || !engineHasInterfaces(t, l.socket) {
			skip("the network of the engine's host has no other interface")
		}
		t.Errorf("in the host's network there are only %q: the entry proves nothing", off.answers["interfaces"].Detail)
	})
}

// engineHasInterfaces tells whether there is anything but loopback in the network namespace of the engine.
func engineHasInterfaces(t *testing.T, socket string) (found bool) {
	t.Helper()
	err := inEngineNetwork(socket, func() error {
		list, err := net.Interfaces()
		found = slices.ContainsFunc(list, func(i net.Interface) bool {
			return i.Flags&net.FlagLoopback == 0 && !slices.Contains(fallbackInterfaces(), i.Name)
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
