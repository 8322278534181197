package manifest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
)

// Signer makes the content of manifest.json from the exact bytes of a statement.
type Signer interface {
	Sign(ctx context.Context, statement []byte) (Signed, error)
}

// Mode is how a manifest is signed.
type Mode string

// The modes.
const (
	Keyless Mode = "keyless" // a sigstore bundle, with a certificate for the job's identity
	Key     Mode = "key"     // a sigstore bundle without a certificate, by a key that the verifier has to know
	None    Mode = "none"    // nobody: whoever owns the file can change it
)

// Signed is a manifest as it is written.
type Signed struct {
	File []byte // content of manifest.json: a DSSE envelope or a sigstore bundle
	Mode Mode
	// Why says what kept a signature away, where one could have been expected; for people.
	Why string
	// Lacks is what the signature was to have and has not. It counts all the same.
	Lacks error
}

// FallbackSigner has Second sign what First can't.
type FallbackSigner struct{ First, Second Signer }

// Sign implements [Signer].
func (s *FallbackSigner) Sign(ctx context.Context, statement []byte) (Signed, error) {
	signed, err := s.First.Sign(ctx, statement)
	if err == nil {
		return signed, nil
	}
	signed, secondErr := s.Second.Sign(ctx, statement)
	if secondErr != nil {
		return Signed{}, errors.Join(err, secondErr)
	}
	first := "the first choice failed: " + err.Error()
	if signed.Why != "" {
		first += "; " + signed.Why
	}
	signed.Why = first
	return signed, nil
}

// Envelope is a DSSE envelope (https://github.com/secure-systems-lab/dsse/blob/master/envelope.md).
type Envelope struct {
	Payload     string              `json:"payload"` // base64
	PayloadType string              `json:"payloadType"`
	Signatures  []EnvelopeSignature `json:"signatures"`
}

// EnvelopeSignature is one signature over the payload.
type EnvelopeSignature struct {
	KeyID string `json:"keyid,omitempty"`
	Sig   string `json:"sig"` // base64
}

// Unsigned is a Signer that does not sign: the envelope has no signatures, and every view of it says so.
type Unsigned struct {
	Why string
}

// Sign wraps the statement.
func (u Unsigned) Sign(_ context.Context, statement []byte) (Signed, error) {
	file, err := json.Marshal(Envelope{
		Payload: base64.StdEncoding.EncodeToString(statement), PayloadType: PayloadType, Signatures: []EnvelopeSignature{},
	})
	return Signed{File: append(file, '\n'), Mode: None, Why: u.Why}, err
}
