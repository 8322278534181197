package egress

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
)

func parsePEM(t *testing.T, b []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(b)
	if block == nil || len(rest) > 0 {
		t.Fatalf("no single PEM block: %q", b)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestAuthority(t *testing.T) {
	p := mustPolicy(t, `  allow:
    - plain.example
    - {host: ruled.example, rules: ["GET /**"]}
    - {host: "*.wild.example", rules: ["GET /**"]}
    - {host: 1.1.1.1, rules: ["GET /**"]}
    - keyed.example
  deny:
    - {host: nowhere.example, rules: ["GET /**"]}
`)
	c := token(t, "keyed.example")
	c.Hosts = append(c.Hosts, mustHost(t, "not-allowed.example"))
	g, err := New(Config{Policy: p, Recorder: newRecording(t), Credentials: []Credential{c}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	cert := parsePEM(t, g.Authority())
	if want := []string{".wild.example", "keyed.example", "ruled.example"}; !slices.Equal(cert.PermittedDNSDomains, want) {
		t.Errorf("permitted %q, want %q", cert.PermittedDNSDomains, want)
	}
	if len(cert.PermittedIPRanges) != 1 || cert.PermittedIPRanges[0].String() != "1.1.1.1/32" {
		t.Errorf("permitted %v", cert.PermittedIPRanges)
	}
	if !cert.PermittedDNSDomainsCritical || !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero || cert.SerialNumber.BitLen() < 120 {
		t.Errorf("critical %v, CA %v, path %d, serial %d bits", cert.PermittedDNSDomainsCritical, cert.IsCA, cert.MaxPathLen, cert.SerialNumber.BitLen())
	}
	if life := time.Until(cert.NotAfter); life < 24*time.Hour || life > 48*time.Hour || time.Since(cert.NotBefore) < 30*time.Minute {
		t.Errorf("holds from %s to %s", cert.NotBefore, cert.NotAfter)
	}
}

func TestNoAuthority(t *testing.T) {
	g, err := New(Config{Policy: mustPolicy(t, "  allow: [a.example, {host: b.example, port: 22, tcp: true}]\n"), Recorder: newRecording(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if pem := g.Authority(); pem != nil {
		t.Errorf("nothing is intercepted, and there is an authority: %s", pem)
	}
}

// TestConstraintsHold has the authority vouch for what it may not: whoever got hold of its key could do that.
func TestConstraintsHold(t *testing.T) {
	hosts := func(list ...string) []policy.Host {
		var out []policy.Host
		for _, s := range list {
			out = append(out, mustHost(t, s))
		}
		return out
	}
	for _, tt := range []struct {
		permitted []policy.Host
		name      string
		want      bool
	}{
		{hosts("a.example", "*.wild.example"), "a.example", true},
		{hosts("a.example", "*.wild.example"), "x.wild.example", true},
		{hosts("a.example", "*.wild.example"), "wild.example", false},
		{hosts("a.example", "*.wild.example"), "b.example", false},
		{hosts("a.example", "*.wild.example"), "evil-a.example", false},
		{hosts("a.example"), "1.1.1.1", false},
		{hosts("a.example"), "2606:4700:4700::1111", false},
		{hosts("1.1.1.1"), "1.1.1.1", true},
		{hosts("1.1.1.1"), "1.1.1.2", false},
		{hosts("1.1.1.1"), "2606:4700:4700::1111", false},
		{hosts("1.1.1.1"), "a.example", false},
	} {
		a, err := newAuthority(tt.permitted, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := a.certificate(mustHost(t, tt.name))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(leaf.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(a.cert)
		_, err = cert.Verify(x509.VerifyOptions{DNSName: tt.name, Roots: roots})
		if (err == nil) != tt.want {
			t.Errorf("permitted %v: a certificate for %s: %v, want it to hold: %v", tt.permitted, tt.name, err, tt.want)
		}
	}
}

// TestLeaves: one certificate for each name, however many ask at once, and a bounded number in all.
func TestLeaves(t *testing.T) {
	a, err := newAuthority([]policy.Host{mustHost(t, "*.wild.example")}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	got := make([]*tls.Certificate, 20)
	for i := range got {
		all.Go(func() { got[i], _ = a.certificate(mustHost(t, "x.wild.example")) })
	}
	all.Wait()
	for _, cert := range got {
		if cert == nil || cert != got[0] {
			t.Fatal("two certificates for one name")
		}
	}
	for i := range maxLeaves + 10 {
		a.leaf(mustHost(t, fmt.Sprintf("x%d.wild.example", i)))
	}
	if n := len(a.leaves); n > maxLeaves {
		t.Errorf("%d certificates are kept", n)
	}
}

// TestInterceptedAddress: a host that is an address has no server name.
func TestInterceptedAddress(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, nil)
	s := p.inspecting("  allow: [{host: 1.1.1.1, port: 443, to: \"127.0.0.1:%d\", rules: [\"GET /**\"]}]\n", b.port)
	config := s.trusting()
	config.ServerName = "1.1.1.1"
	conn := tls.Client(s.mustDial("1.1.1.1", 443), config)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: 1.1.1.1\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(got), "HTTP/1.1 502") || !strings.Contains(string(got), "did not prove who it is") { // it proves a name
		t.Errorf("%q", got)
	}
}
