package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/link"
)

// sandbox is a gateway with an agent on the other end of a real link. The names in hosts resolve for the runner; everything
// they lead to is a real server on loopback.
type sandbox struct {
	t     testing.TB
	g     *Gateway
	rec   *recording
	guest *link.Session
	hosts *zone
}

// zone is what the runner's resolver knows.
type zone struct {
	mu    sync.Mutex
	addrs map[string][]string
	asked []string
}

func (z *zone) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, host)
	var out []netip.Addr
	for _, s := range z.addrs[strings.TrimSuffix(host, ".")] {
		out = append(out, netip.MustParseAddr(s))
	}
	if len(out) == 0 {
		return nil, errors.New("no such host")
	}
	return out, nil
}

func (z *zone) questions() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return append([]string(nil), z.asked...)
}

// recording keeps the records, and lets tests wait for them.
type recording struct {
	t     testing.TB
	mu    sync.Mutex
	conns []Connection
	names []NameRefused
	reqs  []Request
	more  *sync.Cond
}

func newRecording(t testing.TB) *recording {
	r := &recording{t: t}
	r.more = sync.NewCond(&r.mu)
	return r
}

func (r *recording) Connection(c Connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
	r.more.Broadcast()
}

func (r *recording) NameRefused(n NameRefused) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, n)
}

func (r *recording) Request(q Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reqs = append(r.reqs, q)
	r.more.Broadcast()
}

func (r *recording) requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Request(nil), r.reqs...)
}

// request waits for the record of the n-th request, counted from 1.
func (r *recording) request(n int) Request {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	defer time.AfterFunc(20*time.Second, r.more.Broadcast).Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.reqs) < n {
		if time.Now().After(deadline) {
			r.t.Fatalf("request %d has not ended in time", n)
		}
		r.more.Wait()
	}
	return r.reqs[n-1]
}

// ended waits for the record of the n-th connection that has ended, counted from 1.
func (r *recording) ended(n int) Connection {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	defer time.AfterFunc(20*time.Second, r.more.Broadcast).Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if time.Now().After(deadline) {
			r.t.Fatalf("connection %d has not ended in time", n)
		}
		seen := 0
		for _, c := range r.conns {
			if !c.Open {
				if seen++; seen == n {
					return c
				}
			}
		}
		r.more.Wait()
	}
}

// client is what the runner will hand over.
type client struct{ *link.Stream }

func (c client) Answer(allowed bool, reason string) error {
	return c.WriteAnswer(link.Answer{Allowed: allowed, Reason: reason})
}

func (c client) Reset() error { return c.Close() }

func mustPolicy(t testing.TB, network string, args ...any) *policy.Policy {
	t.Helper()
	src := "version: 1\nnetwork:\n" + fmt.Sprintf(network, args...)
	p, err := policy.Load("policy.yaml", []byte(src))
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return p
}

func newSandbox(t testing.TB, p *policy.Policy, hosts map[string][]string, limits Limits) *sandbox {
	t.Helper()
	return newSandboxWith(t, Config{Policy: p, Limits: limits}, hosts)
}

func newSandboxWith(t testing.TB, cfg Config, hosts map[string][]string) *sandbox {
	t.Helper()
	rec := newRecording(t)
	cfg.Recorder = rec
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{addrs: hosts}
	g.lookup = z.lookup
	here, there := socketPair(t)
	runner, err := link.NewRunner(here)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := link.NewGuest(there)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { acceptAll(g, runner) })
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		_ = guest.Close()
		_ = runner.Close()
		serving.Wait()
	})
	return &sandbox{t, g, rec, guest, z}
}

func acceptAll(g *Gateway, runner *link.Session) {
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		stream, err := runner.Accept()
		if err != nil {
			return
		}
		streams.Go(func() {
			h, err := stream.ReadHeader()
			if err != nil || h.Purpose != link.Connect {
				_ = stream.Close()
				return
			}
			g.Connect(context.Background(), h.Addr, client{stream})
		})
	}
}

// socketPair is a byte stream between two ends, as the engine's attach connection is one.
func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l := listen(t)
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			accepted <- conn
		}
	}()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return a, <-accepted
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// errRefused is what the agent sees as a reset; its text is the reason that only the record has.
type errRefused struct{ reason string }

func (e errRefused) Error() string { return e.reason }

// agentConn is the agent's socket, with the guest's relay out of the way.
type agentConn struct{ *link.Stream }

// CloseWrite is what the guest makes of the agent's half-close; Close of both ends is no more than that on the link.
func (a agentConn) CloseWrite() error { return a.Stream.Close() }

// dialAddr opens a connection to an address, as a hostile guest could too.
func (s *sandbox) dialAddr(addr netip.AddrPort) (agentConn, error) {
	stream, err := s.guest.Open(link.Header{Purpose: link.Connect, Addr: addr})
	if err != nil {
		return agentConn{}, err
	}
	answer, err := stream.ReadAnswer()
	if err == nil && !answer.Allowed {
		err = errRefused{answer.Reason}
	}
	if err != nil {
		_ = stream.Close()
		return agentConn{}, err
	}
	return agentConn{stream}, nil
}

// dial resolves a name inside and connects.
func (s *sandbox) dial(name string, port int) (agentConn, error) {
	addr, err := netip.ParseAddr(name)
	if err != nil {
		var ok bool
		var reason string
		if addr, ok, reason = s.g.Resolve(name, "A"); !ok {
			return agentConn{}, errRefused{"name: " + reason}
		}
	}
	return s.dialAddr(netip.AddrPortFrom(addr, uint16(port)))
}

func (s *sandbox) mustDial(name string, port int) agentConn {
	s.t.Helper()
	conn, err := s.dial(name, port)
	if err != nil {
		s.t.Fatalf("dial %s:%d: %v", name, port, err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// httpClient is a real client whose sockets are in the sandbox.
func (s *sandbox) httpClient(config *tls.Config) *http.Client {
	transport := &http.Transport{
		TLSClientConfig: config,
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			n, err := net.LookupPort("tcp", port)
			if err != nil {
				return nil, err
			}
			return s.dial(host, n)
		},
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// talk sends text on a new connection and reads everything that comes back.
func (s *sandbox) talk(name string, port int, text string) (string, error) {
	conn, err := s.dial(name, port)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	_ = conn.CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// web is a real server that says who asked for what.
func web(t testing.TB, secure bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s%s body=%d", r.Method, r.Host, r.URL.Path, n)
	}))
	s.Config.ErrorLog = nil
	if secure {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func get(t testing.TB, c *http.Client, url string) (string, error) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, body), err
}
