package policy

import "unicode"

// isControl reports characters that don't belong in one line of a reviewed file: control characters, line and
// paragraph separators, and those that reorder what the reader sees (https://trojansource.codes).
func isControl(r rune) bool {
	switch {
	case unicode.IsControl(r), r == '\u2028', r == '\u2029', r == '\ufeff':
		return true
	case r == '\u061c', r == '\u200e', r == '\u200f', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069':
		return true
	}
	return false
}

// shorten keeps messages readable, and in one line, whatever the file holds.
func shorten(s string) string {
	const most = 100
	runes := []rune(s)
	cut := len(runes) > most
	runes = runes[:min(most, len(runes))]
	for i, r := range runes {
		if isControl(r) {
			runes[i] = '?'
		}
	}
	if cut {
		return string(runes) + "..."
	}
	return string(runes)
}
