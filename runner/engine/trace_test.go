package engine

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

// wire encodes a field with a length.
func wire(field byte, value string) string {
	return string([]byte{field<<3 | 2, byte(len(value))}) + value
}

func traceOf(t *testing.T, response string) json.RawMessage {
	t.Helper()
	b, err := json.Marshal([]byte(response))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBuildTrace(t *testing.T) {
	var lines []string
	trace := &buildTrace{line: func(s string) { lines = append(lines, s) }, names: map[string]bool{}}
	waiting := wire(statusVertex, wire(vertexDigest, "d1")+wire(vertexName, "[1/2] FROM a"))
	started := wire(statusVertex, wire(vertexDigest, "d1")+wire(vertexName, "[1/2] FROM a")+wire(vertexStart, ""))
	for _, response := range []string{
		waiting, started, started,
		wire(statusLog, wire(1, "d1")+"\x18\x01"+wire(logMessage, "one\ntw")), wire(statusLog, wire(logMessage, "o\n")),
	} {
		if err := trace.add(traceOf(t, response)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"[1/2] FROM a", "one", "two"}; !slices.Equal(lines, want) {
		t.Errorf("lines are %q, want %q", lines, want)
	}
	for _, broken := range []string{"\x0a", "\x0a\x05ab", "\x0f", "\x80", "\x08\x80"} {
		if err := trace.add(traceOf(t, broken)); !errors.Is(err, errWire) {
			t.Errorf("%q: %v, want %v", broken, err, errWire)
		}
	}
}

func TestMessageBounds(t *testing.T) {
	long := `{"stream":"` + strings.Repeat("x", maxBuildLine) + `"}`
	if err := eachMessage(strings.NewReader(long), func(message) error { return nil }); !errors.Is(err, errLongLine) {
		t.Errorf("a long message: %v, want %v", err, errLongLine)
	}
	n := 0
	err := eachMessage(strings.NewReader("{\"stream\":\"a\"}\r\n\n{\"stream\":\"b\"}"), func(message) error { n++; return nil })
	if err != nil || n != 2 {
		t.Errorf("%d messages, %v, want 2", n, err)
	}
	var text []string
	trace := &buildTrace{line: func(s string) { text = append(text, s) }}
	for range 3 {
		trace.text(strings.Repeat("x", maxPart))
	}
	if len(trace.part) > maxPart || len(text) == 0 {
		t.Errorf("%d bytes of a line without an end are kept", len(trace.part))
	}
}

// FuzzBuildTrace: an engine may send anything.
func FuzzBuildTrace(f *testing.F) {
	f.Add([]byte(wire(statusVertex, wire(vertexName, "x"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		trace := &buildTrace{line: func(s string) { total += len(s) }, names: map[string]bool{}}
		response, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		_ = trace.add(response) // refused or taken, but nothing made up
		if total > len(b) {
			t.Errorf("%d bytes of lines out of %d", total, len(b))
		}
	})
}
