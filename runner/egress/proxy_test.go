package egress

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// corporateProxy is a real CONNECT proxy that has a resolver of its own.
type corporateProxy struct {
	server *httptest.Server
	hosts  map[string]string // host:port -> address

	mu  sync.Mutex // guards got
	got []string
}

func newCorporateProxy(t testing.TB, secure bool, hosts map[string]string) *corporateProxy {
	t.Helper()
	p := &corporateProxy{hosts: hosts}
	p.server = httptest.NewUnstartedServer(p)
	if secure {
		p.server.StartTLS()
	} else {
		p.server.Start()
	}
	t.Cleanup(p.server.Close)
	return p
}

func (p *corporateProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:pass word"))
	p.mu.Lock()
	p.got = append(p.got, r.Method+" "+r.RequestURI)
	p.mu.Unlock()
	if r.Header.Get("Proxy-Authorization") != want {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	address, ok := p.hosts[r.RequestURI]
	if r.Method != http.MethodConnect || !ok {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	upstream, err := net.Dial("tcp", address)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer upstream.Close()
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(upstream, rw)
		_ = upstream.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(conn, upstream)
	_ = conn.Close()
	up.Wait()
}

func (p *corporateProxy) url(user string) string {
	return strings.Replace(p.server.URL, "://", "://"+user, 1)
}

const proxyUser = "me:pass%20word@"

func TestProxy(t *testing.T) {
	server := web(t, true)
	port := portOf(server.Listener)
	config := server.Client().Transport.(*http.Transport).TLSClientConfig
	for _, secure := range []bool{false, true} {
		proxy := newCorporateProxy(t, secure, map[string]string{fmt.Sprintf("example.com:%d", port): server.Listener.Addr().String()})
		cfg := Config{
			Policy: mustPolicy(t, "  allow: [{host: example.com, port: %[1]d}, {host: other.example, port: %[1]d}]\n", port),
			Proxy:  Proxy{HTTPS: proxy.url(proxyUser)},
		}
		if secure {
			cfg.CAs = [][]byte{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.server.Certificate().Raw})}
		}
		s := newSandboxWith(t, cfg, nil)
		c := s.httpClient(config)
		got, err := get(t, c, fmt.Sprintf("https://example.com:%d/x", port))
		if want := fmt.Sprintf("200 GET example.com:%d/x body=0", port); err != nil || got != want {
			t.Fatalf("secure %v: %q, %v, want %q", secure, got, err, want)
		}
		c.CloseIdleConnections()
		if r := s.rec.ended(1); r.Via != proxy.server.Listener.Addr().String() || r.Upstream.IsValid() {
			t.Errorf("via %q, upstream %s", r.Via, r.Upstream)
		}
		if asked := s.hosts.questions(); len(asked) != 0 {
			t.Errorf("the host's resolver was asked for %v", asked)
		}
		if _, err := s.dial("other.example", port); err == nil || !strings.Contains(err.Error(), "answered 403") {
			t.Errorf("a host that the proxy refuses: %v", err)
		}
		if _, err := s.dial("8.8.8.8", port); err == nil {
			t.Error("the policy is asked first")
		}
	}
}

func TestProxyFailures(t *testing.T) {
	silent := listen(t)
	gone := listen(t)
	_ = gone.Close()
	asking := newCorporateProxy(t, false, nil)
	unknown := newCorporateProxy(t, true, nil)
	tests := []struct{ name, url, want string }{
		{"needs a password", asking.url(""), "answered 407"},
		{"wrong password", asking.url("me:hunter2@"), "answered 407"},
		{"not there", "http://me:hunter2@" + gone.Addr().String(), "can't be reached"},
		{"unknown authority", unknown.url("me:hunter2@"), "could not prove who it is"},
		{"silent", "http://me:hunter2@" + silent.Addr().String(), "did not answer in time"},
	}
	for _, tt := range tests {
		cfg := Config{Policy: mustPolicy(t, "  allow: [{host: a.example, limits: {connect: 1s}}]\n"), Proxy: Proxy{HTTPS: tt.url}}
		s := newSandboxWith(t, cfg, nil)
		_, err := s.dial("a.example", 443)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if r := s.rec.ended(1); r.Outcome != Failed || r.Code != CodeProxy || strings.Contains(fmt.Sprint(r), "hunter2") {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
}

func TestProxyIsAskedFor(t *testing.T) {
	p := mustPolicy(t, `  allow:
    - {host: a.example, port: [80, 443]}
    - internal.corp.example
    - {host: raw.example, port: 22, tcp: true}
    - {host: near.example, private: true}
    - {host: db, port: 5432, to: "10.0.0.1:5432"}
    - 10.1.2.3
    - 9.9.9.9
`)
	rec := newRecording(t)
	g, err := New(Config{Policy: p, Recorder: rec, Proxy: Proxy{HTTPS: "secure.example:1", HTTP: "http://plain.example:2", No: ".corp.example"}})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		host string
		port uint16
		want string
	}{
		{"a.example", 443, "secure.example:1"},
		{"a.example", 80, "plain.example:2"},
		{"9.9.9.9", 443, "secure.example:1"},
		{"internal.corp.example", 443, ""},
		{"raw.example", 22, ""},
		{"near.example", 443, ""},
		{"db", 5432, ""},
		{"10.1.2.3", 443, ""},
	}
	for _, tt := range tests {
		v := decide(g, tt.host, tt.port)
		got := ""
		if u := g.proxy.forHost(v, v.Target, tt.port); u != nil {
			got = u.Host
		}
		if !v.Allowed() || got != tt.want {
			t.Errorf("%s:%d goes through %q, want %q", tt.host, tt.port, got, tt.want)
		}
	}
}

func TestProxyValues(t *testing.T) {
	for value, ok := range map[string]bool{
		"": true, "proxy.example:3128": true, "http://proxy.example": true, "https://u:hunter2@proxy.example:1": true,
		"socks5://u:hunter2@proxy.example:1": false, "http://": false, "http://u:hunter2@[::1:3": false, "ftp://proxy.example": false,
	} {
		for _, p := range []Proxy{{HTTPS: value}, {HTTP: value}} {
			_, err := newUpstreamProxy(p, nil)
			if (err == nil) != ok || err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: %v, want ok %v", value, err, ok)
			}
		}
	}
}

// TestEarlyBytesOfATunnel has the first bytes of the tunnel arrive with the proxy's answer.
func TestEarlyBytesOfATunnel(t *testing.T) {
	l := listen(t)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nearly")
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}()
	g, _ := newGateway(t, mustPolicy(t, "  allow: [a.example]\n"))
	proxy, err := newUpstreamProxy(Proxy{HTTPS: l.Addr().String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := decide(g, "a.example", 443)
	conn, err := proxy.connect(t.Context(), g.dial, proxy.forHost(v, v.Target, 443), "a.example:443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "early" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, isTLS := conn.(*tls.Conn); isTLS {
		t.Error("TLS to a plain proxy")
	}
}
