package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const text = "s3cret-canary"

// TestValuePrintsNothing tries every verb with every flag, on the value and on what holds one.
func TestValuePrintsNothing(t *testing.T) {
	v := New(text)
	type holder struct {
		Exported Value
		hidden   Value
	}
	for _, holds := range []any{v, &v, []Value{v}, map[string]Value{"a": v}, holder{v, v}, &holder{v, v}, any(v)} {
		for verb := range rune(128) {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "20", ".3", "#+"} {
				format := "%" + flags + string(verb)
				if got := fmt.Sprintf(format, holds); leaks(got) {
					t.Errorf("Sprintf(%q, %T) = %q", format, holds, got)
				}
			}
		}
	}
}

func TestValueEncodesNothing(t *testing.T) {
	v := New(text)
	encoded, err := json.Marshal(map[string]any{"value": v, "pointer": &v, "list": []Value{v}})
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("it", "value", v, "group", slog.GroupValue(slog.Any("inner", v)))
	slog.New(slog.NewTextHandler(&logged, nil)).Info("it", "value", v)
	if leaks(string(encoded)) || leaks(logged.String()) {
		t.Errorf("JSON %s, log %s", encoded, logged.String())
	}
	if got := v.Reveal(); got != text {
		t.Errorf("Reveal() = %q, want %q", got, text)
	}
	if !(Value{}).IsEmpty() || v.IsEmpty() {
		t.Error("IsEmpty is wrong")
	}
}

// leaks finds the text as it is and in hexadecimal, which %x would print.
func leaks(s string) bool {
	s = strings.ToLower(s)
	return strings.Contains(s, text) || strings.Contains(s, fmt.Sprintf("%x", text))
}
