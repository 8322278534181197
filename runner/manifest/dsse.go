package manifest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// signEnvelope signs a statement as DSSE says: over its type and its exact bytes.
func signEnvelope(key crypto.Signer, statement []byte) (Envelope, []byte, error) {
	message := dsse.PAE(PayloadType, statement)
	hash, err := hashOf(key.Public())
	if err != nil {
		return Envelope{}, nil, err
	}
	if hash != 0 {
		h := hash.New()
		h.Write(message)
		message = h.Sum(nil)
	}
	sig, err := key.Sign(rand.Reader, message, hash)
	if err != nil {
		return Envelope{}, nil, fmt.Errorf("sign: %w", err)
	}
	return Envelope{
		Payload: base64.StdEncoding.EncodeToString(statement), PayloadType: PayloadType,
		Signatures: []EnvelopeSignature{{Sig: base64.StdEncoding.EncodeToString(sig)}},
	}, sig, nil
}

var errSignature = errors.New("the signature does not fit: the manifest was changed after signing, or another key signed it")

// verifyEnvelope checks that key signed the payload. Every signature of the envelope has to be that key's: one that
// nobody checked must not look as if it counted.
func verifyEnvelope(key crypto.PublicKey, e Envelope, payload []byte) error {
	if len(e.Signatures) != 1 {
		return fmt.Errorf("it has %d signatures, not one", len(e.Signatures))
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(e.Signatures[0].Sig)
	if err != nil {
		return fmt.Errorf("signature: %v", err)
	}
	return checkSignature(key, dsse.PAE(e.PayloadType, payload), sig)
}

// checkSignature checks a signature over a message with the hash that belongs to the kind of key.
func checkSignature(key crypto.PublicKey, message, sig []byte) error {
	hash, err := hashOf(key)
	if err != nil {
		return err
	}
	if hash != 0 {
		h := hash.New()
		h.Write(message)
		message = h.Sum(nil)
	}
	good := false
	switch key := key.(type) {
	case ed25519.PublicKey:
		good = ed25519.Verify(key, message, sig)
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(key, message, sig)
	}
	if !good {
		return errSignature
	}
	return nil
}
