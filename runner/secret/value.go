// Package secret holds what must not be seen. It refuses to print: only [Value.Reveal] gives the text, and it is called
// where the secret is sent and nowhere else.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted stands for a value wherever one would be printed.
const redacted = "[redacted]"

// Value is a secret. It prints as [redacted] under every verb, in logs and in every encoding, and compares equal only to
// itself. The zero Value is empty.
type Value struct {
	text *string // a pointer: fmt calls no method on an unexported field, and would print a plain string of one
}

// New makes a Value of text.
func New(text string) Value { return Value{&text} }

// Reveal is the secret itself, for whoever sends it.
func (v Value) Reveal() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

// IsEmpty tells whether there is no text.
func (v Value) IsEmpty() bool { return v.Reveal() == "" }

// Format implements fmt.Formatter, so that no verb gets at the text, %d and %x included.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String is "[redacted]".
func (v Value) String() string { return redacted }

// GoString is the same, for %#v of what holds a Value.
func (v Value) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (v Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText serves JSON, YAML and XML.
func (v Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }
