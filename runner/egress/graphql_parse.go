package egress

import (
	"encoding/json"
	"regexp"
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

// graphqlToken: https://spec.graphql.org/October2021/#sec-Language.Source-Text. What is no token is passed over.
var graphqlToken = regexp.MustCompile(`(?s)#[^\r\n]*|"""(?:\\"""|.)*?"""|"(?:\\.|[^"\\\r\n])*"|\$?[A-Za-z_][A-Za-z0-9_]*|[(){}:]`)

func (p *queryParser) parse(query string) {
	var last, name string // the token before, and the name that the value belongs to
	for _, at := range graphqlToken.FindAllStringIndex(query, -1) {
		token := query[at[0]:at[1]]
		switch token[0] {
		case '#':
			continue
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
