package manifest

// MaxFile bounds a manifest file in bytes: a statement in base64, with certificates and time stamps.
const MaxFile = 2*MaxSize + 1<<20

// File is a manifest as it was read. Nothing of it has been verified.
type File struct {
	Statement Statement
	Payload   []byte // the exact bytes of the statement
	Mode      Mode   // how it says that it is signed
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
