package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSafeWriter(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "a\tb\nc\n", "a\tb\nc\n"},
		{"no newline at the end", "a", "a"},
		{"colour", "\x1b[1;31mred\x1b[0m\n", "red\n"},
		{"title, cursor, bell", "\x1b]0;x\a\x1b[2J\b\n", "\\x1b]0;x\\x07\\x1b[2J\\x08\n"},
		{"half a sequence", "\x1b[31\n", "\\x1b[31\n"},
		{"colour hidden in colour", "\x1b[\x1b[1m2J\n", "\\x1b[2J\n"},
		{"terminal's line ends", "a\r\nb\r\n", "a\nb\n"},
		{"progress", "1%\r2%\r3%\n", "1%\n2%\n3%\n"},
		{"bytes", "\xff\xfe\n", "\\xff\\xfe\n"},
		{"override", "x\u202ey\n", "x\\u202ey\n"},
		{"C1", "\u009b2J\n", "\\u009b2J\n"},
		{"text", "Grüße 日本\n", "Grüße 日本\n"},
	} {
		for _, step := range []int{1, 3, len(tt.in)} {
			var b bytes.Buffer
			w := &safeWriter{w: &b}
			for at := 0; at < len(tt.in); at += step {
				if _, err := w.Write([]byte(tt.in[at:min(at+step, len(tt.in))])); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if got := b.String(); got != tt.want {
				t.Errorf("%s, %d bytes at a time: got %q, want %q", tt.name, step, got, tt.want)
			}
		}
	}
}

// A line without an end is shown in pieces, and no character is cut.
func TestSafeWriterIsBounded(t *testing.T) {
	in := strings.Repeat("日", maxShownLine)
	var b bytes.Buffer
	w := &safeWriter{w: &b}
	for chunk := range strings.SplitSeq(in, "") {
		if _, err := w.Write([]byte(chunk)); err != nil {
			t.Fatal(err)
		}
		if len(w.rest) > maxShownLine+utf8.UTFMax {
			t.Fatalf("it keeps %d bytes", len(w.rest))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if b.String() != in {
		t.Error("the text was changed")
	}
}

// Whatever comes in, nothing that goes out acts on a terminal.
func FuzzSafeText(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\x1b]0;t\a\r\u009b")
	f.Add("\x1b[\x1b[1m2J")
	f.Fuzz(func(t *testing.T, line string) {
		for _, r := range safeText(line) {
			if r < ' ' && r != '\t' && r != '\n' || r >= 0x7f && r < 0xa0 {
				t.Errorf("safeText(%q) has %U", line, r)
			}
		}
	})
}

func TestCommandLine(t *testing.T) {
	for _, tt := range []struct {
		argv []string
		want string
	}{
		{[]string{"go", "test", "./..."}, "go test ./..."},
		{[]string{"sh", "-c", "a b"}, "sh -c 'a b'"},
		{[]string{"echo", "", "it's"}, `echo '' 'it'\''s'`},
		{[]string{"x", "\x1b[2J"}, `x '\x1b[2J'`},
	} {
		if got := commandLine(tt.argv); got != tt.want {
			t.Errorf("commandLine(%q) = %s, want %s", tt.argv, got, tt.want)
		}
	}
}

func TestAtLeast(t *testing.T) {
	for _, tt := range []struct {
		version, oldest string
		want            bool
	}{
		{"1.41", oldestAPI, true},
		{"1.40", oldestAPI, false},
		{"1.9", oldestAPI, false},
		{"1.56", oldestAPI, true},
		{"2.0", oldestAPI, true},
		{"", oldestAPI, true},
		{"20.10.24+dfsg1", oldestEngine, true},
		{"20.10.10", oldestEngine, true},
		{"20.10.9", oldestEngine, false},
		{"20.10.5+dfsg1", oldestEngine, false},
		{"2.0.0-beta.24", oldestAPI, true},
		{"28.5.2", oldestEngine, true},
		{"unknown", oldestEngine, true},
	} {
		if got := atLeast(tt.version, tt.oldest); got != tt.want {
			t.Errorf("atLeast(%q, %q) = %v, want %v", tt.version, tt.oldest, got, tt.want)
		}
	}
}
