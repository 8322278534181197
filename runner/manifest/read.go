package manifest

import (
	"encoding/base64"
	"encoding/json"
)

// MaxFile bounds a manifest file in bytes: a statement in base64, with certificates and time stamps.
const MaxFile = 2 << 20

// File is a manifest as it was read. Nothing of it has been verified.
type File struct {
	Statement Statement
	Payload   []byte // the exact bytes of the statement
	Mode      Mode   // how it says that it is signed
}

// Read takes a DSSE envelope or a sigstore bundle apart. It looks at no signature.
func Read(content []byte) (File, error) {
	var outer struct {
		Envelope
		Bundle *Envelope `json:"dsseEnvelope"`
	}
	if len(content) > MaxFile {
		return File{}, badFormat("it has more than %d bytes", MaxFile)
	}
	if err := json.Unmarshal(content, &outer); err != nil {
		return File{}, badFormat("%v", err)
	}
	f, e := File{Mode: Keyless}, outer.Bundle
	if e == nil {
		e, f.Mode = &outer.Envelope, Key
	}
	if len(e.Signatures) == 0 {
		f.Mode = None
	}
	if e.PayloadType != PayloadType {
		return File{}, badFormat("its payload type is %q, not %q", e.PayloadType, PayloadType)
	}
	var err error
	if f.Payload, err = base64.StdEncoding.Strict().DecodeString(e.Payload); err != nil {
		return File{}, badFormat("its payload is no base64: %v", err)
	}
	f.Statement, err = Decode(f.Payload)
	return f, err
}
