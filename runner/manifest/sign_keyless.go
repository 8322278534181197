package manifest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/org/agent-sandbox/runner/secret"
)

// Audience is that of the identity token which Fulcio takes (https://github.com/sigstore/fulcio/blob/main/docs/oidc.md).
const Audience = "sigstore"

// Instance is the services that sign together: a Fulcio, and what says when it was signed. Without that a certificate of ten minutes would
// prove nothing later.
type Instance struct {
	Fulcio string // base URL
	Time   *TimestampAuthority
	Log    *Rekor // nil: the signature is in no log
}

// publicLog is sigstore's of the first version, which stays the default there (https://blog.sigstore.dev/rekor-evolution/). The address of
// the second changes with the years.
const publicLog = "https://rekor.sigstore.dev" + rekorPath1

// instanceFor is the instance for the repositories of this visibility: what the public one certifies is in public logs, so that the
// names of private repositories and their workflows would be too. GitHub has another for those, with no log
// (https://docs.github.com/en/actions/concepts/security/artifact-attestations). Verifiers ask for the log's word with the public one:
// `gh attestation verify` takes no certificate of it without.
func instanceFor(visibility string) Instance {
	if visibility == "public" {
		return Instance{"https://fulcio.sigstore.dev", &TimestampAuthority{URL: "https://timestamp.sigstore.dev/api/v1/timestamp"}, &Rekor{address: publicLog, version: 1}}
	}
	return Instance{"https://fulcio.githubapp.com", &TimestampAuthority{URL: "https://timestamp.githubapp.com/api/v1/timestamp"}, nil}
}

// KeylessSigner signs with a key that lives for one signature. Fulcio certifies it for the identity of the CI job, and a timestamp authority
// or a log says that the signature was made while the certificate was valid.
type KeylessSigner struct {
	Instance Instance // without a Fulcio: the public one for public repositories, GitHub's own for others; a log is that of either
	// Token gets the job's identity, for [Audience].
	Token func(ctx context.Context, audience string) (secret.Value, error)
	HTTP  *http.Client // nil: one of ours
}

// Sign implements [Signer].
func (s *KeylessSigner) Sign(ctx context.Context, statement []byte) (Signed, error) {
	token, err := s.Token(ctx, Audience)
	if err != nil {
		return Signed{}, err
	}
	claims, err := claimsOf(token.Reveal())
	if err != nil {
		return Signed{}, err
	}
	at := s.Instance
	if at.Fulcio == "" {
		at = instanceFor(claims.Visibility)
	}
	if s.Instance.Log != nil {
		at.Log = s.Instance.Log
	}
	if err := at.Check(); err != nil {
		return Signed{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Signed{}, err
	}
	certificate, err := s.certify(ctx, at.Fulcio, key, token, claims.Subject)
	if err != nil {
		return Signed{}, fmt.Errorf("certificate: %w", err)
	}
	signed, err := at.sign(ctx, key, certificate, statement)
	if status, ok := errors.AsType[*statusError](errors.Join(err, signed.Lacks)); ok && status.code == http.StatusConflict {
		// The log has it already: its answer to the first try got lost. Another signature is another entry.
		return at.sign(ctx, key, certificate, statement)
	}
	return signed, err
}

// Check refuses services that make signatures which nobody could verify later.
func (at Instance) Check() error {
	if at.Time == nil && !at.Log.dates() {
		return errors.New("neither a timestamp authority nor a log would say when the signature was made, without which it could not be verified later")
	}
	return nil
}

// sign signs once the certificate is there. A log that fails leaves a signature whose time is known.
func (at Instance) sign(ctx context.Context, key *ecdsa.PrivateKey, certificate *x509.Certificate, statement []byte) (Signed, error) {
	envelope, sig, err := signEnvelope(key, statement)
	if err != nil {
		return Signed{}, err
	}
	material := VerificationMaterial{Certificate: &RawCertificate{certificate.Raw}}
	if at.Time != nil {
		if material.TimestampVerificationData, err = at.Time.stamp(ctx, sig); err != nil {
			return Signed{}, err
		}
	}
	var lacks error
	if at.Log != nil {
		entry, err := at.Log.enter(ctx, envelope, statement, sig, certificate)
		switch {
		case err == nil:
			material.TlogEntries = []json.RawMessage{entry}
		case at.Time == nil:
			return Signed{}, err
		default:
			lacks = err
		}
	}
	signed, err := bundled(Keyless, material, envelope)
	signed.Lacks = lacks
	return signed, err
}

// certificateRequest is Fulcio's CreateSigningCertificateRequest
// (https://github.com/sigstore/fulcio/blob/main/fulcio.proto).
type certificateRequest struct {
	Credentials struct {
		OIDCIdentityToken string `json:"oidcIdentityToken"`
	} `json:"credentials"`
	PublicKeyRequest struct {
		PublicKey struct {
			Algorithm string `json:"algorithm"`
			Content   string `json:"content"`
		} `json:"publicKey"`
		ProofOfPossession []byte `json:"proofOfPossession"`
	} `json:"publicKeyRequest"`
}

type certificateAnswer struct {
	Embedded *certificateChain `json:"signedCertificateEmbeddedSct"`
	Detached *certificateChain `json:"signedCertificateDetachedSct"`
}

type certificateChain struct {
	Chain struct {
		Certificates []string `json:"certificates"`
	} `json:"chain"`
}

func (s *KeylessSigner) certify(ctx context.Context, fulcio string, key *ecdsa.PrivateKey, token secret.Value, subject string) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(subject))
	proof, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var req certificateRequest
	req.Credentials.OIDCIdentityToken = token.Reveal()
	req.PublicKeyRequest.PublicKey.Algorithm = "ECDSA"
	req.PublicKeyRequest.PublicKey.Content = string(pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: spki}))
	req.PublicKeyRequest.ProofOfPossession = proof
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	answer, err := post(ctx, s.HTTP, strings.TrimSuffix(fulcio, "/")+"/api/v2/signingCert", http.Header{"Content-Type": {"application/json"}}, body)
	if err != nil {
		return nil, err
	}
	return leafOf(answer, key.Public())
}

// leafOf is the certificate in Fulcio's answer, which has to be for this key.
func leafOf(answer []byte, key crypto.PublicKey) (*x509.Certificate, error) {
	var a certificateAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, errors.New("the answer is not the JSON that was expected")
	}
	chain := a.Embedded
	if chain == nil {
		chain = a.Detached
	}
	if chain == nil || len(chain.Chain.Certificates) == 0 {
		return nil, errors.New("the answer has none")
	}
	block, _ := pem.Decode([]byte(chain.Chain.Certificates[0]))
	if block == nil {
		return nil, errors.New("the answer has one that is no PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if k, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !k.Equal(key) {
		return nil, errors.New("the answer has one for another key")
	}
	return leaf, nil
}

// claims are those of a job's identity that the client needs: the subject, whose possession the key proves, and who may see the repository.
type claims struct {
	Subject    string `json:"sub"`
	Visibility string `json:"repository_visibility"`
}

// claimsOf reads a token. Fulcio verifies it; nobody here does.
func claimsOf(token string) (claims, error) {
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, errors.New("the job's identity is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return c, errors.New("the job's identity is no JWT")
	}
	if c.Subject == "" {
		return c, errors.New("the job's identity has no subject")
	}
	return c, nil
}
