package policy

import (
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	for s, want := range map[string]string{
		"/":                "/",
		"/a/b":             "/a/b",
		"/a/":              "/a/",
		"/%61%2D%7e":       "/a-~",
		"/a%2fb":           "/a%2Fb",
		"/@scope%2fname":   "/@scope%2Fname",
		"/%40scope%2fname": "/@scope%2Fname",
		"/a%20b":           "/a%20b",
		"/caf%c3%a9":       "/caf%C3%A9",
		"/café":            "/caf%C3%A9",
		"/100%25":          "/100%25",
		"/%25zz":           "/%25zz",
		"/a;v=1/b":         "/a;v=1/b",
		"/...":             "/...",
		"/.":               "/",
		"/./":              "/",
		"/a/./b":           "/a/b",
		"/a/././.":         "/a/",
		"/.well-known/x":   "/.well-known/x",
		"/a..b/..c/d..":    "/a..b/..c/d..",
		"/x%3Fy%23z":       "/x%3Fy%23z",
		`/"<>`:             "/%22%3C%3E",
		"/%2A*":            "/**",
	} {
		p, err := ParsePath(s)
		if err != nil || p.String() != want {
			t.Errorf("ParsePath(%q) = %q, %v; want %q", s, p, err, want)
		}
	}
	for _, s := range []string{
		"", "a", "*", "http://x/", "/a?b", "/a#b", "/..", "/a/../b", "/a/./../b", "/a/.//b", "/a/.%2f", "/a/..", "/%2e", "/%2E%2e/a", "/.%2e/a", "/%2e./a", "/a%2F../b", "/a%2f..%2fb", "/..%2fa", "/a/..;/b", "/..;x=1", "/.;/a", "/..%3b/a",
		"//", "//a", "/a//b", "/a//", `/a\b`, "/a%5cb", "/a\x00", "/%00", "/a%0d%0aX", "/a b", "/a\tb", "/\x7f", "/%", "/%2", "/%zz", "/%252e", "/%252E%252e", "/%252f", "/%255c", "/%2500", "/%25252e", "/%253b", "/" + strings.Repeat("a", maxPathLength),
	} {
		if p, err := ParsePath(s); err == nil {
			t.Errorf("ParsePath(%q) = %q, want an error", s, p)
		}
	}
}

func TestHTTPRuleMatch(t *testing.T) {
	tests := []struct {
		rule, method, path string
		want               bool
	}{
		{"GET /", "GET", "/", true},
		{"GET /", "GET", "/a", false},
		{"GET /a", "POST", "/a", false},
		{"GET /a", "HEAD", "/a", false},
		{"* /a", "PATCH", "/a", true},
		{"GET /a", "GET", "/A", false},
		{"GET /a", "GET", "/a/", false},
		{"GET /a/*", "GET", "/a/b", true},
		{"GET /a/*", "GET", "/a/", false},
		{"GET /a/*", "GET", "/a/b/c", false},
		{"GET /a/*", "GET", "/a/b%2Fc", false},
		{"GET /a/b*d", "GET", "/a/bcd", true},
		{"GET /a/b*d", "GET", "/a/bd", true},
		{"GET /a/*.tgz", "GET", "/a/x.tgz", true},
		{"GET /a/**", "GET", "/a", true},
		{"GET /a/**", "GET", "/a/", true},
		{"GET /a/**", "GET", "/a/b/c%2Fd", true},
		{"GET /a/**", "GET", "/ab", false},
		{"GET /a/**", "GET", "/a%2Fb", false},
		{"GET /**/c", "GET", "/c", true},
		{"GET /**/c", "GET", "/a/b/c", true},
		{"GET /**/c", "GET", "/a/b/d", false},
		{"GET /a/*/c/**/e", "GET", "/a/b/c/x/y/e", true},
		{"GET /**", "GET", "/", true},
		{"GET /@*%2F*", "GET", "/@acme%2fshop", true},
		{"GET /@*%2F*", "GET", "/@acme%2fshop%2fx", false},
		{"GET /@*%2f*", "GET", "/%40acme%2Fshop", true},
		{"GET /a%2Fb", "GET", "/a/b", false},
		{"GET /a%20b", "GET", "/a%20b", true},
		{"GET /%2A", "GET", "/*", true},
		{"GET /%2A", "GET", "/x", false},
		{"GET /a*3", "GET", "/a%C3", false}, // half of an escape is not a character
		{"GET /a*F", "GET", "/a%2F", false},
	}
	for _, tt := range tests {
		r, err := ParseHTTPRule(tt.rule)
		if err != nil {
			t.Errorf("ParseHTTPRule(%q): %v", tt.rule, err)
			continue
		}
		p, err := ParsePath(tt.path)
		if err != nil {
			t.Errorf("ParsePath(%q): %v", tt.path, err)
			continue
		}
		if got := r.Match(tt.method, p); got != tt.want {
			t.Errorf("%q matches %s %s = %v, want %v", tt.rule, tt.method, tt.path, got, tt.want)
		}
	}
	if (HTTPRule{}).Match("", CleanPath{}) {
		t.Error("the zero rule matches the zero path")
	}
	root, _ := ParseHTTPRule("* /**")
	if root.Match("GET", CleanPath{}) {
		t.Error("a rule matches the zero path")
	}
}

