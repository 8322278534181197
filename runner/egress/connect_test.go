package egress

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

func TestTLSToAnAllowedName(t *testing.T) {
	server := web(t, true)
	port := portOf(server.Listener)
	p := mustPolicy(t, "  allow: [{host: example.com, port: %d, private: true}]\n", port)
	s := newSandbox(t, p, map[string][]string{"example.com": {"127.0.0.1"}}, Limits{})
	config := server.Client().Transport.(*http.Transport).TLSClientConfig
	got, err := get(t, s.httpClient(config), fmt.Sprintf("https://example.com:%d/x", port))
	if want := fmt.Sprintf("200 GET example.com:%d/x body=0", port); err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

func TestRecordOfAConnection(t *testing.T) {
	server := web(t, true)
	port := portOf(server.Listener)
	p := mustPolicy(t, "  allow:\n    - {host: example.com, port: %d, private: true}\n", port)
	s := newSandbox(t, p, map[string][]string{"example.com": {"127.0.0.1"}}, Limits{})
	c := s.httpClient(server.Client().Transport.(*http.Transport).TLSClientConfig)
	if _, err := get(t, c, fmt.Sprintf("https://EXAMPLE.com:%d/", port)); err != nil {
		t.Fatal(err)
	}
	c.CloseIdleConnections()
	r := s.rec.ended(1)
	if r.Name != "example.com" || !synthetic.Contains(r.Dialled.Addr()) || r.Upstream != netip.MustParseAddrPort(server.Listener.Addr().String()) {
		t.Errorf("name %q, dialled %s, upstream %s", r.Name, r.Dialled, r.Upstream)
	}
	if r.Outcome != Allowed || r.Protocol != TLS || r.ServerName != "EXAMPLE.com" && r.ServerName != "example.com" || r.ID != 1 || r.Count != 1 {
		t.Errorf("record %+v", r)
	}
	if r.Up < 200 || r.Down < 200 || r.Duration <= 0 || r.Place.Line != 4 || !strings.Contains(r.Rule, "example.com") {
		t.Errorf("up %d, down %d, %s, %s, rule %s", r.Up, r.Down, r.Duration, r.Place, r.Rule)
	}
	if first := s.rec.conns[0]; !first.Open || first.ID != 1 {
		t.Errorf("the record at the start: %+v", first)
	}
}

// helloFor is the first flight of a real client.
func helloFor(t testing.TB, serverName string) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	go func() {
		_ = tls.Client(there, &tls.Config{ServerName: serverName, InsecureSkipVerify: true}).Handshake() //nolint:gosec // nothing is sent to it
	}()
	_, raw, err := readHello(here)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestFirstBytes is the attack table for what is said first. The host is up and allowed, so the positive control is the last case.
func TestFirstBytes(t *testing.T) {
	backend := newSink(t)
	p := mustPolicy(t, "  allow: [{host: a.example, port: %[1]d, private: true}, {host: b.example, port: %[1]d, private: true}]\n", backend.port)
	s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}, "b.example": {"127.0.0.1"}}, Limits{})
	tests := []struct {
		name, first string
		code        policy.Code
		answer      string // what the client sees begins with this
	}{
		{"another server name", string(helloFor(t, "evil.example")), CodeMismatch, string(alertUnrecognizedName())},
		{"another allowed name", string(helloFor(t, "b.example")), CodeMismatch, string(alertUnrecognizedName())},
		{"no server name", string(helloFor(t, "127.0.0.1")), CodeNoName, string(alertUnrecognizedName())},
		{"name below", string(helloFor(t, "x.a.example")), CodeMismatch, string(alertUnrecognizedName())},
		{"NUL in the server name", string(rawHello(ext(0, sni("a.example\x00.evil")))), CodeMismatch, string(alertUnrecognizedName())},
		{"two names", string(rawHello(ext(0, append(sni("a.example")[:2:2], 0)))), CodeProtocol, string(alertUnrecognizedName())},
		{"encrypted hello", string(rawHello(ext(0, sni("a.example")), ext(0xfe0d, []byte{0, 1, 2, 3}))), CodeECH, string(alertUnrecognizedName())},
		{"SSH", "SSH-2.0-x\r\n", CodeProtocol, "HTTP/1.1 403"},
		{"binary", "\x00\x01\x02\x03", CodeProtocol, ""},
		{"SSL 2", "\x80\x2e\x01\x00\x02", CodeProtocol, ""},
		{"HTTP/2 with prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", CodeProtocol, "HTTP/1.1 403"},
		{"HTTP for another host", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", CodeMismatch, "HTTP/1.1 403"},
		{"HTTP for another allowed host", "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", CodeMismatch, "HTTP/1.1 403"},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", CodeProtocol, "HTTP/1.1 403"},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: a.example\r\n\r\n", CodeProtocol, "HTTP/1.1 403"},
	}
	for i, tt := range tests {
		answer, err := s.talk("a.example", backend.port, tt.first)
		r := s.rec.ended(i + 1)
		if r.Outcome != Refused || r.Code != tt.code || r.Up != 0 {
			t.Errorf("%s: %s %s (%s), %d bytes up, want %s", tt.name, r.Outcome, r.Code, r.Reason, r.Up, tt.code)
		}
		if err != nil || !strings.HasPrefix(answer, tt.answer) || tt.answer == "" && answer != "" {
			t.Errorf("%s: the client saw %q, %v", tt.name, answer, err)
		}
	}
	if got := backend.bytes(len(tests)); got != "" {
		t.Fatalf("the host has got %q", got)
	}
	want := string(helloFor(t, "a.example"))
	if _, err := s.talk("a.example", backend.port, want); err != nil {
		t.Fatal(err)
	}
	if got := backend.bytes(len(tests) + 1); got != want {
		t.Errorf("positive control: the host has got %d bytes, want %d", len(got), len(want))
	}
}

