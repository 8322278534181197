//go:build docker

package runner

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is what a sandbox with a network can reach: real servers on loopback, a resolver, and the runner's dials, all of which keep what
// they saw. What a sandbox did is judged by that, whatever it was answered.
type world struct {
	authority []byte // of the servers' certificates
	ech       string // see encrypted

	secure, plain, other string // addresses of the servers: TLS, HTTP, and anything that is said

	realNames bool // the runner asks the host's resolver

	mu     sync.Mutex // guards what follows
	seen   []string
	asked  map[string]int
	answer func(name string, before int) []string // the resolver's; nil for publicAddress
	again  bool                                   // a dial looks the name up once more, as careless ones do
}

// publicAddress is the one that all names have.
const publicAddress = "93.184.216.34"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{asked: map[string]int{}}
	cert := w.certify(t)
	ech, err := newECH()
	if err != nil {
		t.Fatal(err)
	}
	w.ech = ech.list
	secure := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, EncryptedClientHelloKeys: ech.keys}
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		w.note("server name " + h.ServerName)
		return nil, nil //nolint:nilnil // crypto/tls's way to say that the configuration stays
	}
	secure.TLS = config
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	plain.Config.ErrorLog = log.New(io.Discard, "", 0)
	plain.Listener = witnessed{plain.Listener, w}
	plain.Start()
	t.Cleanup(plain.Close)
	w.secure, w.plain = secure.Listener.Addr().String(), plain.Listener.Addr().String()
	w.other = w.greet(t)
	return w
}

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, what)
}

// saw tells whether anything had the text in it.
func (w *world) saw(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.seen {
		if strings.Contains(s, text) {
			return true
		}
	}
	return false
}

// serve keeps each request, and answers it: with a redirect, with what it was sent, or with a greeting.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.note(fmt.Sprintf("%s %s %s%s %v", r.Proto, r.Method, r.Host, r.RequestURI, r.Header))
	body, _ := io.ReadAll(io.LimitReader(r.Body, 8<<20)) // one that is broken off counts too
	w.note("body " + string(body))
	switch to := r.URL.Query().Get("to"); {
	case to != "":
		http.Redirect(rw, r, to, http.StatusFound)
	case r.Method == http.MethodTrace:
		_ = r.Header.Write(rw)
	case r.URL.Path == "/body":
		_, _ = io.WriteString(rw, r.Header.Get("Authorization"))
	default:
		rw.Header().Set("X-Echo", r.Header.Get("Authorization"))
		_, _ = io.WriteString(rw, "served")
	}
}

// witnessed notes every byte.
type witnessed struct {
	net.Listener
	w *world
}

func (l witnessed) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &witness{Conn: conn, w: l.w}, err
}

type witness struct {
	net.Conn
	w   *world
	all []byte
}

func (c *witness) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if len(c.all) < 64<<10 {
		c.all = append(c.all, p[:n]...)
		c.w.note(string(c.all)) // together with what came before: marks can be cut in two
	}
	return n, err
}

// greet is a server for anything: it keeps the first words and answers as escapeprobe wants it.
func (w *world) greet(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, "reached the other side")
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, &witness{Conn: conn, w: w})
			}()
		}
	}()
	return l.Addr().String()
}

// lookup is the runner's resolver. Every question is kept.
func (w *world) lookup(_ context.Context, name string) ([]netip.Addr, error) {
	name = strings.TrimSuffix(name, ".")
	w.note("asked for " + name)
	w.mu.Lock()
	before := w.asked[name]
	w.asked[name]++
	w.mu.Unlock()
	answers := []string{publicAddress}
	if w.answer != nil {
		answers = w.answer(name, before)
	}
	var all []netip.Addr
	for _, s := range answers {
		all = append(all, netip.MustParseAddr(s))
	}
	if len(all) == 0 {
		return nil, errors.New("no such host")
	}
	return all, nil
}

// dial is the runner's network: one host answers at every address.
func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if host, _, _ := net.SplitHostPort(address); w.again && host == rebindAddress {
		addrs, err := w.lookup(ctx, "rebind.inward.example")
		if err != nil {
			return nil, err
		}
		address = strings.Replace(address, rebindAddress, addrs[0].String(), 1)
	}
	w.note("dialled " + address + "\n")
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	to, known := map[string]string{"443": w.secure, "8443": w.secure, "80": w.plain}[port]
	if !known {
		to = w.other
	}
	return (&net.Dialer{}).DialContext(ctx, network, to)
}

// certify makes an authority, and a certificate of the servers for every name that the policies have.
func (w *world) certify(t *testing.T) tls.Certificate {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	sign := func(c, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "outside"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	w.authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sign(ca, ca, caKey, caKey)})
	leaf := &x509.Certificate{DNSNames: []string{
		"*.spliced.example", "*.ruled.example", "*.guarded.example", "*.model.example", "*.inward.example", "*.local.example", "*.bot.example", "github.com", "api.github.com",
	}}
	return tls.Certificate{Certificate: [][]byte{sign(leaf, ca, key, caKey)}, PrivateKey: key}
}

// encrypted is a key for encrypted client hellos that all worlds have, with its configuration.
type encrypted struct {
	keys []tls.EncryptedClientHelloKey
	list string // in hex, as clients want it
}

// newECH makes a key and its configuration (RFC 9849, section 4).
var newECH = sync.OnceValues(func() (encrypted, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return encrypted{}, err
	}
	const (
		version   = 0xfe0d
		kem       = 0x0020 // DHKEM(X25519, HKDF-SHA256)
		publicKey = 32
		outerName = "ech.spliced.example"
	)
	b := []byte{1} // the configuration's id
	b = binary.BigEndian.AppendUint16(b, kem)
	b = append(binary.BigEndian.AppendUint16(b, publicKey), key.PublicKey().Bytes()...)
	b = append(b, 0, 4, 0, 1, 0, 1) // one suite: HKDF-SHA256, AES-128-GCM
	b = append(b, 32, byte(len(outerName)))
	b = append(b, outerName+"\x00\x00"...) // and no extensions
	config := append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, version), uint16(len(b))), b...)
	return encrypted{
		keys: []tls.EncryptedClientHelloKey{{Config: config, PrivateKey: key.Bytes(), SendAsRetry: true}},
		list: hex.EncodeToString(append(binary.BigEndian.AppendUint16(nil, uint16(len(config))), config...)),
	}, nil
})
