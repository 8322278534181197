package egress

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/org/agent-sandbox/policy"
)

const (
	// backdate is for clocks inside that are late.
	backdate = time.Hour
	// minLife is how long the certificates hold at least, and how much longer than the task may take.
	minLife = 24 * time.Hour
	// maxLeaves bounds the certificates that are kept: below a wildcard there are names without end.
	maxLeaves = 1024
)

// authority is the run's own certificate authority. Its key is in memory alone, and whoever trusts it trusts it for the hosts
// that are intercepted and for no other: that is a critical constraint in its certificate (RFC 5280, section 4.2.1.10).
type authority struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	leafKey *ecdsa.PrivateKey // of every certificate that it issues: making one takes no key then
	encoded []byte

	mu     sync.Mutex // guards leaves; not held while a certificate is made
	leaves map[policy.Host]*leaf
}

type leaf struct {
	once sync.Once
	cert *tls.Certificate
	err  error
}

// newAuthority is for these hosts; it is nil when there are none.
func newAuthority(hosts []policy.Host, task time.Duration) (*authority, error) {
	if len(hosts) == 0 {
		return nil, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("egress: make the key of the run's authority: %w", err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("egress: make the key of the run's certificates: %w", err)
	}
	template, err := template(minLife + task)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: fmt.Sprintf("agent-sandbox, this run alone (%x)", template.SerialNumber.Bytes()[:4])}
	template.KeyUsage = x509.KeyUsageCertSign
	template.IsCA, template.MaxPathLenZero = true, true
	constrain(template, hosts)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("egress: make the run's authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("egress: read the run's authority: %w", err)
	}
	return &authority{
		cert: cert, key: key, leafKey: leafKey, leaves: map[policy.Host]*leaf{},
		encoded: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}, nil
}

func template(life time.Duration) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, fmt.Errorf("egress: make a serial number: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always as long
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}, nil
}

// constrain names the only hosts that the authority can vouch for. A kind of name that is not mentioned is not
// constrained at all, so both kinds always are.
func constrain(template *x509.Certificate, hosts []policy.Host) {
	template.PermittedDNSDomainsCritical = true
	for _, h := range hosts {
		switch addr := h.Addr(); {
		case addr.IsValid():
			bits := addr.BitLen()
			template.PermittedIPRanges = append(template.PermittedIPRanges, &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, bits)})
		case h.IsWildcard():
			template.PermittedDNSDomains = append(template.PermittedDNSDomains, strings.TrimPrefix(h.String(), "*")) // ".example.com": below it alone
		default:
			template.PermittedDNSDomains = append(template.PermittedDNSDomains, h.String())
		}
	}
	if len(template.PermittedDNSDomains) == 0 {
		template.PermittedDNSDomains = []string{"invalid"} // no host has a name there (RFC 6761, section 6.4)
	}
	if len(template.PermittedIPRanges) == 0 {
		template.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
}

// certificate is that for a host.
func (a *authority) certificate(host policy.Host) (*tls.Certificate, error) {
	l := a.leaf(host)
	l.once.Do(func() { l.cert, l.err = a.issue(host) })
	return l.cert, l.err
}

func (a *authority) leaf(host policy.Host) *leaf {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.leaves[host]
	if l == nil {
		if len(a.leaves) >= maxLeaves {
			clear(a.leaves)
		}
		l = &leaf{}
		a.leaves[host] = l
	}
	return l
}

func (a *authority) issue(host policy.Host) (*tls.Certificate, error) {
	template, err := template(0)
	if err != nil {
		return nil, err
	}
	template.NotAfter = a.cert.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if addr := host.Addr(); addr.IsValid() {
		template.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		template.DNSNames = []string{host.String()}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.leafKey.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("egress: make a certificate for %s: %w", host, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: a.leafKey}, nil
}

// intercepted are the hosts whose TLS has to be ended: those with rules on requests, and those that credentials are for.
func intercepted(p *policy.Policy, credentials []Credential) []policy.Host {
	var hosts []policy.Host
	for _, rule := range slices.Concat(p.Network.Allow, p.Network.Deny) {
		if len(rule.HTTP) > 0 {
			hosts = append(hosts, rule.Host)
		}
	}
	for _, c := range credentials {
		hosts = append(hosts, c.Hosts...)
	}
	hosts = slices.DeleteFunc(hosts, func(h policy.Host) bool {
		return h.IsZero() || !h.IsWildcard() && h.Addr() == netip.Addr{} && !p.Reachable(h.String()).Allowed()
	})
	slices.SortFunc(hosts, func(a, b policy.Host) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(hosts)
}

// Authority is the run's CA certificate in PEM; nil when nothing of the policy needs interception. Programs inside have to trust
// it beside what they trust anyway. It can vouch for the intercepted hosts alone.
func (g *Gateway) Authority() []byte {
	if g.authority == nil {
		return nil
	}
	return slices.Clone(g.authority.encoded)
}
