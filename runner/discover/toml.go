package discover

import "strings"

// tomlSites finds the addresses among the strings of a TOML file that are set at a path that want takes. It reads as much of
// TOML as configuration files use: tables, dotted keys, strings, arrays and inline tables. Multi-line strings and all
// other values are passed over, and what is no TOML ends the reading.
func tomlSites(text string, want func(path []string) bool) []site {
	var found sites
	t := &toml{text: text, line: 1}
	t.emit = func(path []string, value string, line int) {
		if want(path) {
			found.add(value, "", line)
		}
	}
	t.document()
	return found
}

// toml reads https://toml.io/en/v1.0.0 from left to right.
type toml struct {
	text string // what is left
	line int
	emit func(path []string, value string, line int)
}

// skip drops n bytes.
func (t *toml) skip(n int) {
	t.line += strings.Count(t.text[:n], "\n")
	t.text = t.text[n:]
}

// space drops white space and comments; newlines as well if there may be some.
func (t *toml) space(newlines bool) {
	for t.text != "" {
		switch c := t.text[0]; {
		case c == ' ' || c == '\t' || newlines && (c == '\n' || c == '\r'):
			t.skip(1)
		case c == '#':
			t.skip(indexAny(t.text, "\n"))
		default:
			return
		}
	}
}

// take drops the byte that must come next.
func (t *toml) take(c byte) bool {
	if t.text == "" || t.text[0] != c {
		return false
	}
	t.skip(1)
	return true
}

func (t *toml) document() {
	var table []string
	for {
		t.space(true)
		switch {
		case t.text == "":
			return
		case t.text[0] == '[':
			var ok bool
			if table, ok = t.header(); !ok {
				return
			}
		default:
			if !t.pair(table, 0) {
				return
			}
		}
	}
}

// header reads [a.b] or [[a.b]].
func (t *toml) header() ([]string, bool) {
	t.take('[')
	array := t.take('[')
	path, ok := t.key()
	if !ok || !t.take(']') || array && !t.take(']') {
		return nil, false
	}
	return path, true
}

// key reads a dotted key.
func (t *toml) key() ([]string, bool) {
	var path []string
	for len(path) < maxDepth {
		t.space(false)
		var word string
		if t.text != "" && (t.text[0] == '"' || t.text[0] == '\'') {
			var ok bool
			if word, ok = t.quoted(); !ok {
				return nil, false
			}
		} else {
			n := 0
			for n < len(t.text) && isBare(t.text[n]) {
				n++
			}
			if n == 0 {
				return nil, false
			}
			word = t.text[:n]
			t.skip(n)
		}
		path = append(path, word)
		t.space(false)
		if !t.take('.') {
			return path, true
		}
	}
	return nil, false
}

func isBare(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// pair reads key = value.
func (t *toml) pair(table []string, depth int) bool {
	key, ok := t.key()
	if !ok || !t.take('=') {
		return false
	}
	path := append(append([]string{}, table...), key...)
	return t.value(path, depth+1)
}

func (t *toml) value(path []string, depth int) bool {
	if depth > maxDepth || len(path) > maxDepth {
		return false
	}
	t.space(false)
	if t.text == "" {
		return false
	}
	switch c := t.text[0]; c {
	case '"', '\'':
		if triple := strings.Repeat(string(c), 3); strings.HasPrefix(t.text, triple) {
			return t.multiline(triple)
		}
		line := t.line
		s, ok := t.quoted()
		if ok {
			t.emit(path, s, line)
		}
		return ok
	case '[':
		return t.list(']', func() bool { return t.value(path, depth+1) })
	case '{':
		return t.list('}', func() bool { return t.pair(path, depth+1) })
	}
	n := indexAny(t.text, ",]}#\n")
	t.skip(n)
	return n > 0
}

// list reads what item reads, between commas, up to the end.
func (t *toml) list(end byte, item func() bool) bool {
	t.skip(1)
	for {
		t.space(true)
		if t.take(end) {
			return true
		}
		if !item() {
			return false
		}
		t.space(true)
		if !t.take(',') {
			return t.take(end)
		}
	}
}

// quoted reads a string of one line. One with escapes is read as it stands, which makes no address of it.
func (t *toml) quoted() (string, bool) {
	quote := t.text[0]
	for i := 1; i < len(t.text); i++ {
		switch c := t.text[i]; {
		case c == '\n':
			return "", false
		case c == '\\' && quote == '"':
			i++
		case c == quote:
			s := t.text[1:i]
			t.skip(i + 1)
			return s, true
		}
	}
	return "", false
}

// multiline passes over a string of several lines.
func (t *toml) multiline(quote string) bool {
	for i := len(quote); i < len(t.text); i++ {
		switch {
		case t.text[i] == '\\' && quote[0] == '"':
			i++
		case strings.HasPrefix(t.text[i:], quote):
			for i += len(quote); i < len(t.text) && t.text[i] == quote[0]; i++ { // quotes before the closing ones
			}
			t.skip(i)
			return true
		}
	}
	return false
}
