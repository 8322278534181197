package guest

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/org/agent-sandbox/runner/link"
)

const (
	// maxBundle bounds one file of certificates in bytes. Mozilla's list has a quarter of a megabyte.
	maxBundle = 4 << 20
	// maxCertificates bounds all certificates together, in bytes.
	maxCertificates = 4 << 20
)

// trustPlaces are where images have the certificates that they trust.
type trustPlaces struct {
	bundles []string // PEM; the first one that is there counts
	// stores are Java's. They count if they are in its old format: the new one, PKCS #12, takes cryptography to read.
	stores []string
}

func usualPlaces() trustPlaces {
	return trustPlaces{
		bundles: []string{
			"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
			"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL
			"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora where the former is gone
			"/etc/ssl/ca-bundle.pem",                            // SUSE
			"/etc/ssl/cert.pem",                                 // Alpine without the package, OpenSSL's own default
		},
		stores: []string{
			"/etc/ssl/certs/java/cacerts",                // Debian
			"/etc/pki/ca-trust/extracted/java/cacerts",   // Fedora, RHEL
			"/var/lib/ca-certificates/java-cacerts",      // SUSE
			"/opt/java/openjdk/lib/security/cacerts",     // the images of Eclipse Temurin
			"/opt/java/openjdk/jre/lib/security/cacerts", // with Java 8
		},
	}
}

// trust is what goes into the three files.
type trust struct {
	own, bundle, store pool
	made               link.Trusted
}

// gatherTrust reads everything that t names. What the image or the policy names and can't be read is reported, and not
// trusted; the run's own certificate must be there.
func gatherTrust(t *link.Trust, usual trustPlaces) (*trust, error) {
	g := &trust{}
	own, err := parseCertificates(t.CA)
	if err != nil {
		return nil, fmt.Errorf("the run's certificate: %w", err)
	}
	g.add(own, &g.own, &g.bundle, &g.store)
	for _, name := range t.Extra {
		g.take(name, &g.own, &g.bundle, &g.store)
	}
	if !slices.ContainsFunc(usual.bundles, g.takeOptional(&g.bundle, &g.store)) {
		g.made.Missing = append(g.made.Missing, "the image has no list of certificate authorities in any of the usual places")
	}
	for _, name := range t.Bundles {
		g.take(name, &g.bundle, &g.store)
	}
	for _, name := range t.Stores {
		g.take(name, &g.store)
	}
	for _, name := range usual.stores {
		g.takeOptional(&g.store)(name)
	}
	g.made.Certificates = len(g.bundle.certs)
	return g, nil
}

// take adds the certificates of a file that was named.
func (g *trust) take(name string, into ...*pool) {
	if err := g.read(name, into...); err != nil {
		g.made.Missing = append(g.made.Missing, err.Error())
	}
}

// takeOptional adds those of a file that need not be there, and tells whether it is.
func (g *trust) takeOptional(into ...*pool) func(name string) bool {
	return func(name string) bool { return g.read(name, into...) == nil }
}

func (g *trust) read(name string, into ...*pool) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("%s: not an absolute path", name)
	}
	if path.Dir(name) == link.FilesDir {
		return fmt.Errorf("%s: the sandbox's own file", name)
	}
	content, err := readInside(name, maxBundle)
	if err != nil {
		return err
	}
	certs, err := parseCertificates(content)
	if err == nil {
		err = g.fits(certs, into...)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	g.add(certs, into...)
	g.made.Sources = append(g.made.Sources, name)
	return nil
}

func (g *trust) fits(certs [][]byte, into ...*pool) error {
	size := 0
	for _, c := range certs {
		size += len(c)
	}
	for _, p := range into {
		if p.size+size > maxCertificates {
			return fmt.Errorf("with it there are more than %d bytes of certificates", maxCertificates)
		}
	}
	return nil
}

func (g *trust) add(certs [][]byte, into ...*pool) {
	for _, p := range into {
		for _, c := range certs {
			p.add(c)
		}
	}
}

// pool is a set of certificates, in the order in which they came. The zero pool is empty.
type pool struct {
	certs [][]byte // DER
	size  int
	seen  map[string]bool
}

func (p *pool) add(der []byte) {
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	if !p.seen[string(der)] {
		p.seen[string(der)] = true
		p.certs = append(p.certs, der)
		p.size += len(der)
	}
}

func (p *pool) pem() []byte {
	var out bytes.Buffer
	for _, der := range p.certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a buffer takes everything
	}
	return out.Bytes()
}

// parseCertificates finds the certificates in PEM or a Java key store. Nothing else of a file is ever passed on, be it a
// private key or a comment.
func parseCertificates(content []byte) ([][]byte, error) {
	if isKeyStore(content) {
		return readKeyStore(content)
	}
	var certs [][]byte
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE": // the last has OpenSSL's own notes behind it
			if der := firstElement(block.Bytes); der != nil {
				certs = append(certs, der)
			}
		}
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return certs, nil
}

// firstElement cuts b behind the SEQUENCE that it starts with, which is all that a certificate is from outside (X.690,
// 8.1); nil if there is none. One program that stumbles over a certificate may trust none at all.
func firstElement(b []byte) []byte {
	const sequence = 0x30
	if len(b) < 2 || b[0] != sequence {
		return nil
	}
	head, length := 2, int(b[1])
	if length >= 0x80 {
		bytes := length & 0x7f
		if bytes < 1 || bytes > 3 || len(b) < 2+bytes {
			return nil
		}
		head, length = 2+bytes, 0
		for _, c := range b[2:head] {
			length = length<<8 | int(c)
		}
	}
	if length == 0 || head+length > len(b) {
		return nil
	}
	return b[:head+length]
}
