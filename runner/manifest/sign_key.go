package manifest

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
)

// KeySigner signs with a private key. Its manifests are sigstore bundles without a certificate; who verifies has to
// have the public key from elsewhere.
type KeySigner struct {
	key  crypto.Signer
	id   string
	time *TimestampAuthority
}

// NewKeySigner takes a key from [ParsePrivateKey]. With a timestamp authority the manifests say, by its word, when they were signed.
func NewKeySigner(key crypto.Signer, authority *TimestampAuthority) (*KeySigner, error) {
	id, err := KeyID(key.Public())
	if err != nil {
		return nil, err
	}
	return &KeySigner{key, id, authority}, nil
}

// Untimed signs without asking for a timestamp.
func (s *KeySigner) Untimed() *KeySigner { return &KeySigner{key: s.key, id: s.id} }

// Sign implements [Signer].
func (s *KeySigner) Sign(ctx context.Context, statement []byte) (Signed, error) {
	// The signature itself names no key: verifiers compute a key's name in several ways, and pass over one that differs.
	envelope, sig, err := signEnvelope(s.key, statement)
	if err != nil {
		return Signed{}, err
	}
	material := VerificationMaterial{PublicKey: &KeyHint{Hint: s.id}}
	if s.time != nil {
		if material.TimestampVerificationData, err = s.time.stamp(ctx, sig); err != nil {
			return Signed{}, err
		}
	}
	return bundled(Key, material, envelope)
}

func bundled(mode Mode, material VerificationMaterial, envelope Envelope) (Signed, error) {
	file, err := json.Marshal(Bundle{MediaType: BundleType, VerificationMaterial: material, DSSEEnvelope: envelope})
	if err != nil {
		return Signed{}, fmt.Errorf("encode bundle: %w", err)
	}
	return Signed{File: append(file, '\n'), Mode: mode}, nil
}
