package manifest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
)

// loggedSignature is what a log's entry is about.
type loggedSignature struct {
	signature []byte
	signer    []byte // the certificate or the key in DER
	payload   []byte // SHA-256 of the payload; nil: it does not say
	message   []byte // SHA-256 of what was signed; nil: it does not say
}

// hexHash is a digest in the first version of Rekor.
type hexHash struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"value"`
}

// rawHash is a digest in the second version.
type rawHash struct {
	Algorithm string `json:"algorithm"`
	Digest    []byte `json:"digest"`
}

// rawVerifier is a certificate or a key in the second version.
type rawVerifier struct {
	X509Certificate *RawCertificate `json:"x509Certificate"`
	PublicKey       *RawCertificate `json:"publicKey"`
}

// rawSignature is a signature with its verifier, in the second version.
type rawSignature struct {
	Content  []byte      `json:"content"`
	Verifier rawVerifier `json:"verifier"`
}

// logged reads an entry of one of the kinds that are about an envelope. The log has vouched for these bytes, or nobody has: unknown keys in
// them do no harm.
func (e logEntry) logged() (loggedSignature, error) {
	var body struct {
		Kind    string          `json:"kind"`
		Version string          `json:"apiVersion"`
		Spec    json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(e.CanonicalizedBody, &body); err != nil {
		return loggedSignature{}, fmt.Errorf("the log's entry: %w", err)
	}
	if body.Kind != e.KindVersion.Kind || body.Version != e.KindVersion.Version {
		return loggedSignature{}, errors.New("the log's entry is of another kind than the bundle says")
	}
	read, ok := map[string]func([]byte) (loggedSignature, error){
		"dsse 0.0.1": dsseEntry, "dsse 0.0.2": dsseEntry2, "intoto 0.0.2": intotoEntry,
		"hashedrekord 0.0.1": hashedEntry, "hashedrekord 0.0.2": hashedEntry2,
	}[body.Kind+" "+body.Version]
	if !ok {
		return loggedSignature{}, fmt.Errorf("the log's entry is of the kind %q %q, which is not understood", body.Kind, body.Version)
	}
	has, err := read(body.Spec)
	if err == nil && (len(has.signature) == 0 || len(has.signer) == 0 || has.payload == nil && has.message == nil) {
		err = errors.New("it does not say what it is about")
	}
	if err != nil {
		return loggedSignature{}, fmt.Errorf("the log's entry: %w", err)
	}
	return has, nil
}

// secondVersion tells the kinds of the second version of Rekor.
func secondVersion(kind, version string) bool {
	return version == "0.0.2" && (kind == "dsse" || kind == "hashedrekord")
}

var errOneSignature = errors.New("it has not one signature")

// dsseEntry: https://github.com/sigstore/rekor/blob/main/pkg/types/dsse/v0.0.1/dsse_v0_0_1_schema.json.
func dsseEntry(spec []byte) (has loggedSignature, err error) {
	var s struct {
		PayloadHash hexHash `json:"payloadHash"`
		Signatures  []struct {
			Signature []byte `json:"signature"`
			Verifier  []byte `json:"verifier"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(spec, &s); err != nil {
		return has, err
	}
	if len(s.Signatures) != 1 {
		return has, errOneSignature
	}
	has.signature = s.Signatures[0].Signature
	if has.signer, err = fromPEM(s.Signatures[0].Verifier); err == nil {
		has.payload, err = s.PayloadHash.sum()
	}
	return has, err
}

// dsseEntry2: https://github.com/sigstore/protobuf-specs/blob/main/protos/rekor/v2/dsse.proto.
func dsseEntry2(spec []byte) (has loggedSignature, err error) {
	var s struct {
		Entry struct {
			PayloadHash rawHash        `json:"payloadHash"`
			Signatures  []rawSignature `json:"signatures"`
		} `json:"dsseV002"`
	}
	if err := json.Unmarshal(spec, &s); err != nil {
		return has, err
	}
	if len(s.Entry.Signatures) != 1 {
		return has, errOneSignature
	}
	one := s.Entry.Signatures[0]
	has.signature, has.signer = one.Content, one.Verifier.der()
	has.payload, err = s.Entry.PayloadHash.sum()
	return has, err
}

