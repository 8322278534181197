package event

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable makes hostile text safe to show on a terminal, in a log or in a table:
// control characters, escape sequences, bidirectional overrides, invisible and
// unassigned characters, spaces other than U+0020, and bytes that are not UTF-8
// become visible (\n, \x1b, \u202e, \xff). Everything else stays as it is, also a
// backslash: the result is to be looked at, not parsed.
//
// See https://trojansource.codes/ for what bidirectional overrides do to a reviewer.
func Printable(s string) string {
	i := firstUnprintable(s)
	if i < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:i])
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case visible(r):
			b.WriteString(s[i : i+size])
		default:
			b.WriteString(escape(r))
		}
		i += size
	}
	return b.String()
}

func firstUnprintable(s string) int {
	for i, r := range s {
		if !visible(r) {
			return i
		}
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return -1
}

// visible: unicode.IsPrint refuses controls, format characters, private use,
// unassigned, and all spaces but one. The two tables hold letters and marks that
// print as nothing, and can carry hidden text.
func visible(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r != 0x7f
	}
	return unicode.IsPrint(r) && r != brailleBlank &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

const brailleBlank = '\u2800'

func escape(r rune) string {
	switch {
	case r == '\n':
		return `\n`
	case r == '\r':
		return `\r`
	case r == '\t':
		return `\t`
	case r < utf8.RuneSelf:
		return fmt.Sprintf(`\x%02x`, r)
	case r <= 0xffff:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

// clip is Printable for a column: at most n characters, with "..." for the rest.
func clip(s string, n int) string {
	if limit := utf8.UTFMax * (n + 1); len(s) > limit { // don't escape a megabyte to show a line
		s = s[:limit]
	}
	p := []rune(Printable(s))
	if len(p) <= n {
		return string(p)
	}
	return string(p[:n-3]) + "..."
}
