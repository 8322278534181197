package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// agentConn is a guest's end of one of its agent's connections.
type agentConn struct {
	*link.Conn
	reset chan struct{} // closed when the runner breaks off
}

// obey leads the runner's resets to the connections.
func (g *fakeGuest) obey(resets *link.Resets) {
	for {
		f, err := link.ReadFrame(g.control)
		if err != nil {
			return
		}
		if f.Reset != nil {
			resets.Reset(*f.Reset)
		}
	}
}

// dial connects to a name as an agent does; it must be allowed.
func (g *fakeGuest) dial(resets *link.Resets, name string, port uint16) *agentConn {
	g.t.Helper()
	st, err := g.session.Open(link.Header{Purpose: link.Resolve, Name: name, Type: "A"})
	if err != nil {
		g.t.Fatal(err)
	}
	a, err := st.ReadAnswer()
	if err != nil || !a.Allowed {
		g.t.Fatalf("%s: %+v, %v", name, a, err)
	}
	_ = st.Close()
	if st, err = g.session.Begin(); err != nil {
		g.t.Fatal(err)
	}
	c := &agentConn{reset: make(chan struct{})}
	c.Conn = link.NewConn(st, resets, func(f link.Frame) error { return link.WriteFrame(g.control, f) }, func() { close(c.reset) })
	if err := st.WriteHeader(link.Header{Purpose: link.Connect, Addr: netip.AddrPortFrom(a.Addr, port)}); err != nil {
		g.t.Fatal(err)
	}
	if a, err := st.ReadAnswer(); err != nil || !a.Allowed {
		g.t.Fatalf("%s: %+v, %v", name, a, err)
	}
	return c
}

// service is a server on loopback, and a policy whose name shop.test leads there, whatever it speaks.
func service(t *testing.T, serve func(*net.TCPConn)) *policy.Policy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn.(*net.TCPConn))
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return loadPolicy(t, fmt.Sprintf("network: {allow: [{host: shop.test, port: 443, tcp: true, to: %q}]}\n", l.Addr()))
}

func loadPolicy(t *testing.T, body string) *policy.Policy {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte("version: 1\n"+body))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// finish hangs up and closes the gateway, after which every record is there.
func finish(t *testing.T, r *run, box *sandbox) {
	t.Helper()
	_ = box.session.Close()
	box.link.wait()
	if err := r.gateway.Close(); err != nil {
		t.Error(err)
	}
	r.refusals.Flush()
}

// TestConnectCarries: both ways, an end of one direction does not end the other, and it is on record.
func TestConnectCarries(t *testing.T) {
	p := service(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "got %d bytes", len(b))
		_ = c.Close()
	})
	r, log := newRun(t, Config{Policy: p})
	box, guest := newBox(t, r)
	var resets link.Resets
	go guest.obey(&resets)
	c := guest.dial(&resets, "shop.test", 443)
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); string(b) != "got 1048576 bytes" || err != nil {
		t.Errorf("the answer is %q, %v", b, err)
	}
	c.Finish(endTime)
	finish(t, r, box)
	all := log.of(event.Connection{}.Kind())
	if len(all) != 2 {
		t.Fatalf("%d events", len(all))
	}
	e := all[1].(event.Connection)
	if e.Open || e.Name != "shop.test" || e.Outcome != event.ConnectionAllowed || e.Up != 1<<20 || e.Down != 17 || e.Place != "policy.yaml:2:19" || e.Upstream == "" {
		t.Errorf("recorded as %+v", e)
	}
	if first := all[0].(event.Connection); !first.Open || first.ID != e.ID {
		t.Errorf("begun as %+v", first)
	}
	if n := log.of(event.ConnectionRefused{}.Kind()); len(n) != 0 {
		t.Errorf("a connection that was carried counts as refused: %+v", n)
	}
}

// TestConnectHostResets: what the host sent is read, then comes a reset and no end.
func TestConnectHostResets(t *testing.T) {
	p := service(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half")
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
		_ = c.Close()
	})
	r, _ := newRun(t, Config{Policy: p})
	_, guest := newBox(t, r)
	var resets link.Resets
	go guest.obey(&resets)
	c := guest.dial(&resets, "shop.test", 443)
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("an end came after %q", b)
	}
	<-c.reset
	c.Finish(endTime)
}

// TestConnectAgentResets: the host sees a reset, though everything before may have looked whole.
func TestConnectAgentResets(t *testing.T) {
	seen := make(chan error, 1)
	p := service(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		seen <- err
		_ = c.Close()
	})
	for _, how := range []string{"agent", "guest dies"} {
		r, log := newRun(t, Config{Policy: p})
		box, guest := newBox(t, r)
		var resets link.Resets
		go guest.obey(&resets)
		c := guest.dial(&resets, "shop.test", 443)
		if _, err := c.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		if how == "agent" {
			if err := c.Reset(); err != nil {
				t.Fatal(err)
			}
			c.Finish(endTime)
		} else {
			_ = guest.session.Close()
		}
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the host saw %v", how, err)
		}
		finish(t, r, box)
		all := log.of(event.Connection{}.Kind())
		if e := all[len(all)-1].(event.Connection); e.Open || e.Code != string(egress.CodeBroken) && (how == "agent" || e.Code != string(egress.CodeEnded)) {
			t.Errorf("%s: recorded as %+v", how, e)
		}
	}
}