// intotoEntry: https://github.com/sigstore/rekor/blob/main/pkg/types/intoto/v0.0.2/intoto_v0_0_2_schema.json. Its signature is in base64 twice.
func intotoEntry(spec []byte) (has loggedSignature, err error) {
	var s struct {
		Content struct {
			Envelope struct {
				Signatures []struct {
					Sig       []byte `json:"sig"`
					PublicKey []byte `json:"publicKey"`
				} `json:"signatures"`
			} `json:"envelope"`
			PayloadHash hexHash `json:"payloadHash"`
		} `json:"content"`
	}
	if err := json.Unmarshal(spec, &s); err != nil {
		return has, err
	}
	all := s.Content.Envelope.Signatures
	if len(all) != 1 {
		return has, errOneSignature
	}
	if has.signature, err = base64.StdEncoding.DecodeString(string(all[0].Sig)); err != nil {
		return has, err
	}
	if has.signer, err = fromPEM(all[0].PublicKey); err == nil {
		has.payload, err = s.Content.PayloadHash.sum()
	}
	return has, err
}

// hashedEntry: https://github.com/sigstore/rekor/blob/main/pkg/types/hashedrekord/v0.0.1/hashedrekord_v0_0_1_schema.json. For an envelope it is
// about what DSSE has signed.
func hashedEntry(spec []byte) (has loggedSignature, err error) {
	var s struct {
		Data struct {
			Hash hexHash `json:"hash"`
		} `json:"data"`
		Signature struct {
			Content   []byte `json:"content"`
			PublicKey struct {
				Content []byte `json:"content"`
			} `json:"publicKey"`
		} `json:"signature"`
	}
	if err := json.Unmarshal(spec, &s); err != nil {
		return has, err
	}
	has.signature = s.Signature.Content
	if has.signer, err = fromPEM(s.Signature.PublicKey.Content); err == nil {
		has.message, err = s.Data.Hash.sum()
	}
	return has, err
}

// hashedEntry2: https://github.com/sigstore/protobuf-specs/blob/main/protos/rekor/v2/hashedrekord.proto.
func hashedEntry2(spec []byte) (has loggedSignature, err error) {
	var s struct {
		Entry struct {
			Data      rawHash      `json:"data"`
			Signature rawSignature `json:"signature"`
		} `json:"hashedRekordV002"`
	}
	if err := json.Unmarshal(spec, &s); err != nil {
		return has, err
	}
	has.signature, has.signer = s.Entry.Signature.Content, s.Entry.Signature.Verifier.der()
	has.message, err = s.Entry.Data.sum()
	return has, err
}

var errNotSHA256 = errors.New("its digest is not SHA-256")

func (h hexHash) sum() ([]byte, error) {
	sum, err := hex.DecodeString(h.Value)
	if err != nil || h.Algorithm != "sha256" || len(sum) != sha256Size {
		return nil, errNotSHA256
	}
	return sum, nil
}

func (h rawHash) sum() ([]byte, error) {
	if h.Algorithm != "SHA2_256" || len(h.Digest) != sha256Size {
		return nil, errNotSHA256
	}
	return h.Digest, nil
}

// der is that of the one, nil if there are both or none.
func (v rawVerifier) der() []byte {
	switch {
	case v.X509Certificate != nil && v.PublicKey == nil:
		return v.X509Certificate.RawBytes
	case v.PublicKey != nil && v.X509Certificate == nil:
		return v.PublicKey.RawBytes
	}
	return nil
}

// fromPEM is what is in a PEM file of one certificate or key.
func fromPEM(file []byte) ([]byte, error) {
	block, rest := pem.Decode(file)
	if block == nil || len(rest) > 0 {
		return nil, errors.New("its signer is not one PEM block")
	}
	return block.Bytes, nil
}