// TestDials is the attack table for what is dialled.
func TestDials(t *testing.T) {
	server := web(t, false)
	port := portOf(server.Listener)
	p := mustPolicy(t, `  allow:
    - {host: ok.example, port: %[1]d, private: true}
    - {host: strict.example, port: %[1]d}
    - {host: private.example, port: %[1]d, private: true}
    - "*.wild.example"
    - 203.0.114.9
  deny: [no.wild.example]
`, port)
	s := newSandbox(t, p, map[string][]string{
		"ok.example": {"127.0.0.1"}, "strict.example": {"127.0.0.1"},
		"private.example": {"169.254.169.254"},
	}, Limits{})
	unused, _, _ := s.g.Resolve("unused.wild.example", "A")
	tests := []struct {
		host string
		port int
		code policy.Code
	}{
		{"8.8.8.8", 443, policy.CodeNoRule},
		{"8.8.8.8", 2222, policy.CodeNoRule},
		{"2001:4860:4860::8888", 443, policy.CodeNoRule},
		{"127.0.0.1", port, policy.CodeNoRule},
		{"::ffff:127.0.0.1", port, policy.CodeNoRule},
		{"::1", port, policy.CodeNoRule},
		{"10.0.0.1", 443, policy.CodeNoRule},
		{"172.17.0.1", 2375, policy.CodeNoRule},
		{"192.168.1.1", 80, policy.CodeNoRule},
		{"100.64.0.1", 443, policy.CodeNoRule},
		{"198.18.0.1", 443, policy.CodeNoRule},
		{"169.254.169.254", 80, policy.CodeNoRule},
		{"fd00:ec2::254", 80, policy.CodeNoRule},
		{"64:ff9b::a9fe:a9fe", 80, policy.CodeNoRule},
		{"2002:7f00:1::", 443, policy.CodeNoRule},
		{"224.0.0.1", 443, policy.CodeNoRule},
		{"0.0.0.0", port, policy.CodeNoRule},
		{"203.0.114.9", 22, policy.CodePort},
		{"28.5.255.1", 443, policy.CodeNoRule}, // synthetic, but no name's
		{unused.String(), 22, policy.CodePort},
		{"ok.example", 22, policy.CodePort},
		{"strict.example", port, CodeAddress},
		{"private.example", port, CodeAddress}, // a metadata service has to be named itself
	}
	for i, tt := range tests {
		_, err := s.dial(tt.host, tt.port)
		if !errors.As(err, new(errRefused)) {
			t.Errorf("%s:%d: %v, want a refusal", tt.host, tt.port, err)
			continue
		}
		if r := s.rec.ended(i + 1); r.Outcome != Refused || r.Code != tt.code || r.Reason == "" || r.Upstream.IsValid() {
			t.Errorf("%s:%d: %s %q (%s), want %q", tt.host, tt.port, r.Outcome, r.Code, r.Reason, tt.code)
		}
	}
	for _, name := range []string{"other.example", "no.wild.example", "host.docker.internal", "wild.example"} {
		if _, err := s.dial(name, 443); err == nil || !strings.HasPrefix(err.Error(), "name: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(s.rec.names); n != 4 {
		t.Errorf("%d names recorded, want 4", n)
	}
	if got, err := get(t, s.httpClient(nil), fmt.Sprintf("http://ok.example:%d/", port)); err != nil || !strings.HasPrefix(got, "200 ") {
		t.Errorf("positive control: %q, %v", got, err)
	}
}

// TestUnknownAddresses gives Connect what only a hostile guest would.
func TestUnknownAddresses(t *testing.T) {
	s := newSandbox(t, mustPolicy(t, "  allow: [a.example]\n"), nil, Limits{})
	for _, addr := range []netip.AddrPort{
		{}, netip.MustParseAddrPort("[fe80::1%eth0]:443"), netip.MustParseAddrPort("1.1.1.1:0"),
	} {
		if _, err := s.dialAddr(addr); !errors.As(err, new(errRefused)) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestFailedDialIsARefusalInside(t *testing.T) {
	l := listen(t)
	port := portOf(l)
	_ = l.Close()
	p := mustPolicy(t, "  allow: [{host: down.example, port: %[1]d, private: true}, {host: nowhere.example, port: %[1]d}]\n", port)
	s := newSandbox(t, p, map[string][]string{"down.example": {"127.0.0.1"}}, Limits{})
	for i, tt := range []struct {
		host, reason string
		code         policy.Code
	}{
		{"down.example", "refuses connections", CodeDial},
		{"nowhere.example", "no address", CodeResolve},
	} {
		if _, err := s.dial(tt.host, port); err == nil || !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%s: %v, want %q", tt.host, err, tt.reason)
		}
		if r := s.rec.ended(i + 1); r.Outcome != Failed || r.Code != tt.code {
			t.Errorf("%s: %+v", tt.host, r)
		}
	}
}

// TestServiceEntry sends a name on to another host and port, raw: the server speaks first.
func TestServiceEntry(t *testing.T) {
	l := listen(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello, who are you?\n")
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	p := mustPolicy(t, "  allow: [{host: postgres, port: 5432, tcp: true, to: \"127.0.0.1:%d\"}, {host: tls.example, port: 5433, to: \"127.0.0.1:%d\"}]\n", portOf(l), portOf(l))
	s := newSandbox(t, p, nil, Limits{})
	got, err := s.talk("postgres", 5432, "\x00\x01me")
	if want := "hello, who are you?\n\x00\x01me"; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	r := s.rec.ended(1)
	if _, err := s.dial("postgres", 5433); err == nil {
		t.Error("another port of the service is open")
	}
	if r.Protocol != TCP || r.Up != 4 || r.Upstream.Port() != uint16(portOf(l)) {
		t.Errorf("record %+v", r)
	}
	if asked := s.hosts.questions(); len(asked) != 0 {
		t.Errorf("the resolver was asked for %v", asked)
	}
}
