package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// What a statement says it is.
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://github.com/org/agent-sandbox/run/v1"
	PayloadType   = "application/vnd.in-toto+json" // of the DSSE envelope
)

// MaxSize bounds a statement in bytes: in base64 and with a certificate it is less than a megabyte. The builder stays below it
// whatever a run did.
const MaxSize = 704 << 10

// Statement is what is signed: an in-toto Statement v1.
type Statement struct {
	// Type is always https://in-toto.io/Statement/v1.
	Type string `json:"_type" from:"observed"`
	// Subject names what the run made, by digest: `changes.patch` if the changes were read back; `tree`, the git tree that the source's
	// commit has with them; `output/NAME` for each file that the policy's `evidence.outputs` names; and always the audit log `events.jsonl`,
	// so that a run that made nothing has evidence too.
	Subject []Subject `json:"subject" from:"observed"`
	// PredicateType is always https://github.com/org/agent-sandbox/run/v1.
	PredicateType string `json:"predicateType" from:"observed"`
	// Predicate says what was allowed, tried and changed.
	Predicate Predicate `json:"predicate" from:"observed"`
}

// Subject is an artifact (https://github.com/in-toto/attestation/blob/main/spec/v1/resource_descriptor.md).
type Subject struct {
	// Name is that of the file in the run's directory, `tree`, or `output/` and the name in the policy.
	Name string `json:"name"`
	// Digest maps an algorithm to lower-case hex: `sha256`, and `gitTree` for a tree.
	Digest map[string]string `json:"digest"`
}

// The names of subjects.
const (
	SubjectEvents = "events.jsonl"
	SubjectPatch  = "changes.patch"
	SubjectTree   = "tree"
)

// prefixOutput is before the names of outputs.
const prefixOutput = "output/"

// digestTree is the algorithm of a git tree's id (https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md).
const digestTree = "gitTree"

// Encode gives the one spelling of a statement: keys sorted, no white space, no escapes for HTML.
func (s Statement) Encode() ([]byte, error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	return canonical(plain)
}

func canonical(plain []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber() // a count beyond 2^53 stays exact
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the object")
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(tree); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// FormatError says why a payload is no statement of this version.
type FormatError struct {
	// Reason says what is wrong.
	Reason string
}

// Error is the reason.
func (e *FormatError) Error() string { return "not a run's statement: " + e.Reason }

func badFormat(format string, args ...any) error { return &FormatError{fmt.Sprintf(format, args...)} }

// Decode reads a statement of this version. It takes nothing but what [Statement.Encode] writes: no unknown or repeated
// key, no other spelling, so that no two readers can see different things in what was signed.
func Decode(payload []byte) (Statement, error) {
	var s Statement
	if len(payload) > MaxSize {
		return s, badFormat("it has more than %d bytes", MaxSize)
	}
	var kind struct {
		Type          string `json:"_type"`
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(payload, &kind); err != nil {
		return s, badFormat("%v", err)
	}
	switch {
	case kind.Type != StatementType:
		return s, badFormat("its type is %q, not %q", kind.Type, StatementType)
	case kind.PredicateType != PredicateType:
		return s, badFormat("its predicate is %q, not %q", kind.PredicateType, PredicateType)
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		return Statement{}, badFormat("%v", err)
	}
	again, err := s.Encode()
	if err != nil {
		return Statement{}, badFormat("%v", err)
	}
	if err := check("", reflect.ValueOf(s), ""); err != nil {
		return Statement{}, err
	}
	if !bytes.Equal(again, payload) {
		return Statement{}, badFormat("it is not spelled as version 1 is: a newer version of agent-sandbox made it, or it was altered")
	}
	return s, nil
}

// check refuses what the schema refuses and encoding/json lets through: null for a list, and words that a field does not have.
func check(path string, v reflect.Value, tag reflect.StructTag) error {
	optional := strings.Contains(tag.Get("json"), ",omitempty")
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return check(path, v.Elem(), tag)
	case reflect.Map:
		if v.IsNil() && !optional {
			return badFormat("%s is null", path)
		}
	case reflect.Slice:
		return checkSlice(path, v, optional)
	case reflect.Struct:
		for field, value := range v.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" {
				continue // the inside of a time
			}
			if err := check(path+"."+name, value, field.Tag); err != nil {
				return err
			}
		}
	case reflect.String:
		if words := tag.Get("enum"); words != "" && !slices.Contains(strings.Split(words, ","), v.String()) {
			return badFormat("%s is %q, not one of %s", path, v.String(), words)
		}
	default:
	}
	return nil
}

func checkSlice(path string, v reflect.Value, optional bool) error {
	if raw, ok := v.Interface().(json.RawMessage); ok {
		if len(raw) > 0 && raw[0] != '{' {
			return badFormat("%s is no object", path)
		}
		return nil
	}
	if v.IsNil() && !optional {
		return badFormat("%s is null", path)
	}
	for i := range v.Len() {
		if err := check(path, v.Index(i), ""); err != nil {
			return err
		}
	}
	return nil
}
