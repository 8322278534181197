//go:build peers

package manifest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificateLog is a log of certificates as far as Fulcio needs one (RFC 6962, section 4.2): it signs, and keeps nothing. The programs
// that verify check its word as they do a real log's.
type certificateLog struct {
	URL string
	key *ecdsa.PrivateKey
	der []byte
}

func startCertificateLog(t *testing.T) *certificateLog {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l := &certificateLog{key: key}
	if l.der, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(l.add))
	t.Cleanup(server.Close)
	l.URL = server.URL
	return l
}

func (l *certificateLog) add(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Chain [][]byte `json:"chain"`
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || len(ask.Chain) < 2 || !strings.HasSuffix(r.URL.Path, "/add-pre-chain") {
		http.Error(w, "no chain", http.StatusBadRequest)
		return
	}
	pre, err := x509.ParseCertificate(ask.Chain[0])
	issuer, issuerErr := x509.ParseCertificate(ask.Chain[1])
	if err != nil || issuerErr != nil {
		http.Error(w, "no certificate", http.StatusBadRequest)
		return
	}
	// What marks it as not yet a certificate (section 3.1) is taken out as a list of SCTs is, by another number and an empty list.
	tbs := bytes.Replace(pre.RawTBSCertificate, []byte{0xd6, 0x79, 2, 4, 3, 1, 1, 0xff, 4, 2, 5, 0}, []byte{0xd6, 0x79, 2, 4, 2, 1, 1, 0xff, 4, 2, 4, 0}, 1)
	if tbs, _, err = withoutSCTs(tbs); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	at := time.Now().UnixMilli()
	signed := binary.BigEndian.AppendUint64([]byte{0, 0}, uint64(at))
	signed = append(signed, 0, 1)
	key := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	signed = append(signed, key[:]...)
	signed = append(signed, byte(len(tbs)>>16), byte(len(tbs)>>8), byte(len(tbs)))
	signed = append(append(signed, tbs...), 0, 0)
	sum := sha256.Sum256(signed)
	sig, err := l.key.Sign(rand.Reader, sum[:], nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	id := sha256.Sum256(l.der)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"sct_version": 0, "id": id[:], "timestamp": at, "extensions": "",
		"signature": append([]byte{4, 3, byte(len(sig) >> 8), byte(len(sig))}, sig...),
	})
}

// signatureLogPeer is a real Rekor of the second version.
type signatureLogPeer struct {
	name, address string
	public        ed25519.PublicKey
}

func startRekor(t *testing.T) *signatureLogPeer {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	l := &signatureLogPeer{"rekor.test", "http://127.0.0.1:" + port + rekorPath2, public}
	start(t, "rekor-server", "serve", "--hostname", l.name, "--storage-dir", filepath.Join(dir, "log"), "--signer-filepath", filepath.Join(dir, "key.pem"),
		"--http-port", port, "--grpc-port", freePort(t), "--http-metrics-port", freePort(t), "--checkpoint-interval", "200ms", "--batch-max-age", "50ms")
	await(t, "http://127.0.0.1:"+port+"/healthz")
	return l
}

func startFulcio(t *testing.T, issuer, certificateLog string) string {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	config, err := json.Marshal(map[string]any{"OIDCIssuers": map[string]any{
		issuer: map[string]string{"IssuerURL": issuer, "ClientID": Audience, "Type": "github-workflow"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "config.json", config)
	start(t, "fulcio", "serve", "--host", "127.0.0.1", "--port", port, "--grpc-host", "127.0.0.1", "--grpc-port", freePort(t),
		"--metrics-port", freePort(t), "--ca", "ephemeralca", "--ct-log-url", certificateLog, "--config-path", filepath.Join(dir, "config.json"),
		"--legacy-unix-domain-socket", filepath.Join(dir, "grpc.sock"))
	base := "http://127.0.0.1:" + port
	await(t, base+"/api/v2/trustBundle")
	return base
}

func startAuthority(t *testing.T) string {
	t.Helper()
	port := freePort(t)
	start(t, "timestamp-server", "serve", "--host", "127.0.0.1", "--port", port, "--timestamp-signer", "memory", "--disable-ntp-monitoring")
	base := "http://127.0.0.1:" + port
	await(t, base+"/api/v1/timestamp/certchain")
	return base
}

func start(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, peer(t, name), args...)
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, out.String())
		}
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// await gives the first good answer of a server that is starting.
func await(t *testing.T, url string) []byte {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 600 {
		if resp, err := http.Get(url); err == nil { //nolint:noctx // a server on loopback
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil && resp.StatusCode == http.StatusOK {
				return body
			}
		}
		<-tick.C
	}
	t.Fatalf("nobody answers at %s", url)
	return nil
}

// trustOf asks the servers for the certificates that a verifier has to trust. A log of certificates, and one of signatures, are named if
// they are given.
func trustOf(t *testing.T, fulcio, authority string, certificates *certificateLog, signatures *signatureLogPeer) []byte {
	t.Helper()
	var bundle struct {
		Chains []struct {
			Certificates []string `json:"certificates"`
		} `json:"chains"`
	}
	if err := json.Unmarshal(await(t, fulcio+"/api/v2/trustBundle"), &bundle); err != nil {
		t.Fatal(err)
	}
	valid := validity{Start: time.Now().AddDate(-1, 0, 0), End: time.Now().AddDate(9, 0, 0)}
	entry := func(pems string) (out trustedAuthority) {
		out.ValidFor = valid
		for block, rest := pem.Decode([]byte(pems)); block != nil; block, rest = pem.Decode(rest) {
			out.CertChain.Certificates = append(out.CertChain.Certificates, RawCertificate{block.Bytes})
		}
		return out
	}
	log := func(url, details string, id, key []byte) map[string]any {
		return map[string]any{
			"baseUrl": url, "hashAlgorithm": "SHA2_256", "logId": map[string][]byte{"keyId": id},
			"publicKey": map[string]any{"rawBytes": key, "keyDetails": details, "validFor": map[string]time.Time{"start": valid.Start}},
		}
	}
	root := map[string]any{
		"mediaType":              "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"certificateAuthorities": []trustedAuthority{entry(strings.Join(bundle.Chains[0].Certificates, "\n"))},
		"timestampAuthorities":   []trustedAuthority{entry(string(await(t, authority+"/api/v1/timestamp/certchain")))},
	}
	if certificates != nil {
		id := sha256.Sum256(certificates.der)
		root["ctlogs"] = []any{log(certificates.URL, "PKIX_ECDSA_P256_SHA_256", id[:], certificates.der)}
	}
	if signatures != nil {
		der, err := x509.MarshalPKIXPublicKey(signatures.public)
		if err != nil {
			t.Fatal(err)
		}
		id := sha256.Sum256(append([]byte(signatures.name+"\n\x01"), signatures.public...))
		root["tlogs"] = []any{log("https://"+signatures.name, "PKIX_ED25519", id[:], der)}
	}
	file, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return file
}
