package guest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// ownNetwork tells the test's own program that it is in a network namespace of its own.
const ownNetwork = "AGENT_SANDBOX_TEST_NETWORK"

// TestLoopbackMeasures: a namespace with nothing but loopback is what it should be, and one with somewhere to go is not.
func TestLoopbackMeasures(t *testing.T) {
	if os.Getenv(ownNetwork) != "" {
		measureLoopback(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLoopbackMeasures$", "-test.v")
	cmd.Env = append(os.Environ(), ownNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) {
		t.Skip("this kernel gives no user namespaces:", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestLoopbackMeasures") {
		t.Errorf("%v\n%s", err, out)
	}
}

// measureLoopback is root in a new network namespace.
func measureLoopback(t *testing.T) {
	resolver := netip.MustParseAddrPort("127.0.0.53:53")
	measure := func() link.Network {
		c, err := newLoopback(resolver)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.state
	}
	if s := measure(); s.Listeners || len(s.Reasons) != 1 || !strings.Contains(s.Reasons[0], "does not arrive") {
		t.Errorf("lo that is down is measured as %+v", s)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	if s := measure(); !s.Listeners || s.Capture || s.DNSPort != 53 || len(s.Reasons) > 0 {
		t.Errorf("nothing but loopback is measured as %+v", s)
	}
	// Now every address is this host's, so that packets have somewhere to go.
	if err := everythingIsLocal(lo, ownIPv4, 32); err != nil {
		t.Fatal(err)
	}
	if s := measure(); s.Listeners || len(s.Reasons) != 1 || !strings.Contains(s.Reasons[0], "has somewhere to go") {
		t.Errorf("a route is measured as %+v", s)
	}
}

// opened are openings, and the runner's end of their link.
func opened(t *testing.T) (*openings, *link.Session, *link.Session) {
	t.Helper()
	a, b := net.Pipe()
	runner, err := link.NewRunner(a)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := link.NewGuest(b)
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay(guest, func(link.Frame) error { return nil })
	r.dialled = listenerAddress
	t.Cleanup(func() {
		for _, l := range r.listeners {
			_ = l.Close()
		}
		_ = runner.Close()
		_ = guest.Close()
		r.listening.Wait()
		r.open.Wait()
	})
	return newOpenings(r), runner, guest
}

// freePort is one that nobody listens on at addr.
func freePort(t *testing.T, addr netip.Addr) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// TestOpenings: an address can be dialled as soon as it is known, and the runner is told which it was.
func TestOpenings(t *testing.T) {
	o, runner, guest := opened(t)
	addr := netip.MustParseAddr("127.64.0.1")
	port := freePort(t, addr)
	answered := make(chan error, 2)
	go func() {
		for range 2 {
			st, err := runner.Accept()
			if err == nil {
				_, err = st.ReadHeader()
			}
			if err == nil {
				err = errors.Join(st.WriteAnswer(link.Answer{Allowed: true, Addr: addr, Ports: []uint16{port}}), st.Close())
			}
			answered <- err
		}
	}()
	lookup := askRunner(guest, o.listen)
	for range 2 { // the second time it is open already
		if got, allowed, err := lookup(context.Background(), "a.example", "A"); got != addr || !allowed || err != nil {
			t.Fatalf("look-up: %v, %v, %v", got, allowed, err)
		}
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
	}
	at := netip.AddrPortFrom(addr, port)
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	st, err := runner.Accept()
	if err != nil {
		t.Fatal(err)
	}
	h, err := st.ReadHeader()
	if err != nil || h.Purpose != link.Connect || h.Addr != at {
		t.Errorf("the runner is asked for %+v, %v, want %s", h, err, at)
	}
	if err := errors.Join(st.WriteAnswer(link.Answer{}), st.Close()); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a refusal is seen as %v", err)
	}
}

// TestOpeningsTaken: a port of the agent's own stays its own until it gives it back, and the others are opened.
func TestOpeningsTaken(t *testing.T) {
	o, _, _ := opened(t)
	addr := netip.MustParseAddr("127.64.0.2")
	own, err := net.Listen("tcp4", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	taken := own.Addr().(*net.TCPAddr).AddrPort()
	free := netip.AddrPortFrom(addr, freePort(t, addr))
	ports := []uint16{taken.Port(), free.Port()}
	if err := o.listen(addr, ports); err != nil || o.open[taken] || !o.open[free] {
		t.Errorf("open are %v, %v", o.open, err)
	}
	_ = own.Close()
	if err := o.listen(addr, ports); err != nil || !o.open[taken] {
		t.Errorf("later open are %v, %v", o.open, err)
	}
}

// TestOpeningsBounded: neither a name nor all of them together take the guest's descriptors, and an address that isn't
// the sandbox's is an error rather than an answer that leads nowhere.
func TestOpeningsBounded(t *testing.T) {
	o, _, _ := opened(t)
	addr := netip.MustParseAddr("127.64.0.3")
	many := make([]uint16, 2*link.MaxPorts)
	for i := range many {
		many[i] = uint16(40000 + i)
	}
	if err := o.listen(addr, many); err != nil || len(o.open) > link.MaxPorts || len(o.open) < link.MaxPorts/2 {
		t.Errorf("%d are open for one name, %v", len(o.open), err)
	}
	if err := o.listen(netip.MustParseAddr("203.0.113.1"), []uint16{443}); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("an address elsewhere: %v", err)
	}
	for i := len(o.open); i < maxListeners; i++ {
		o.open[netip.AddrPortFrom(addr, uint16(i))] = true
	}
	if err := o.listen(netip.MustParseAddr("127.64.0.4"), []uint16{40000}); err == nil || len(o.open) != maxListeners {
		t.Errorf("%d are open, %v", len(o.open), err)
	}
}

// TestOpeningsAfterTheEnd: nothing is opened for a question that was answered while the sandbox ends.
func TestOpeningsAfterTheEnd(t *testing.T) {
	o, _, _ := opened(t)
	o.relay.finish()
	addr := netip.MustParseAddr("127.64.0.5")
	port := freePort(t, addr)
	if err := o.listen(addr, []uint16{port}); err != nil || len(o.relay.listeners) != 0 {
		t.Errorf("%d listeners, %v", len(o.relay.listeners), err)
	}
	if conn, err := net.Dial("tcp", netip.AddrPortFrom(addr, port).String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dialled %v, %v", conn, err)
	}
}

// TestAsTold: the guest does neither less nor more than the runner counts on.
func TestAsTold(t *testing.T) {
	other := errors.New("no netfilter")
	fallback := link.Start{Loopback: netip.MustParseAddrPort("127.0.0.53:53")}
	for _, tt := range []struct {
		start      link.Start
		uncaptured error
		ok         bool
	}{
		{link.Start{}, nil, true},
		{link.Start{}, errNoAdmin, false},
		{link.Start{}, other, false},
		{fallback, errNoAdmin, true},
		{fallback, nil, false},
		{fallback, other, false},
	} {
		if err := asTold(&tt.start, tt.uncaptured); (err == nil) != tt.ok {
			t.Errorf("asTold(loopback %v, %v) = %v", tt.start.Loopback, tt.uncaptured, err)
		}
	}
}
