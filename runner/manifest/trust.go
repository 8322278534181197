package manifest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/digitorus/timestamp"
	tsa "github.com/sigstore/timestamp-authority/v2/pkg/verification"
)

// TrustedRoot has the authorities that a verifier trusts: sigstore trusted roots, such as `gh attestation trusted-root` and
// `cosign trusted-root create` write them. Where one names logs of certificates, a certificate of its authorities has to be in one of
// them, by the log's word. Where one names logs of signatures (Rekor), a manifest that says it is in one has to be.
type TrustedRoot struct {
	certificates []trusted
	timestamps   []trusted
	logs         []signatureLog
}

// trusted is one authority: its chain, from the certificate that issues to the root.
type trusted struct {
	chain []*x509.Certificate
	from  time.Time
	until time.Time // zero: until now
	logs  []ctLog   // empty: its certificates need not be in one
}

// maxTrusted bounds a trusted root's file in bytes.
const maxTrusted = 4 << 20

type trustedFile struct {
	CertificateAuthorities []trustedAuthority `json:"certificateAuthorities"`
	TimestampAuthorities   []trustedAuthority `json:"timestampAuthorities"`
	CTLogs                 []trustedLog       `json:"ctlogs"`
	TLogs                  []trustedLog       `json:"tlogs"`
}

type trustedLog struct {
	BaseURL   string `json:"baseUrl"`
	PublicKey struct {
		RawBytes []byte   `json:"rawBytes"`
		ValidFor validity `json:"validFor"`
	} `json:"publicKey"`
	LogID struct {
		KeyID []byte `json:"keyId"`
	} `json:"logId"`
}

type validity struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

type trustedAuthority struct {
	CertChain struct {
		Certificates []RawCertificate `json:"certificates"`
	} `json:"certChain"`
	ValidFor validity `json:"validFor"`
}

// ParseTrustedRoot reads sigstore trusted roots in JSON, one after the other: gh writes that of sigstore and that of GitHub into one file
// (https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_trustroot.proto).
func ParseTrustedRoot(file []byte) (*TrustedRoot, error) {
	if len(file) > maxTrusted {
		return nil, fmt.Errorf("trusted root: it has more than %d bytes", maxTrusted)
	}
	var t TrustedRoot
	d := json.NewDecoder(bytes.NewReader(file))
	for {
		var f trustedFile
		err := d.Decode(&f)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("trusted root: %w", err)
		}
		if err := t.add(f); err != nil {
			return nil, fmt.Errorf("trusted root: %w", err)
		}
	}
	if len(t.certificates)+len(t.timestamps) == 0 {
		return nil, errors.New("trusted root: it names no authority")
	}
	return &t, nil
}

func (t *TrustedRoot) add(f trustedFile) error {
	certificates, err := parseAuthorities(f.CertificateAuthorities)
	if err != nil {
		return err
	}
	timestamps, err := parseAuthorities(f.TimestampAuthorities)
	if err != nil {
		return err
	}
	var logs []ctLog
	for _, l := range f.CTLogs {
		key, err := x509.ParsePKIXPublicKey(l.PublicKey.RawBytes)
		if err != nil {
			return fmt.Errorf("a log: %w", err)
		}
		ec, ok := key.(*ecdsa.PublicKey)
		if !ok {
			return errors.New("a log's key is not ECDSA")
		}
		logs = append(logs, ctLog{sha256.Sum256(l.PublicKey.RawBytes), ec, l.PublicKey.ValidFor.Start, l.PublicKey.ValidFor.End})
	}
	for i := range certificates {
		certificates[i].logs = logs
	}
	t.certificates, t.timestamps = append(t.certificates, certificates...), append(t.timestamps, timestamps...)
	for _, l := range f.TLogs {
		if len(l.LogID.KeyID) == 0 {
			return errors.New("a log of signatures has no id")
		}
		// New kinds of keys come up: what is in such a log fails, and nothing else does.
		key, _ := x509.ParsePKIXPublicKey(l.PublicKey.RawBytes)
		t.logs = append(t.logs, signatureLog{l.BaseURL, l.LogID.KeyID, key, l.PublicKey.ValidFor.Start, l.PublicKey.ValidFor.End})
	}
	return nil
}

func parseAuthorities(list []trustedAuthority) ([]trusted, error) {
	var out []trusted
	for _, a := range list {
		t := trusted{from: a.ValidFor.Start, until: a.ValidFor.End}
		for _, raw := range a.CertChain.Certificates {
			c, err := x509.ParseCertificate(raw.RawBytes)
			if err != nil {
				return nil, err
			}
			t.chain = append(t.chain, c)
		}
		if len(t.chain) == 0 {
			return nil, errors.New("an authority has no certificate")
		}
		out = append(out, t)
	}
	return out, nil
}

func (t trusted) validAt(at time.Time) bool {
	return !at.Before(t.from) && (t.until.IsZero() || !at.After(t.until))
}

func (t trusted) root() *x509.Certificate { return t.chain[len(t.chain)-1] }

// issued says whether an authority that is trusted issued the certificate, as one to sign with.
func (t *TrustedRoot) issued(leaf *x509.Certificate, at time.Time) bool {
	for _, a := range t.certificates {
		opts := x509.VerifyOptions{
			Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		}
		opts.Roots.AddCert(a.root())
		for _, c := range a.chain[:len(a.chain)-1] {
			opts.Intermediates.AddCert(c)
		}
		if !a.validAt(at) {
			continue
		}
		chains, err := leaf.Verify(opts)
		if err == nil && (len(a.logs) == 0 || logged(leaf, chains[0][1], a.logs)) {
			return true
		}
	}
	return false
}

// stampedAt is the time in an answer of a timestamp authority about a signature, if the authority is trusted.
func (t *TrustedRoot) stampedAt(stamp, sig []byte) (time.Time, bool) {
	for _, a := range t.timestamps {
		opts := tsa.VerifyOpts{Roots: []*x509.Certificate{a.root()}}
		switch chain := a.chain[:len(a.chain)-1]; {
		case len(chain) > 0 && !chain[0].IsCA: // the one that signs the answers
			opts.TSACertificate, opts.Intermediates = chain[0], chain[1:]
		default:
			opts.Intermediates = chain
		}
		if at, ok := stampTime(stamp, sig, opts); ok && a.validAt(at) {
			return at, true
		}
	}
	return time.Time{}, false
}

// stampTime takes a time from an answer that verifies as of that time: certificates of authorities run out, and what they said stays said.
func stampTime(stamp, sig []byte, opts tsa.VerifyOpts) (time.Time, bool) {
	claimed, err := parseStamp(stamp)
	if err != nil {
		return time.Time{}, false
	}
	opts.CurrentTime = claimed
	got, err := tsa.VerifyTimestampResponse(stamp, bytes.NewReader(sig), opts)
	if err != nil {
		return time.Time{}, false
	}
	return got.Time.UTC(), true
}

// parseStamp is the time that an answer claims.
func parseStamp(stamp []byte) (time.Time, error) {
	parsed, err := timestamp.ParseResponse(stamp)
	if err != nil {
		return time.Time{}, err
	}
	return parsed.Time, nil
}
