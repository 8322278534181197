package policy

import (
	"errors"
	"fmt"
	"strings"
)

// CleanPath is the path of a request in the one spelling that rules are matched against. The zero CleanPath
// matches nothing.
//
// Escapes of characters that need none are undone (RFC 3986, 6.2.2.2), all others are kept as escapes, so that an encoded slash
// is not a slash. A segment that is a plain "." is left out (5.2.4): apt asks for those, and nobody reads them in another way. What two
// servers could read as two different paths is refused, not repaired: all other dot segments, also encoded or behind an
// encoded slash, empty segments, backslashes, control characters, doubly encoded separators.
type CleanPath struct {
	segments []string // without the leading slash; an escape that stays is one rune of escapeBase+byte
}

// escapeBase starts 256 private characters that stand for the escaped bytes, so that "%2F" can't match halfway.
const escapeBase = '\uE000'

const escapedSlash = string(rune(escapeBase + '/'))

const maxPathLength = 16 << 10

// ParsePath reads the path of a request: what stands in the request line before "?". The error says why it is refused.
func ParsePath(s string) (CleanPath, error) {
	switch {
	case len(s) > maxPathLength:
		return CleanPath{}, fmt.Errorf("the path is longer than %d bytes", maxPathLength)
	case !strings.HasPrefix(s, "/"):
		return CleanPath{}, errors.New(`the path does not start with "/"`)
	case strings.ContainsAny(s, "?#"):
		return CleanPath{}, errors.New(`the path goes up to "?" or "#"`)
	}
	var p CleanPath
	for raw := range strings.SplitSeq(plainDots(s[1:]), "/") {
		segment, err := cleanSegment(raw)
		if err != nil {
			return CleanPath{}, err
		}
		p.segments = append(p.segments, segment)
	}
	if err := checkSegments(p.segments); err != nil {
		return CleanPath{}, err
	}
	return p, nil
}

// plainDots leaves out the segments that are a dot; of one at the end the slash before it stays.
func plainDots(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	segments := strings.Split(s, "/")
	kept := segments[:0]
	for i, segment := range segments {
		switch {
		case segment != ".":
			kept = append(kept, segment)
		case i == len(segments)-1:
			kept = append(kept, "")
		}
	}
	return strings.Join(kept, "/")
}

// checkSegments looks behind encoded slashes too, and leaves out path parameters as servers do ("/..;x/").
func checkSegments(segments []string) error {
	for i, segment := range segments {
		if segment == "" && i < len(segments)-1 {
			return errors.New("the path has an empty segment (//)")
		}
		for name := range strings.SplitSeq(segment, escapedSlash) {
			name, _, _ = strings.Cut(name, ";")
			if name == "." || name == ".." {
				return errors.New("the path has a dot segment")
			}
		}
	}
	return nil
}

// cleanSegment undoes needless escapes and gives every other byte its private character.
func cleanSegment(raw string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		escaped := c == '%'
		if escaped {
			value, ok := unhex(raw[i+1:])
			if !ok {
				return "", errors.New("the path has a percent sign without two hex digits")
			}
			c = value
			i += 2
			if err := checkEscape(c, raw[i+1:]); err != nil {
				return "", err
			}
		}
		switch {
		case c < ' ' || c == 0x7f:
			return "", errors.New("the path has a control character")
		case c == '\\':
			return "", errors.New("the path has a backslash")
		case isPathChar(c):
			b.WriteByte(c)
		case c == ' ' && !escaped:
			return "", errors.New("the path has a blank")
		default:
			b.WriteRune(escapeBase + rune(c))
		}
	}
	return b.String(), nil
}

// checkEscape refuses what only an attempt to get past a filter has: a dot that needs no escape, and an escaped
// percent sign that a second decoding turns into a dot, a slash, a backslash, a percent sign or a control character.
func checkEscape(c byte, rest string) error {
	if c == '.' {
		return errors.New("the path has an encoded dot")
	}
	if c != '%' {
		return nil
	}
	if second, ok := unhex(rest); ok && (second < ' ' || strings.IndexByte("./\\%;", second) >= 0) {
		return errors.New("the path is encoded twice")
	}
	return nil
}

// unhex reads the two hex digits at the start of s.
func unhex(s string) (byte, bool) {
	if len(s) < 2 {
		return 0, false
	}
	high, ok1 := hexDigit(s[0])
	low, ok2 := hexDigit(s[1])
	return high<<4 | low, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// isPathChar reports the characters of a path segment that mean themselves (pchar without escapes, RFC 3986, 3.3).
func isPathChar(c byte) bool {
	return isLowerAlnum(c) || 'A' <= c && c <= 'Z' || strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0
}

// String is the path with its leading slash and upper-case escapes: what a server should be sent.
func (p CleanPath) String() string {
	if len(p.segments) == 0 {
		return ""
	}
	return "/" + showEscapes(strings.Join(p.segments, "/"))
}

func showEscapes(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= escapeBase && r <= escapeBase+0xff {
			fmt.Fprintf(&b, "%%%02X", r-escapeBase)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// lenient is the path as a forgiving server reads it, for deny rules: encoded slashes separate, case and slashes at
// the end don't count, nor do path parameters unless they are kept.
func (p CleanPath) lenient(parameters bool) CleanPath {
	text := strings.ToLower(strings.ReplaceAll(strings.Join(p.segments, "/"), escapedSlash, "/"))
	var out CleanPath
	for name := range strings.SplitSeq(strings.TrimRight(text, "/"), "/") {
		if !parameters {
			name, _, _ = strings.Cut(name, ";")
		}
		if name != "" || len(out.segments) == 0 {
			out.segments = append(out.segments, name)
		}
	}
	return out
}
