package policy

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPatternMatch(t *testing.T) {
	tests := []struct {
		pattern, path string
		dir, want     bool
	}{
		{".env", ".env", false, true},
		{".env", "a/b/.env", false, true},
		{".env", ".env.local", false, false},
		{".env", "a.env", false, false},
		{".env.*", ".env.local", false, true},
		{".env.*", ".env", false, false},
		{"*.pem", "x/y/z.pem", false, true},
		{"*.pem", ".pem", false, true},
		{"*.PEM", "x.pem", false, true},
		{"id_rsa", "ID_RSA", false, true},
		{"K", "\u212a", false, true}, // the Kelvin sign is K on a case-insensitive file system
		{"/a", "a", false, true},
		{"/a", "b/a", false, false},
		{"a/b", "a/b", false, true},
		{"a/b", "x/a/b", false, false},
		{"**/a/b", "a/b", false, true},
		{"**/a/b", "x/y/a/b", false, true},
		{"a/**", "a", true, false},
		{"a/**", "a/b/c", false, true},
		{"a/**/b", "a/b", false, true},
		{"a/**/b", "a/x/y/b", false, true},
		{"a/**/b", "a/x/y/c", false, false},
		{"**", "anything/at/all", false, true},
		{"build/", "build", true, true},
		{"build/", "build", false, false},
		{"build/", "x/build", true, true},
		{"a?c", "abc", false, true},
		{"a?c", "a/c", false, false},
		{"a*c", "a/c", false, false},
		{"a*c", "ac", false, true},
		{"[a-c]x", "Bx", false, true},
		{"[!a-c]x", "bx", false, false},
		{"[!a-c]x", "dx", false, true},
		{"[]a]", "]", false, true},
		{"[a-]", "-", false, true},
		{`[\]]`, "]", false, true},
		{`\!a`, "!a", false, true},
		{`\*`, "*", false, true},
		{`\*`, "x", false, false},
		{"!a", "a", false, true}, // Match leaves the negation aside
		{"*", "\xff\xfe", false, true},
		{"?", "\xff", false, true},
		{"[!a]", "\xff", false, true},
		{"\ufffd", "\xff", false, false},
		{"a", "", false, false},
		{"**", ".", true, false},
		{"né", "NÉ", false, true},
	}
	for _, tt := range tests {
		p, err := ParsePattern(tt.pattern)
		if err != nil {
			t.Errorf("ParsePattern(%q): %v", tt.pattern, err)
			continue
		}
		if got := p.Match(tt.path, tt.dir); got != tt.want {
			t.Errorf("Pattern(%q).Match(%q, %v) = %v, want %v", tt.pattern, tt.path, tt.dir, got, tt.want)
		}
		if p.String() != tt.pattern {
			t.Errorf("Pattern(%q).String() = %q", tt.pattern, p)
		}
	}
	if (Pattern{}).Match("a", false) {
		t.Error("the zero Pattern matches")
	}
}

func TestPatternSet(t *testing.T) {
	set := func(texts ...string) *PatternSet {
		var patterns []Pattern
		for _, s := range texts {
			patterns = append(patterns, mustPattern(s))
		}
		return NewPatternSet(patterns)
	}
	tests := []struct {
		set  *PatternSet
		path string
		want bool
	}{
		{set(".env.*", "!.env.example"), ".env.local", true},
		{set(".env.*", "!.env.example"), "a/.env.example", false},
		{set("!.env.example", ".env.*"), ".env.example", true},
		{set("secrets/", "!secrets/ok"), "secrets/ok", true}, // nothing below a hidden directory comes back
		{set("secrets/*", "!secrets/ok"), "secrets/ok", false},
		{set("*.pem", "!test.pem", "/x/"), "x/test.pem", true},
		{set("a/**/b.pem"), "a/c/b.pem", true},
		{set("a/**/*.pem"), "a/c/b.pem", true},
		{set("a/**/*.pem"), "b/c/b.pem", false},
		{set("*.tar.gz"), "x.tar.gz", true},
		{set("x*"), "d/xy", true},
		{set(), "a", false},
		{nil, "a", false},
	}
	for _, tt := range tests {
		if got := tt.set.Match(tt.path, false); got != tt.want {
			t.Errorf("Match(%q) = %v, want %v (%+v)", tt.path, got, tt.want, tt.set)
		}
	}
}

func TestDefaultHide(t *testing.T) {
	set := NewPatternSet(DefaultHide())
	for _, path := range []string{
		".env", ".ENV", "services/api/.env.production", "prod.env", "tls/server.pem", "a.key", "id_rsa", "home/.ssh/id_ed25519", ".aws/credentials",
		".netrc", ".git-credentials", "x.p12", "app.jks", "terraform.tfstate", "terraform.tfstate.backup", ".kube/config", "service-account-prod.json",
	} {
		if !set.Match(path, false) {
			t.Errorf("%s is not hidden", path)
		}
	}
	for _, path := range []string{
		".env.example", "a/.env.sample", ".env.local.example", "example.env", ".envrc", "env", "environment.go", "id_rsa.pub", "cert.crt", "monkey", "keyboard.go",
		".npmrc", "package.json", "main.tf", ".git/config", "src/key.go", "config.json",
	} {
		if set.Match(path, false) {
			t.Errorf("%s is hidden", path)
		}
	}
}

