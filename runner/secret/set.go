package secret

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Set is what is looked for in texts, to be replaced: secrets in every spelling that a program may give them. Those are the text as
// it is, base64 of either alphabet wherever it begins (so also "user:secret" of Basic authentication), hexadecimal, the escapes of URLs
// and of JSON. Lines of base64 and hexadecimal may be broken once within any 32 characters. What is compressed, encrypted or
// otherwise meant to be hidden is not found: against that stands that secrets are not inside.
//
// The zero Set is empty and costs nothing. It is safe for concurrent use.
type Set struct {
	index atomic.Pointer[index]

	mu   sync.Mutex // guards what follows
	have map[string]bool
	all  []needle
}

// Add puts a secret into the set. Texts are redacted from then on: "[redacted:NAME]" stands for it. It is false for
// one that is shorter than MinLength.
func (s *Set) Add(name string, v Value) bool {
	return s.add(v, func(text string) []needle { return needles(name, text, "[redacted:"+name+"]") })
}

// Swap is Add for texts whose length must not change: a placeholder of the secret's length stands for it, in the same spelling.
func (s *Set) Swap(name string, v Value, placeholder string) bool {
	return s.add(v, func(text string) []needle { return swaps(name, text, placeholder) })
}

func (s *Set) add(v Value, spell func(text string) []needle) bool {
	text := v.Reveal()
	if len(text) < MinLength {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have[text] {
		return true
	}
	if s.have == nil {
		s.have = map[string]bool{}
	}
	s.have[text] = true
	s.all = append(s.all, spell(text)...)
	s.index.Store(newIndex(s.all[:len(s.all):len(s.all)]))
	return true
}

// IsEmpty tells whether there is nothing to look for.
func (s *Set) IsEmpty() bool { return s == nil || s.index.Load() == nil }

// Redact replaces what is in a text that is whole. found, which may be nil, is told the name of each secret.
func (s *Set) Redact(text string, found func(name string)) string {
	if s.IsEmpty() || len(text) < MinLength {
		return text
	}
	x := s.index.Load()
	spans := x.find([]byte(text))
	if len(spans) == 0 {
		return text
	}
	var b strings.Builder
	done := 0
	for _, at := range spans {
		n := &x.needles[at.needle]
		if at.start >= done {
			b.WriteString(text[done:at.start])
			b.WriteString(n.by)
			if found != nil {
				found(n.name)
			}
		}
		done = max(done, at.end)
	}
	b.WriteString(text[done:])
	return b.String()
}

// Find is the names of the secrets in a text, each as often as it is there.
func (s *Set) Find(text string) []string {
	var names []string
	s.Redact(text, func(name string) { names = append(names, name) })
	return names
}
