package event

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"src/main.go", "src/main.go"},
		{`C:\temp`, `C:\temp`},
		{"käse/日本語 x😀", "käse/日本語 x😀"},
		{"\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`},
		{"\x1b]0;title\a", `\x1b]0;title\x07`},
		{"a\nb\rc\td", `a\nb\rc\td`},
		{"\x00\x7f", `\x00\x7f`},
		{"\u009b31m", `\u009b31m`}, // the 8-bit CSI
		{"user\u202egpj.exe", `user\u202egpj.exe`},
		{"\u2066isolate\u2069", `\u2066isolate\u2069`},
		{"zero\u200bwidth\ufeff", `zero\u200bwidth\ufeff`},
		{"nbsp\u00a0ls\u2028", `nbsp\u00a0ls\u2028`},
		{"tag\U000e0041", `tag\U000e0041`},
		{"selector\ufe0f\U000e0101", `selector\ufe0f\U000e0101`},
		{"filler\u3164\u115f\u2800", `filler\u3164\u115f\u2800`},
		{"bad\xff\xc3utf", `bad\xff\xc3utf`},
		{"\xed\xa0\x80", `\xed\xa0\x80`}, // a surrogate half
		{"\ufffd", "\ufffd"},
	} {
		if got := Printable(tt.in); got != tt.want {
			t.Errorf("Printable(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestClip(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"short", "short"},
		{strings.Repeat("x", 10), "xxxxxxxxxx"},
		{strings.Repeat("x", 11), "xxxxxxx..."},
		{strings.Repeat("\x1b", 1<<20), `\x1b\x1...`},
		{strings.Repeat("ä", 11), "äääääää..."},
	} {
		if got := clip(tt.in, 10); got != tt.want {
			t.Errorf("clip(%.20q, 10) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// Claim: what is shown never moves the cursor, changes its colour, or hides a character.
func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "\u202e", "\xff", "a\\nb", "\u009b", "\ufe0f", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		if !utf8.ValidString(got) {
			t.Fatalf("Printable(%q) = %q: not UTF-8", s, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
				t.Fatalf("Printable(%q) = %q keeps %U", s, got, r)
			}
		}
		if Printable(got) != got {
			t.Fatalf("Printable(%q) is not stable", got)
		}
		if utf8.RuneCountInString(got) < utf8.RuneCountInString(s) {
			t.Fatalf("Printable(%q) = %q hides characters", s, got)
		}
	})
}
