package secret

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// encoding is one of the ways in which a text may be spelled where it is met.
type encoding struct {
	encode func(string) string
	wraps  bool // programs break its lines: `base64` does after 76 characters
}

// encodings are all that are looked for. Each value has all of them; those that come to the same count once.
func encodings() []encoding {
	all := []encoding{
		{encode: func(s string) string { return s }},
		{encode: func(s string) string { return hex.EncodeToString([]byte(s)) }, wraps: true},
		{encode: func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }, wraps: true},
	}
	// Padding is not part of what is looked for, and the form of Basic authentication is base64 with something before it.
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for offset := range 3 {
			all = append(all, encoding{encode: func(s string) string { return base64Core(alphabet, s, offset) }, wraps: true})
		}
	}
	digits := regexp.MustCompile(`%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}`)
	for _, escape := range []func(string) string{
		url.QueryEscape, url.PathEscape, componentEscape, each("%%%02x"), // URLs
		quoted(true), quoted(false), slashes, each(`\u%04x`), // JSON
	} {
		all = append(all, encoding{encode: escape}, encoding{encode: func(s string) string { return otherCase(digits, escape(s)) }})
	}
	return all
}

// base64Core is the part of an encoding that does not depend on what stands before and after, when so many bytes (modulo 3)
// stand before.
func base64Core(alphabet *base64.Encoding, s string, offset int) string {
	encoded := alphabet.EncodeToString([]byte(strings.Repeat("\x00", offset) + s))
	return encoded[[]int{0, 2, 3}[offset] : (offset+len(s))*8/6]
}

// componentEscape is JavaScript's encodeURIComponent, which leaves !'()* and knows no plus sign.
func componentEscape(s string) string {
	return strings.NewReplacer("+", "%20", "%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").Replace(url.QueryEscape(s))
}

// each writes every byte in this way.
func each(format string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, format, c)
		}
		return b.String()
	}
}

// quoted is the inside of a JSON string, with or without the escapes that HTML would need.
func quoted(html bool) func(string) string {
	return func(s string) string {
		if !utf8.ValidString(s) { // it would not come out as it went in
			return s
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(html)
		if err := e.Encode(s); err != nil {
			panic(fmt.Sprintf("secret: bug: encode a string: %v", err))
		}
		return b.String()[1 : b.Len()-len("\"\n")]
	}
}

// slashes is JSON as PHP and others write it.
func slashes(s string) string { return strings.ReplaceAll(quoted(false)(s), "/", `\/`) }

// otherCase writes the digits of the escapes in the other case: %2f for %2F, and the other way round.
func otherCase(escape *regexp.Regexp, s string) string {
	return escape.ReplaceAllStringFunc(s, func(e string) string {
		start := len(e) - 2
		if e[0] == '\\' {
			start = 2
		}
		if upper := e[:start] + strings.ToUpper(e[start:]); upper != e {
			return upper
		}
		return e[:start] + strings.ToLower(e[start:])
	})
}

// needle is one spelling of one value, and what is put in its place.
type needle struct {
	name, text, by string
	wraps          bool
	sized          bool // by has the length of text
}

// needles are the spellings of a value, to be replaced by a mark.
func needles(name, text, mark string) []needle {
	var all []needle
	seen := map[string]bool{}
	for _, e := range encodings() {
		if spelled := e.encode(text); !seen[spelled] && len(spelled) >= MinLength {
			seen[spelled] = true
			all = append(all, needle{name: name, text: spelled, by: mark, wraps: e.wraps})
		}
	}
	return all
}

// swaps are those that another text of the same length has too, to be replaced by the like spelling of that. Breaks would not
// survive that, so there are none.
func swaps(name, text, placeholder string) []needle {
	var all []needle
	seen := map[string]bool{}
	for _, e := range encodings() {
		spelled, by := e.encode(text), e.encode(placeholder)
		if !seen[spelled] && len(spelled) == len(by) && len(spelled) >= MinLength {
			seen[spelled] = true
			all = append(all, needle{name: name, text: spelled, by: by, sized: true})
		}
	}
	return all
}

// follow compares text from i on with the needle. It is whole up to end, or open: text ended too early to tell.
func (n *needle) follow(text []byte, i int) (end int, whole, open bool) {
	if !n.wraps {
		rest := text[i:]
		if len(rest) >= len(n.text) {
			return i + len(n.text), string(rest[:len(n.text)]) == n.text, false
		}
		return 0, false, n.text[:len(rest)] == string(rest)
	}
	for k := range len(n.text) {
		if k > 0 {
			i = pastBreak(text, i)
		}
		switch {
		case i >= len(text):
			return 0, false, true
		case text[i] != n.text[k]:
			return 0, false, false
		}
		i++
	}
	return i, true, false
}

// pastBreak skips one end of a line, as it is in files and on terminals.
func pastBreak(text []byte, i int) int {
	if i < len(text) && text[i] == '\r' {
		i++
	}
	if i < len(text) && text[i] == '\n' {
		i++
	}
	return i
}

// back is where the needle begins whose byte number k stands at text[at].
func (n *needle) back(text []byte, at, k int) (start int, ok bool) {
	for k > 0 {
		if n.wraps && at > 0 && text[at-1] == '\n' {
			at--
		}
		if n.wraps && at > 0 && text[at-1] == '\r' {
			at--
		}
		if at == 0 || text[at-1] != n.text[k-1] {
			return 0, false
		}
		at--
		k--
	}
	return at, true
}

// reach is how many bytes of text a match can take.
func (n *needle) reach() int {
	if n.wraps {
		return 3 * len(n.text) // a break of two bytes behind each
	}
	return len(n.text)
}