// TestConnectHangsUp: connections that are open end with the session, whatever their hosts do.
func TestConnectHangsUp(t *testing.T) {
	r, _ := newRun(t, Config{Policy: service(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c); _ = c.Close() })})
	box, guest := newBox(t, r)
	var resets link.Resets
	go guest.obey(&resets)
	for range 20 {
		guest.dial(&resets, "shop.test", 443)
	}
	_ = box.session.Close()
	box.link.streams.Wait()
}

// TestConnectRefusals: each has its line for the policy, unless nobody should paste it.
func TestConnectRefusals(t *testing.T) {
	r, log := newRun(t, Config{Policy: loadPolicy(t, "network: {allow: [shop.example]}\n")})
	box, guest := newBox(t, r)
	for _, addr := range []string{"192.88.98.1:443", "169.254.169.254:80", "10.1.2.3:22", "[2606:4700::1111]:8443"} {
		st, err := guest.session.Open(link.Header{Purpose: link.Connect, Addr: netip.MustParseAddrPort(addr)})
		if err != nil {
			t.Fatal(err)
		}
		if a, err := st.ReadAnswer(); err != nil || a.Allowed || a.Reason == "" {
			t.Errorf("%s was answered with %+v (%v)", addr, a, err)
		}
		_ = st.Close()
	}
	for _, name := range []string{"evil.example", "shop.example.evil", "x\x00y"} {
		st, err := guest.session.Open(link.Header{Purpose: link.Resolve, Name: name, Type: "A"})
		if err != nil {
			t.Fatal(err)
		}
		if a, err := st.ReadAnswer(); err != nil || a.Allowed || a.Addr.IsValid() {
			t.Errorf("%s was answered with %+v (%v)", name, a, err)
		}
	}
	finish(t, r, box)
	add := map[string]string{}
	for _, e := range log.of(event.ConnectionRefused{}.Kind()) {
		add[e.(event.ConnectionRefused).Address] = e.(event.ConnectionRefused).Add
	}
	for _, e := range log.of(event.NameRefused{}.Kind()) {
		add[e.(event.NameRefused).Name] = e.(event.NameRefused).Add
	}
	for target, want := range map[string]string{
		"192.88.98.1": "192.88.98.1", "169.254.169.254": "", "10.1.2.3": "", "2606:4700::1111": `{host: "2606:4700::1111", port: 8443, tcp: true}`,
		"evil.example": "evil.example", "shop.example.evil": "shop.example.evil", "x\x00y": "",
	} {
		if got, there := add[target]; !there || got != want {
			t.Errorf("for %q the record offers %q (%v), want %q", target, got, there, want)
		}
	}
}

// TestGatewayRefusesPolicy: a policy that can't be kept ends the run before there is anything, with place and mend.
func TestGatewayRefusesPolicy(t *testing.T) {
	for _, tt := range []struct{ policy, proxy, want string }{
		{"network: {allow: [\"npm\", {host: a.example, rules: [\"GET /\"]}]}\n", "", "policy.yaml:2:"},
		{"network: {}\n", "socks5://proxy.example:1080", "HTTPS_PROXY"},
	} {
		r := &run{cfg: Config{Policy: loadPolicy(t, tt.policy), Proxy: egress.Proxy{HTTPS: tt.proxy}}}
		var refused *RefusedError
		if err := r.openGateway(); !errors.As(err, &refused) || !strings.Contains(refused.Reason, tt.want) || strings.Contains(refused.Reason, "\n") {
			t.Errorf("%q: %v", tt.policy, err)
		}
	}
}

// TestConnectHostile: a guest that resets what it has not, and connections that it never ends, cost it its own streams alone.
func TestConnectHostile(t *testing.T) {
	r, _ := newRun(t, Config{Policy: service(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c); _ = c.Close() })})
	box, guest := newBox(t, r)
	var resets link.Resets
	go guest.obey(&resets)
	for id := range uint32(100) {
		guest.send(link.Frame{Reset: &link.Reset{Stream: id * 7919}})
	}
	c := guest.dial(&resets, "shop.test", 443)
	for range 3 {
		guest.send(link.Frame{Reset: &link.Reset{Stream: c.StreamID() + 2}})
	}
	want := bytes.Repeat([]byte("x"), 1<<10)
	if _, err := c.Write(want); err != nil {
		t.Fatal(err)
	}
	if got := make([]byte, len(want)); func() error { _, err := io.ReadFull(c, got); return err }() != nil || !bytes.Equal(got, want) {
		t.Error("the connection does not work any more")
	}
	guest.send(link.Frame{Started: &link.Started{PID: 1}})
	if f := <-box.frames; f.Started == nil {
		t.Errorf("the next frame is %+v", f)
	}
}