// referenceRule is the path of a rule as a regular expression over paths that a server has decoded completely.
func referenceRule(t *testing.T, rulePath string) *regexp.Regexp {
	t.Helper()
	expression := ""
	for _, segment := range strings.Split(strings.TrimPrefix(rulePath, "/"), "/") {
		switch segment {
		case "**":
			expression += `(?:/[^/]*)*`
		case "*":
			expression += `/[^/]+`
		default:
			expression += "/"
			for i, piece := range strings.Split(segment, "*") {
				if i > 0 {
					expression += `[^/]*`
				}
				decoded, err := url.PathUnescape(piece)
				if err != nil {
					t.Fatalf("%q was accepted: %v", rulePath, err)
				}
				expression += regexp.QuoteMeta(latin1(decoded))
			}
		}
	}
	return regexp.MustCompile(`(?s)\A(?:` + expression + `)\z`)
}

// latin1 makes every byte a character, since paths are bytes.
func latin1(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.WriteRune(rune(c))
	}
	return b.String()
}

// FuzzHTTPRule: a request that a rule takes in is, decoded as a server would, inside the rule's pattern too.
func FuzzHTTPRule(f *testing.F) {
	for _, s := range []string{"/a/*|/a/b", "/a/*|/a/.", "/a/*|/./a/./b", "/a/**|/a/../b", "/@*%2F*|/@x%2fy", "/**/c|/a%2fc", "/a*3|/a%C3", "/x;y|/x%3by", "/%2A|/*", "/a/*/c|/a/%62/c"} {
		rule, target, _ := strings.Cut(s, "|")
		f.Add(rule, target)
	}
	f.Fuzz(func(t *testing.T, rulePath, target string) {
		rule, err := ParseHTTPRule("GET " + rulePath)
		if err != nil {
			return
		}
		p, err := ParsePath(target)
		if err != nil {
			return
		}
		asked, err := url.PathUnescape(target)
		if err != nil {
			t.Fatalf("ParsePath(%q) accepts what can't be decoded", target)
		}
		decoded, err := url.PathUnescape(p.String()) // what is sent
		if err != nil {
			t.Fatalf("ParsePath(%q) = %q, which can't be decoded", target, p)
		}
		if clean := path.Clean(asked); strings.TrimSuffix(decoded, "/") != strings.TrimSuffix(clean, "/") && !strings.Contains(target, "%2") {
			t.Errorf("ParsePath(%q) = %q: a server reads %q", target, p, clean)
		}
		again, err := ParsePath(p.String())
		if err != nil || again.String() != p.String() {
			t.Errorf("ParsePath(%q) = %q, and that gives %q, %v", target, p, again, err)
		}
		if rule.Match("GET", p) && !referenceRule(t, rulePath).MatchString(latin1(decoded)) {
			t.Errorf("%q takes in %q", rulePath, target)
		}
		if rule.Match("GET", p) && !rule.matchDenied("GET", p) {
			t.Errorf("%q would allow %q but not deny it", rulePath, target)
		}
	})
}

// FuzzHTTPRuleCovers: what the narrower rule takes in, the wider does too.
func FuzzHTTPRuleCovers(f *testing.F) {
	for _, s := range []string{"/a/**|/a/*/b|/a/x/b", "/**|/a|/a", "/a/*|/a/b*|/a/bc", "/a/b*|/a/bc*|/a/bcd", "/**/a/**/b|/a/**/b|/a/b", "/*|/%2F*|/%2Fx"} {
		parts := strings.Split(s, "|")
		f.Add(parts[0], parts[1], parts[2])
	}
	f.Fuzz(func(t *testing.T, wide, narrow, target string) {
		w, err1 := ParseHTTPRule("* " + wide)
		n, err2 := ParseHTTPRule("GET " + narrow)
		p, err3 := ParsePath(target)
		if err1 != nil || err2 != nil || err3 != nil {
			return
		}
		if w.covers(n) && n.Match("GET", p) && !w.Match("GET", p) {
			t.Errorf("%q covers %q, but not for %q", wide, narrow, target)
		}
		if !n.covers(n) {
			t.Errorf("%q does not cover itself", narrow)
		}
	})
}
