package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// HTTPRule allows or denies requests by method and path: "GET /repos/acme/shop/**". It is parsed once by [ParseHTTPRule];
// the zero HTTPRule matches nothing.
//
// "*" for the method is any method. In the path "*" is any characters of one segment, at least one when it is the
// whole segment and never an encoded slash; "**" is any number of segments, also none. The query is not looked at.
type HTTPRule struct {
	text   string
	method string
	path   []pathPart
}

// pathPart matches one segment, or any number of them.
type pathPart struct {
	deep   bool
	pieces []string // the literals between the stars; one piece means no star
}

const maxHTTPRuleLength = 1000

// ParseHTTPRule parses "METHOD /path". The error says what is wrong with it, without repeating it.
func ParseHTTPRule(s string) (HTTPRule, error) {
	method, path, found := strings.Cut(s, " ")
	switch {
	case len(s) > maxHTTPRuleLength:
		return HTTPRule{}, fmt.Errorf("a rule has at most %d characters", maxHTTPRuleLength)
	case !found || method == "":
		return HTTPRule{}, errors.New(`a rule is a method, a blank and a path, such as "GET /v1/**"`)
	case method != "*" && !isMethod(method):
		return HTTPRule{}, errors.New(`the method is in capital letters, or "*" for any`)
	case method == "CONNECT" || method == "TRACE":
		return HTTPRule{}, fmt.Errorf("%s is never passed on", method)
	}
	parts, err := parsePathParts(path)
	if err != nil {
		return HTTPRule{}, err
	}
	return HTTPRule{text: s, method: method, path: parts}, nil
}

func parsePathParts(path string) ([]pathPart, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, errors.New(`the path starts with "/"`)
	}
	if strings.ContainsAny(path, "?#") {
		return nil, errors.New("a rule has no query: it is not looked at")
	}
	var parts []pathPart
	var segments []string
	for raw := range strings.SplitSeq(path[1:], "/") {
		if raw == "**" {
			parts = append(parts, pathPart{deep: true})
			segments = append(segments, raw)
			continue
		}
		if strings.Contains(raw, "**") {
			return nil, errors.New(`"**" must be a whole segment between slashes`)
		}
		var pieces []string
		for piece := range strings.SplitSeq(raw, "*") {
			clean, err := cleanSegment(piece)
			if err != nil {
				return nil, err
			}
			pieces = append(pieces, clean)
		}
		parts = append(parts, pathPart{pieces: pieces})
		segments = append(segments, strings.Join(pieces, "*"))
	}
	return parts, checkSegments(segments)
}

// isMethod reports a method token in the only form that all servers read alike.
func isMethod(s string) bool {
	return s != "" && len(s) <= 20 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == "" && s[0] != '-'
}

// String is the rule as it was written.
func (r HTTPRule) String() string { return r.text }

// MarshalText is [HTTPRule.String].
func (r HTTPRule) MarshalText() ([]byte, error) { return []byte(r.text), nil }

// Equal reports whether both were written alike.
func (r HTTPRule) Equal(o HTTPRule) bool { return r.text == o.text }

// Match reports whether the rule takes in this request.
func (r HTTPRule) Match(method string, path CleanPath) bool {
	return r.method != "" && (r.method == "*" || r.method == method) && matchPath(r.path, path.segments)
}

// matchDenied is Match for a deny rule: the path is also taken as the more forgiving servers would read it.
func (r HTTPRule) matchDenied(method string, path CleanPath) bool {
	if r.Match(method, path) {
		return true
	}
	low := r.lenient()
	return low.Match(method, path.lenient(true)) || low.Match(method, path.lenient(false))
}

// lenient is the rule for a path that went through [CleanPath.lenient]: an encoded slash in it separates as well.
func (r HTTPRule) lenient() HTTPRule {
	lower := HTTPRule{method: r.method}
	for i, part := range r.path {
		if !part.deep && len(part.pieces) == 1 && part.pieces[0] == "" && i > 0 {
			continue // a slash at the end
		}
		lower.path = append(lower.path, part.lenient()...)
	}
	return lower
}

func (p pathPart) lenient() []pathPart {
	if p.deep {
		return []pathPart{p}
	}
	parts := []pathPart{{}}
	for _, piece := range p.pieces {
		for i, name := range strings.Split(strings.ToLower(piece), escapedSlash) {
			if i > 0 {
				parts = append(parts, pathPart{})
			}
			last := &parts[len(parts)-1]
			last.pieces = append(last.pieces, name)
		}
	}
	return parts
}

// matchPath goes back to the last "**" only, as matchParts does.
func matchPath(parts []pathPart, segments []string) bool {
	i, j := 0, 0
	backPart, backSegment := -1, 0
	for j < len(segments) {
		switch {
		case i < len(parts) && parts[i].deep:
			backPart, backSegment = i, j
			i++
		case i < len(parts) && parts[i].match(segments[j]):
			i++
			j++
		case backPart >= 0:
			backSegment++
			i, j = backPart+1, backSegment
		default:
			return false
		}
	}
	return len(segments) > 0 && !slices.ContainsFunc(parts[i:], func(p pathPart) bool { return !p.deep })
}

func (p pathPart) match(segment string) bool {
	if len(p.pieces) == 1 {
		return p.pieces[0] == segment
	}
	if segment == "" || strings.Count(segment, escapedSlash) != strings.Count(strings.Join(p.pieces, "*"), escapedSlash) {
		return false // a star that took an encoded slash would reach below its segment on servers that decode it
	}
	first, last := p.pieces[0], p.pieces[len(p.pieces)-1]
	if len(segment) < len(first)+len(last) || !strings.HasPrefix(segment, first) || !strings.HasSuffix(segment, last) {
		return false
	}
	rest := segment[len(first) : len(segment)-len(last)]
	for _, piece := range p.pieces[1 : len(p.pieces)-1] {
		at := strings.Index(rest, piece)
		if at < 0 {
			return false
		}
		rest = rest[at+len(piece):]
	}
	return true
}

// covers reports whether the rule takes in everything that o does. It may say no where the answer is yes, never the
// other way round.
func (r HTTPRule) covers(o HTTPRule) bool {
	return r.method != "" && (r.method == "*" || r.method == o.method) && coversPath(r.path, o.path)
}

// coversPath matches the parts of one pattern as if they were the segments of a path: a "**" is taken by a "**" only.
// row[j] says whether the parts so far cover other[:j].
func coversPath(parts, other []pathPart) bool {
	row := make([]bool, len(other)+1)
	row[0] = true
	for _, part := range parts {
		next := make([]bool, len(other)+1)
		next[0] = part.deep && row[0]
		for j := range other {
			if part.deep {
				next[j+1] = next[j] || row[j+1]
			} else {
				next[j+1] = row[j] && part.covers(other[j])
			}
		}
		row = next
	}
	return row[len(other)]
}

func (p pathPart) covers(o pathPart) bool {
	switch {
	case o.deep:
		return false
	case slices.Equal(p.pieces, o.pieces):
		return true
	case len(o.pieces) == 1:
		return p.match(o.pieces[0])
	}
	return slices.Equal(p.pieces, []string{"", ""}) && !strings.Contains(strings.Join(o.pieces, "*"), escapedSlash)
}