// referencePattern is the pattern as a regular expression, made without any code of the matcher.
func referencePattern(s string) *regexp.Regexp {
	s = strings.TrimPrefix(s, "!")
	if len(s) > 1 {
		s = strings.TrimSuffix(s, "/")
	}
	expression := ""
	if !strings.Contains(s, "/") {
		expression = `(?:[^/]+/)*`
	}
	names := strings.Split(strings.TrimPrefix(s, "/"), "/")
	for i, name := range names {
		last := i == len(names)-1
		if name == "**" {
			expression += `(?:[^/]+/)*`
			if last {
				expression += `[^/]+`
			}
			continue
		}
		expression += referenceName(name)
		if !last {
			expression += "/"
		}
	}
	return regexp.MustCompile(`(?is)\A(?:` + expression + `)\z`)
}

func referenceName(name string) string {
	out := ""
	runes := []rune(name)
	for i := 0; i < len(runes); i++ {
		switch runes[i] {
		case '*':
			out += `[^/]*`
		case '?':
			out += `[^/]`
		case '\\':
			i++
			out += regexp.QuoteMeta(string(runes[i]))
		case '[':
			class, next := referenceClass(runes, i+1)
			out += class
			i = next
		default:
			out += regexp.QuoteMeta(string(runes[i]))
		}
	}
	return out
}

// referenceClass lists the class as \x{..} alternatives and ranges.
func referenceClass(runes []rune, i int) (string, int) {
	out := "["
	if runes[i] == '!' || runes[i] == '^' {
		out += "^"
		i++
	}
	one := func() rune {
		if runes[i] == '\\' {
			i++
		}
		r := runes[i]
		i++
		return r
	}
	for first := true; first || runes[i] != ']'; first = false {
		low := one()
		high := low
		if runes[i] == '-' && runes[i+1] != ']' {
			i++
			high = one()
		}
		out += fmt.Sprintf(`\x{%x}-\x{%x}`, low, high)
	}
	return out + "]", i
}

// FuzzPattern holds the matcher against the regular expression, and the set against its definition.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"*.pem|a/b.pem", "a/**/b|a/x/b", "[a-c]?*|bcd", `\*\[|*[`, "**|a/b", "/x/**|x/y/z", "a*b*c*d|aXbXcXd", "!.env.*|.env.x", "[]-a]|^", "K*|\u212a", "build/|x/build"} {
		pattern, path, _ := strings.Cut(s, "|")
		f.Add(pattern, path, true)
	}
	f.Fuzz(func(t *testing.T, pattern, path string, dir bool) {
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		if !utf8.ValidString(path) || path == "" || path == "." || strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.Contains(path, "//") {
			p.Match(path, dir) // must not panic
			return
		}
		want := referencePattern(pattern).MatchString(path) && (dir || !p.dirOnly)
		if got := p.Match(path, dir); got != want {
			t.Errorf("Pattern(%q).Match(%q, %v) = %v, reference %v", pattern, path, dir, got, want)
		}
		patterns := append(DefaultHide(), p)
		if got, want := NewPatternSet(patterns).Match(path, dir), referenceSet(patterns, path, dir); got != want {
			t.Errorf("set with %q: Match(%q, %v) = %v, reference %v", pattern, path, dir, got, want)
		}
	})
}

func referenceSet(patterns []Pattern, path string, dir bool) bool {
	names := strings.Split(path, "/")
	for i := range names {
		in := false
		for _, p := range patterns {
			if p.Match(strings.Join(names[:i+1], "/"), dir || i < len(names)-1) {
				in = !p.Negated()
			}
		}
		if in {
			return true
		}
	}
	return false
}

// TestPatternIsLinear runs the patterns that make a backtracking matcher exponential.
func TestPatternIsLinear(t *testing.T) {
	for _, tt := range []struct{ pattern, path string }{
		{strings.Repeat("a*", 200) + "b", strings.Repeat("a", 4000)},
		{strings.Repeat("**/a/", 15) + "b", strings.Repeat("a/", 2000) + "c"},
	} {
		if mustPattern(tt.pattern).Match(tt.path, false) {
			t.Errorf("%q matches", tt.pattern)
		}
	}
}

func BenchmarkPatternSet100k(b *testing.B) {
	paths := make([]string, 100_000)
	for i := range paths {
		paths[i] = fmt.Sprintf("services/module%d/src/main/file%d.go", i%100, i)
	}
	set := NewPatternSet(DefaultHide())
	for b.Loop() {
		for _, p := range paths {
			if set.Match(p, false) {
				b.Fatal(p)
			}
		}
	}
}
