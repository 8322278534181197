package manifest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
)

// authorities are a certificate authority that speaks Fulcio's protocol and a timestamp authority of RFC 3161, on loopback. They know
// the time that they are told.
type authorities struct {
	t       testing.TB
	now     time.Time
	id      identity
	ca, tsa issuing
	leaf    issuing // of the timestamp authority
	server  *httptest.Server
}

// issuing is a certificate with its key.
type issuing struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// identity is what a certificate says of a job.
type identity struct{ subject, issuer, repository, owner, run string }

func testIdentity() identity {
	return identity{"https://github.com/acme/shop/.github/workflows/agent.yml@refs/heads/main", GitHubIssuer, "7", "8", "https://github.com/acme/shop/actions/runs/1/attempts/2"}
}

func newAuthorities(t testing.TB) *authorities {
	t.Helper()
	a := &authorities{t: t, now: testTime().Add(time.Minute), id: testIdentity()}
	a.ca = a.issue(issuing{}, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	a.tsa = a.issue(issuing{}, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}}) // id-kp-timeStamping, critical (RFC 3161, 2.3)
	if err != nil {
		t.Fatal(err)
	}
	a.leaf = a.issue(a.tsa, func(c *x509.Certificate) {
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}}
	})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/signingCert", a.serveCertificate)
	mux.HandleFunc("POST /timestamp", a.serveTimestamp)
	a.server = httptest.NewServer(mux)
	t.Cleanup(a.server.Close)
	return a
}

// issue makes a certificate that is valid for years; by itself if there is no issuer.
func (a *authorities) issue(by issuing, edit func(*x509.Certificate)) issuing {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return issuing{a.certify(key.Public(), by, key, edit), key}
}

func (a *authorities) certify(public crypto.PublicKey, by issuing, self *ecdsa.PrivateKey, edit func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test " + serial.String()}, BasicConstraintsValid: true,
		NotBefore: testTime().AddDate(-1, 0, 0), NotAfter: testTime().AddDate(9, 0, 0),
	}
	edit(c)
	parent, key := by.cert, by.key
	if parent == nil {
		parent, key = c, self
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// serveCertificate checks what Fulcio checks: a token, and that its subject was signed with the key.
func (a *authorities) serveCertificate(w http.ResponseWriter, r *http.Request) {
	var req certificateRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	token, err := claimsOf(req.Credentials.OIDCIdentityToken)
	block, _ := pem.Decode([]byte(req.PublicKeyRequest.PublicKey.Content))
	if err != nil || block == nil {
		http.Error(w, "no token or no key", http.StatusBadRequest)
		return
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PublicKey)
	sum := sha256.Sum256([]byte(token.Subject))
	if err != nil || !ok || !ecdsa.VerifyASN1(key, sum[:], req.PublicKeyRequest.ProofOfPossession) {
		http.Error(w, "the key did not sign the subject", http.StatusBadRequest)
		return
	}
	leaf := a.certify(key, a.ca, nil, func(c *x509.Certificate) { a.name(c) })
	var answer certificateAnswer
	answer.Embedded = &certificateChain{}
	for _, c := range []*x509.Certificate{leaf, a.ca.cert} {
		answer.Embedded.Chain.Certificates = append(answer.Embedded.Chain.Certificates, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
	}
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(answer)
}

// name makes a certificate one of a job, for ten minutes.
func (a *authorities) name(c *x509.Certificate) {
	c.Subject = pkix.Name{}
	c.NotBefore, c.NotAfter = a.now.Add(-time.Minute), a.now.Add(9*time.Minute)
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	u, err := url.Parse(a.id.subject)
	if err != nil {
		a.t.Fatal(err)
	}
	c.URIs = []*url.URL{u}
	for number, value := range map[int]string{8: a.id.issuer, 15: a.id.repository, 17: a.id.owner, 21: a.id.run} {
		der, err := asn1.MarshalWithParams(value, "utf8")
		if err != nil {
			a.t.Fatal(err)
		}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, number}, Value: der})
	}
}

func (a *authorities) serveTimestamp(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	req, err := timestamp.ParseRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t := timestamp.Timestamp{
		HashAlgorithm: req.HashAlgorithm, HashedMessage: req.HashedMessage, Time: a.now, Nonce: req.Nonce,
		Policy: asn1.ObjectIdentifier{1, 2, 3, 4, 1}, AddTSACertificate: req.Certificates, Accuracy: time.Second,
	}
	answer, err := t.CreateResponseWithOpts(a.leaf.cert, a.leaf.key, crypto.SHA256)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(answer)
}

// authority is where timestamps are asked for.
func (a *authorities) authority() *TimestampAuthority {
	return &TimestampAuthority{URL: a.server.URL + "/timestamp"}
}

// trustedRoot is the file that a verifier has.
func (a *authorities) trustedRoot() []byte {
	a.t.Helper()
	entry := func(chain ...*x509.Certificate) (out trustedAuthority) {
		out.ValidFor.Start, out.ValidFor.End = testTime().AddDate(-1, 0, 0), testTime().AddDate(9, 0, 0)
		for _, c := range chain {
			out.CertChain.Certificates = append(out.CertChain.Certificates, RawCertificate{c.Raw})
		}
		return out
	}
	ca, tsa := entry(a.ca.cert), entry(a.leaf.cert, a.tsa.cert)
	file, err := json.Marshal(map[string]any{
		"mediaType":              "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"certificateAuthorities": []trustedAuthority{ca}, "timestampAuthorities": []trustedAuthority{tsa},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return file
}

func (a *authorities) trusted() *TrustedRoot {
	a.t.Helper()
	t, err := ParseTrustedRoot(a.trustedRoot())
	if err != nil {
		a.t.Fatal(err)
	}
	return t
}

// testToken is a JWT as far as the client reads it.
func testToken(subject string) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return part(`{"alg":"RS256"}`) + "." + part(`{"sub":"`+subject+`"}`) + "." + part("signature")
}
