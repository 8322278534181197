package runnertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schema is the published schema of manifests, in an implementation that is not ours. Whatever part of the test suite makes runs holds
// each manifest of theirs against it.
type Schema struct{ compiled *jsonschema.Schema }

// NewSchema compiles a JSON Schema.
func NewSchema(text []byte) (*Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("manifest.json", doc); err != nil {
		return nil, err
	}
	compiled, err := c.Compile("manifest.json")
	return &Schema{compiled}, err
}

// Statement says what is wrong with a statement.
func (s *Schema) Statement(payload []byte) error {
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
	if err != nil {
		return err
	}
	return s.compiled.Validate(instance)
}

// Manifest says what is wrong with the statement in a DSSE envelope or a sigstore bundle.
func (s *Schema) Manifest(file []byte) error {
	type envelope struct {
		Payload []byte `json:"payload"`
	}
	var f struct {
		envelope
		Inner *envelope `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(file, &f); err != nil {
		return err
	}
	if f.Inner != nil {
		f.envelope = *f.Inner
	}
	return s.Statement(f.Payload)
}

// Manifests validates every manifest.json below a directory of runs, and says how many there are. What an agent wrote is in blobs/ and
// upper/, and may have that name too.
func (s *Schema) Manifests(dir string) (n int, err error) {
	var errs []error
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() && (d.Name() == "blobs" || d.Name() == "upper") {
			return fs.SkipDir
		}
		if err != nil || d.Name() != "manifest.json" || !d.Type().IsRegular() {
			return err
		}
		file, err := os.ReadFile(name)
		if err == nil {
			err = s.Manifest(file)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		n++
		return nil
	})
	return n, errors.Join(append(errs, err)...)
}
