package egress

import (
	"encoding/json"
	"strings"
)

// queryParser goes through the tokens of a GraphQL document for the arguments in it, and nothing else: a document that is none has no names.
type queryParser struct {
	variables map[string]any
	found     queryNames
	open      []map[string]string // of each bracket, the texts behind a name and a colon
}

// maxBrackets bounds how deep they are looked into.
const maxBrackets = 200

func (p *queryParser) parse(query string) {
	var last, name string // the token before, and the name that the value belongs to
	for token, rest := nextToken(query); token != ""; token, rest = nextToken(rest) {
		switch token[0] {
		case '(', '{':
			if len(p.open) == maxBrackets {
				return
			}
			p.open = append(p.open, nil)
		case ')', '}':
			p.closed()
		case ':':
			name = last
		case '"':
			text := stringValue(token)
			p.text(text)
			p.argument(last, name, text)
		case '$':
			text, _ := p.variables[token[1:]].(string)
			p.argument(last, name, text)
		}
		last = token
	}
}

// nextToken cuts off the next one that matters (https://spec.graphql.org/October2021/#sec-Language.Source-Text), and passes over comments and
// what is none. It is empty at the end, and at a string that has none: an agent wrote this, and whoever looked for the next string in there, and
// for the end of that, would read to the end of the document from every quote.
func nextToken(query string) (token, rest string) {
	for i := 0; i < len(query); i++ {
		switch c := query[i]; {
		case c == '#':
			end := strings.IndexAny(query[i:], "\r\n")
			if end < 0 {
				return "", ""
			}
			i += end
		case strings.IndexByte("(){}:", c) >= 0:
			return query[i : i+1], query[i+1:]
		case c == '"':
			end := stringEnd(query[i:])
			return query[i : i+end], query[i+end:]
		case c == '$' || isNameByte(c):
			end := i + 1
			for end < len(query) && isNameByte(query[end]) {
				end++
			}
			return query[i:end], query[end:]
		}
	}
	return "", ""
}

// isNameByte takes the digits for letters: a number stands for nothing that is looked for.
func isNameByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// stringEnd is the length of the string that s begins with, 0 if it has no end.
func stringEnd(s string) int {
	quote, stop := `"`, "\r\n"
	if strings.HasPrefix(s, `"""`) {
		quote, stop = `"""`, ""
	}
	for i := len(quote); i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], quote):
			return i + len(quote)
		case quote == `"` && s[i] == '\\':
			i++
		case strings.HasPrefix(s[i:], `\"""`):
			i += len(`"""`)
		case strings.IndexByte(stop, s[i]) >= 0:
			return 0
		}
	}
	return 0
}

// argument notes a text that stands behind a name and a colon.
func (p *queryParser) argument(last, name, text string) {
	if last != ":" || len(p.open) == 0 {
		return
	}
	top := len(p.open) - 1
	if p.open[top] == nil {
		p.open[top] = map[string]string{}
	}
	p.open[top][name] = text
}

func (p *queryParser) closed() {
	if len(p.open) == 0 {
		return
	}
	top := len(p.open) - 1
	p.arguments(p.open[top])
	p.open = p.open[:top]
}

// stringValue is what a string means; its escapes are those of JSON.
func stringValue(token string) (text string) {
	if block, ok := strings.CutPrefix(token, `"""`); ok && len(token) >= 6 {
		return strings.ReplaceAll(strings.TrimSuffix(block, `"""`), `\"""`, `"""`)
	}
	if json.Unmarshal([]byte(token), &text) != nil {
		return ""
	}
	return text
}
