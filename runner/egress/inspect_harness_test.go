package egress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// pki is an authority of the outside world.
type pki struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "outside"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pki{t, cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue makes a certificate that holds from the past until end.
func (p *pki) issue(name string, end time.Time) tls.Certificate {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, &key.PublicKey, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// backend is a real HTTPS server on loopback.
type backend struct {
	*httptest.Server
	port int
}

func (p *pki) backend(name string, h2 bool, handler http.HandlerFunc) backend {
	return p.backendWith(p.issue(name, time.Now().Add(time.Hour)), h2, handler)
}

func (p *pki) backendWith(cert tls.Certificate, h2 bool, handler http.HandlerFunc) backend {
	p.t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = h2
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(discard{}, "", 0)
	s.StartTLS()
	p.t.Cleanup(s.Close)
	return backend{s, portOf(s.Listener)}
}

// plainBackend is one without TLS.
func plainBackend(t testing.TB, handler http.HandlerFunc) backend {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return backend{s, portOf(s.Listener)}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// inspecting is a sandbox whose host a.example is on loopback.
func (p *pki) inspecting(network string, port int, credentials ...Credential) *sandbox {
	p.t.Helper()
	return newSandboxWith(p.t, Config{
		Policy: mustPolicy(p.t, network, port), CAs: [][]byte{p.pem}, Credentials: credentials,
	}, map[string][]string{"a.example": {"127.0.0.1"}, "b.example": {"127.0.0.1"}})
}

// trusting is the TLS configuration of a program that trusts the run's authority and nothing else.
func (s *sandbox) trusting() *tls.Config {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.g.Authority()) {
		s.t.Fatal("there is no authority")
	}
	return &tls.Config{RootCAs: pool}
}

// agent is a real HTTP client inside.
func (s *sandbox) agent(h2 bool) *http.Client {
	s.t.Helper()
	c := s.httpClient(s.trusting())
	c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
	c.Transport.(*http.Transport).ExpectContinueTimeout = 20 * time.Second
	return c
}

// secureDial opens TLS by hand, to send what no client would.
func (s *sandbox) secureDial(name string, port int, protocols ...string) *tls.Conn {
	s.t.Helper()
	config := s.trusting()
	config.ServerName, config.NextProtos = name, protocols
	conn := tls.Client(s.mustDial(name, port), config)
	if err := conn.HandshakeContext(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func mustHost(t testing.TB, s string) policy.Host {
	t.Helper()
	h, err := policy.ParseHost(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func fixed(text string) func(context.Context) (secret.Value, error) {
	return func(context.Context) (secret.Value, error) { return secret.New(text), nil }
}

const (
	placeholder = "tok_placeholder-0123456789"
	realToken   = "tok_real-abcdefghijklmnopq"
)

func token(t testing.TB, host string) Credential {
	return Credential{Name: "model", Placeholder: placeholder, Value: fixed(realToken), Hosts: []policy.Host{mustHost(t, host)}, Scheme: Bearer}
}

var _ net.Conn = (*agentEnd)(nil)
