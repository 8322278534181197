package manifest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// BundleType is the media type of a sigstore bundle
// (https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto).
const BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Bundle is a sigstore bundle of version 0.3 with a DSSE envelope in it.
type Bundle struct {
	MediaType            string               `json:"mediaType"`
	VerificationMaterial VerificationMaterial `json:"verificationMaterial"`
	DSSEEnvelope         Envelope             `json:"dsseEnvelope"`
}

// VerificationMaterial is what a verifier needs beside what it trusts: a certificate, or the hint to a key.
type VerificationMaterial struct {
	Certificate               *RawCertificate            `json:"certificate,omitempty"`
	PublicKey                 *KeyHint                   `json:"publicKey,omitempty"`
	TlogEntries               []json.RawMessage          `json:"tlogEntries,omitempty"`
	TimestampVerificationData *TimestampVerificationData `json:"timestampVerificationData,omitempty"`
}

// RawCertificate is an X.509 certificate in DER.
type RawCertificate struct {
	RawBytes []byte `json:"rawBytes"`
}

// KeyHint helps to find a public key. It proves nothing.
type KeyHint struct {
	Hint string `json:"hint,omitempty"`
}

// TimestampVerificationData has the answers of timestamp authorities (RFC 3161) about the signature.
type TimestampVerificationData struct {
	RFC3161Timestamps []RFC3161Timestamp `json:"rfc3161Timestamps"`
}

// RFC3161Timestamp is a TimeStampResp in DER.
type RFC3161Timestamp struct {
	SignedTimestamp []byte `json:"signedTimestamp"`
}

// Opened is a manifest's file taken apart. Nothing in it is verified.
type Opened struct {
	Payload  []byte // the statement's exact bytes
	Envelope Envelope
	Bundle   *Bundle // nil for a plain envelope
	File     []byte
}

// Mode is how the file claims to be signed.
func (o Opened) Mode() Mode {
	switch {
	case len(o.Envelope.Signatures) == 0:
		return None
	case o.Bundle != nil && o.Bundle.VerificationMaterial.Certificate != nil:
		return Keyless
	}
	return Key
}

// Open takes a manifest's file apart: a DSSE envelope, or a sigstore bundle with one. It refuses what two programs could read
// differently: repeated or unknown keys, keys in another case, loose base64, data after the object.
func Open(file []byte) (Opened, error) {
	o := Opened{File: file}
	if len(file) > MaxFile {
		return o, badFormat("the file has more than %d bytes", MaxFile)
	}
	if err := checkKeys(file); err != nil {
		return o, badFormat("%v", err)
	}
	var kind struct {
		MediaType *string `json:"mediaType"`
	}
	if err := json.Unmarshal(file, &kind); err != nil {
		return o, badFormat("%v", err)
	}
	var err error
	if kind.MediaType == nil {
		err = strictly(file, &o.Envelope)
	} else {
		o.Bundle = &Bundle{}
		err = strictly(file, o.Bundle)
		o.Envelope = o.Bundle.DSSEEnvelope
	}
	if err != nil {
		return o, badFormat("%v", err)
	}
	return o, o.check()
}

func (o *Opened) check() error {
	if b := o.Bundle; b != nil {
		if b.MediaType != BundleType {
			return badFormat("the bundle is %q, not %q", b.MediaType, BundleType)
		}
		if m := b.VerificationMaterial; m.Certificate != nil && m.PublicKey != nil {
			return badFormat("the bundle has both a certificate and a key")
		}
	}
	if o.Envelope.PayloadType != PayloadType {
		return badFormat("the payload is %q, not %q", o.Envelope.PayloadType, PayloadType)
	}
	if len(o.Envelope.Signatures) > maxSignatures {
		return badFormat("it has %d signatures, more than %d", len(o.Envelope.Signatures), maxSignatures)
	}
	var err error
	if o.Payload, err = base64.StdEncoding.Strict().DecodeString(o.Envelope.Payload); err != nil {
		return badFormat("payload: %v", err)
	}
	// DecodeString skips line breaks.
	if base64.StdEncoding.EncodeToString(o.Payload) != o.Envelope.Payload {
		return badFormat("payload: not in its one spelling")
	}
	return nil
}

const maxSignatures = 8

func strictly(file []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// fileKeys are the keys of envelopes and bundles, as they are spelled: encoding/json would take them in any case.
func fileKeys() []string {
	return []string{
		"mediaType", "verificationMaterial", "dsseEnvelope", "certificate", "rawBytes", "publicKey", "hint", "tlogEntries",
		"timestampVerificationData", "rfc3161Timestamps", "signedTimestamp", "payload", "payloadType", "signatures", "keyid", "sig",
		// Of a log's entry.
		"logIndex", "logId", "keyId", "kindVersion", "kind", "version", "integratedTime", "inclusionPromise", "signedEntryTimestamp",
		"inclusionProof", "rootHash", "treeSize", "hashes", "checkpoint", "envelope", "canonicalizedBody",
	}
}

// checkKeys walks one JSON value: every object's keys are known, and are there once.
func checkKeys(file []byte) error {
	d := json.NewDecoder(bytes.NewReader(file))
	if err := checkValue(d, fileKeys(), 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the object")
	}
	return nil
}

const maxDepth = 16

func checkValue(d *json.Decoder, known []string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested more than %d deep", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	var seen []string
	for d.More() {
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			switch {
			case !slices.Contains(known, name):
				return fmt.Errorf("unknown key %q", name)
			case slices.Contains(seen, name):
				return fmt.Errorf("key %q is there twice", name)
			}
			seen = append(seen, name)
		}
		if err := checkValue(d, known, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing one
	return err
}
