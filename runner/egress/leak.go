package egress

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// A placeholder is of no use to anybody, so one that goes astray does no harm; but it shows that the agent, or something that it has
// read, tries to send the credential elsewhere. The search finds it as it is and within base64, as Basic has it. It does not find
// what is compressed, encrypted or meant to be hidden.

// pattern is one spelling of a credential's placeholder.
type pattern struct {
	name string
	text []byte
}

// patterns are all spellings that are looked for.
func patterns(credentials []Credential, except []*Credential) []pattern {
	var out []pattern
	for i := range credentials {
		c := &credentials[i]
		same := func(o *Credential) bool { return o.Placeholder == c.Placeholder }
		if slices.ContainsFunc(except, same) || slices.ContainsFunc(credentials[:i], func(o Credential) bool { return same(&o) }) {
			continue
		}
		out = append(out, pattern{c.Name, []byte(c.Placeholder)})
		for offset := range 3 {
			core := base64Core(base64.RawStdEncoding, c.Placeholder, offset)
			out = append(out, pattern{c.Name, core})
			if url := base64Core(base64.RawURLEncoding, c.Placeholder, offset); !bytes.Equal(url, core) {
				out = append(out, pattern{c.Name, url})
			}
		}
	}
	return out
}

// base64Core is the part of an encoding that does not depend on what stands before and after, when so many bytes (modulo 3)
// stand before.
func base64Core(encoding *base64.Encoding, s string, offset int) []byte {
	encoded := encoding.EncodeToString([]byte(strings.Repeat("\x00", offset) + s))
	start := []int{0, 2, 3}[offset]
	return []byte(encoded[start : (offset+len(s))*8/6])
}

// scanner looks for the patterns in a stream, across the borders of its pieces. It is for one goroutine.
type scanner struct {
	patterns []pattern
	longest  int
	tail     []byte // the end of what came before, shorter than the longest pattern
}

// newScanner is nil when there is nothing to look for.
func newScanner(patterns []pattern) *scanner {
	if len(patterns) == 0 {
		return nil
	}
	s := &scanner{patterns: patterns}
	for _, p := range patterns {
		s.longest = max(s.longest, len(p.text))
	}
	return s
}

// scan is the name of the credential whose placeholder is complete with p, or empty. A nil scanner finds nothing.
func (s *scanner) scan(p []byte) string {
	if s == nil || len(p) == 0 {
		return ""
	}
	border := append(s.tail, p[:min(len(p), s.longest-1)]...)
	name := find(s.patterns, border)
	if name == "" && len(p) >= s.longest {
		name = find(s.patterns, p)
	}
	if len(p) >= s.longest-1 {
		border = p
	}
	s.tail = append(s.tail[:0:0], border[max(0, len(border)-s.longest+1):]...)
	return name
}

func find(patterns []pattern, text []byte) string {
	for _, p := range patterns {
		if bytes.Contains(text, p.text) {
			return p.name
		}
	}
	return ""
}

// leak is why what holds a placeholder is not passed on.
func leak(name string) *end {
	e := refuse(CodeLeak, fmt.Sprintf("the placeholder of the credential %s was on its way to a place where the credential is never attached", name))
	e.leak = name
	return e
}

// scanHead looks through a request's target and headers.
func scanHead(patterns []pattern, target string, header http.Header) *end {
	if len(patterns) == 0 {
		return nil
	}
	var b bytes.Buffer
	b.WriteString(target)
	for _, values := range header {
		for _, v := range values {
			b.WriteByte('\n')
			b.WriteString(v)
		}
	}
	if name := find(patterns, b.Bytes()); name != "" {
		return leak(name)
	}
	return nil
}
