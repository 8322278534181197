package runnertest

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
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
)

// Sigstore is a certificate authority that speaks Fulcio's protocol and a timestamp authority of RFC 3161, on loopback. It logs nothing:
// [Rekor] does. It knows the time that it is told.
type Sigstore struct {
	URL string // of Fulcio, without a slash at the end
	ID  JobIdentity

	t       testing.TB
	now     func() time.Time
	ca, tsa issuing
	leaf    issuing // of the timestamp authority
	server  *httptest.Server
}

// issuing is a certificate with its key.
type issuing struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// JobIdentity is what a certificate says of a job, whatever its token says.
type JobIdentity struct{ Subject, Issuer, RepositoryID, OwnerID, RunURL string }

// NewSigstore starts one for as long as the test lives.
func NewSigstore(t testing.TB, now func() time.Time) *Sigstore {
	t.Helper()
	a := &Sigstore{t: t, now: now, ID: JobIdentity{
		"https://github.com/acme/shop/.github/workflows/agent.yml@refs/heads/main", "https://token.actions.githubusercontent.com", "7", "8",
		"https://github.com/acme/shop/actions/runs/1/attempts/2",
	}}
	a.ca = a.issue(issuing{}, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		c.Subject.Organization = []string{"GitHub, Inc."} // by which gh knows what to ask of a bundle
	})
	a.tsa = a.issue(issuing{}, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}}) // id-kp-timeStamping, critical (RFC 3161, 2.3)
	if err != nil {
		t.Fatal(err)
	}
	a.leaf = a.issue(a.tsa, func(c *x509.Certificate) {
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}}
	})
	a.start()
	return a
}

func (a *Sigstore) start() {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/signingCert", a.serveCertificate)
	mux.HandleFunc("POST /timestamp", a.serveTimestamp)
	a.server = httptest.NewServer(mux)
	a.URL = a.server.URL
	a.t.Cleanup(a.server.Close)
}

// At has the same authorities at another time.
func (a *Sigstore) At(now func() time.Time) *Sigstore {
	b := *a
	b.now = now
	b.start()
	return &b
}

// TimestampURL is where timestamps are asked for.
func (a *Sigstore) TimestampURL() string { return a.URL + "/timestamp" }

// Close ends it before the test does: nobody answers any more.
func (a *Sigstore) Close() { a.server.Close() }

// issue makes a certificate that is valid for years; by itself if there is no issuer.
func (a *Sigstore) issue(by issuing, edit func(*x509.Certificate)) issuing {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return issuing{a.certify(key.Public(), by, key, edit), key}
}

func (a *Sigstore) certify(public crypto.PublicKey, by issuing, self *ecdsa.PrivateKey, edit func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test " + serial.String()}, BasicConstraintsValid: true,
		NotBefore: a.now().AddDate(-1, 0, 0), NotAfter: a.now().AddDate(9, 0, 0),
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
func (a *Sigstore) serveCertificate(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Credentials struct {
			OIDCIdentityToken string `json:"oidcIdentityToken"`
		} `json:"credentials"`
		PublicKeyRequest struct {
			PublicKey struct {
				Content string `json:"content"`
			} `json:"publicKey"`
			ProofOfPossession []byte `json:"proofOfPossession"`
		} `json:"publicKeyRequest"`
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	subject, err := subjectOf(req.Credentials.OIDCIdentityToken)
	block, _ := pem.Decode([]byte(req.PublicKeyRequest.PublicKey.Content))
	if err != nil || block == nil {
		http.Error(w, "no token or no key", http.StatusBadRequest)
		return
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PublicKey)
	sum := sha256.Sum256([]byte(subject))
	if err != nil || !ok || !ecdsa.VerifyASN1(key, sum[:], req.PublicKeyRequest.ProofOfPossession) {
		http.Error(w, "the key did not sign the subject", http.StatusBadRequest)
		return
	}
	leaf := a.certify(key, a.ca, nil, func(c *x509.Certificate) { a.name(c) })
	var chain []string
	for _, c := range []*x509.Certificate{leaf, a.ca.cert} {
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
	}
	writeJSON(w, http.StatusCreated, map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{"certificates": chain}}})
}

// subjectOf reads a token as far as the proof of possession needs it. Nothing of it is verified.
func subjectOf(token string) (string, error) {
	var claims struct {
		Subject string `json:"sub"`
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	return claims.Subject, err
}

// name makes a certificate one of a job, for ten minutes.
func (a *Sigstore) name(c *x509.Certificate) {
	c.Subject = pkix.Name{}
	c.NotBefore, c.NotAfter = a.now().Add(-time.Minute), a.now().Add(9*time.Minute)
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	u, err := url.Parse(a.ID.Subject)
	if err != nil {
		a.t.Fatal(err)
	}
	c.URIs = []*url.URL{u}
	repository, _, _ := strings.Cut(a.ID.Subject, "/.github/")
	owner := repository[:strings.LastIndex(repository, "/")+1]
	for number, value := range map[int]string{
		8: a.ID.Issuer, 9: a.ID.Subject, 12: repository, 15: a.ID.RepositoryID, 16: strings.TrimSuffix(owner, "/"), 17: a.ID.OwnerID,
		18: a.ID.Subject, 21: a.ID.RunURL,
	} {
		der, err := asn1.MarshalWithParams(value, "utf8")
		if err != nil {
			a.t.Fatal(err)
		}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, number}, Value: der})
	}
}

func (a *Sigstore) serveTimestamp(w http.ResponseWriter, r *http.Request) {
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
		HashAlgorithm: req.HashAlgorithm, HashedMessage: req.HashedMessage, Time: a.now(), Nonce: req.Nonce,
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

// TrustedRoot is the file that a verifier has: a sigstore trusted root, which names these logs of signatures too.
func (a *Sigstore) TrustedRoot(logs ...*Rekor) []byte {
	a.t.Helper()
	entry := func(chain ...*x509.Certificate) map[string]any {
		var raw []map[string][]byte
		for _, c := range chain {
			raw = append(raw, map[string][]byte{"rawBytes": c.Raw})
		}
		return map[string]any{
			"certChain": map[string]any{"certificates": raw},
			"validFor":  map[string]time.Time{"start": a.now().AddDate(-1, 0, 0), "end": a.now().AddDate(9, 0, 0)},
		}
	}
	tlogs := []any{}
	for _, l := range logs {
		tlogs = append(tlogs, l.trusted())
	}
	file, err := json.Marshal(map[string]any{
		"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "tlogs": tlogs,
		"certificateAuthorities": []any{entry(a.ca.cert)}, "timestampAuthorities": []any{entry(a.leaf.cert, a.tsa.cert)},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return file
}
