package broker

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// serve has the broker at a loopback address. stop tells it to end, and waits until it has.
func (w *world) serve(b *Broker) (address string, stop func() error) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Serve(ctx, l) }()
	return l.Addr().String(), func() error {
		cancel()
		return <-ended
	}
}

func statusOf(t *testing.T, client *http.Client, url string, header http.Header) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	res, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// What is under way when the broker is told to end gets its answer; nobody else gets in.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	hold := make(chan struct{})
	defer w.gh.Inject(runnertest.Fault{Method: http.MethodGet, Path: "/repos/acme/shop/installation", Hold: hold})()
	address, stop := w.serve(w.b)
	client := &http.Client{Transport: &http.Transport{}} // connections of its own
	answered := make(chan int, 1)
	go func() {
		answered <- statusOf(t, client, "http://"+address+"/sts/exchange?"+good, http.Header{"Authorization": {w.mint(nil)}})
	}()
	waitFor(t, "the exchange to be under way", func() bool { return len(w.b.slots) == 1 })
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	waitFor(t, "the broker to drain", w.b.draining.Load)
	if status := readiness(w.b); status != http.StatusServiceUnavailable {
		t.Errorf("readyz of a broker that drains: %d, want 503", status)
	}
	waitFor(t, "the listener to close", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	select {
	case err := <-ended:
		t.Fatalf("ended with an exchange under way: %v", err)
	default:
	}
	close(hold)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the exchange under way: %d, want 200", status)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	return rec
}

func readiness(b *Broker) int { return get(b, "/readyz").Code }

// waitFor polls what nobody announces.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// A certificate that is renewed in its file is served from the next handshake on; half of a renewal changes nothing.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	files := TLS{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	write := func(name string, content []byte) {
		t.Helper()
		next := name + ".next"
		if err := os.WriteFile(next, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, name); err != nil {
			t.Fatal(err)
		}
	}
	first, firstKey := selfSigned(t, "first")
	write(files.Certificate, first)
	write(files.Key, firstKey)
	w := newWorldWith(t, func(c *Config) { c.TLS = files })
	address, stop := w.serve(w.b)
	name := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // its name is what is looked at
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Errorf("served %q", got)
	}
	second, secondKey := selfSigned(t, "a second one")
	write(files.Certificate, second)
	if got := name(); got != "first" {
		t.Errorf("with half of a renewal: served %q, want the first", got)
	}
	write(files.Key, append(secondKey, '\n'))
	if got := name(); got != "a second one" {
		t.Errorf("after the renewal: served %q", got)
	}
	if !strings.Contains(w.log.String(), "certificate not read again") {
		t.Error("the half is not in the log")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestServeWithoutCertificate(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.TLS = TLS{"/nonexistent/cert", "/nonexistent/key"} })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.b.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "nonexistent") {
		t.Errorf("%v, want an error that names the file: never in clear text instead", err)
	}
}

func selfSigned(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	var c, p bytes.Buffer
	_ = pem.Encode(&c, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a buffer takes everything
	_ = pem.Encode(&p, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return c.Bytes(), p.Bytes()
}
