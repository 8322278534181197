package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"

	"github.com/org/agent-sandbox/runner/event"
)

// MaxFile bounds a manifest file in bytes: a statement in base64, with certificates and time stamps.
const MaxFile = 2*MaxSize + 1<<20

// File is a manifest as it was read. Nothing of it has been verified.
type File struct {
	Statement Statement
	Payload   []byte // the exact bytes of the statement
	Mode      Mode   // how it says that it is signed
	Why       string // nobody signed it, by the run's own word: see WhyUnsigned
}

// WhyUnsigned is what the result of a run says of its manifest that nobody signed, and what mends that. Files are those of the run; what they
// do not tell is empty.
func WhyUnsigned(files fs.FS, content []byte) string {
	f, err := files.Open("result.json")
	if err != nil {
		return ""
	}
	defer f.Close()
	var result struct {
		Manifest *event.Manifest `json:"manifest"`
	}
	if err := json.NewDecoder(io.LimitReader(f, MaxFile)).Decode(&result); err != nil || result.Manifest == nil {
		return ""
	}
	sum := sha256.Sum256(content)
	if m := result.Manifest; m.SHA256 == hex.EncodeToString(sum[:]) && m.Signed == string(None) {
		return m.Detail
	}
	return ""
}

// Read takes a DSSE envelope or a sigstore bundle apart. It looks at no signature.
func Read(content []byte) (File, error) {
	o, err := Open(content)
	if err != nil {
		return File{}, err
	}
	s, err := Decode(o.Payload)
	return File{Statement: s, Payload: o.Payload, Mode: o.Mode()}, err
}
