package image

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// ignored is a .dockerignore file: the last pattern that matches a path, or a directory above it, decides
// (https://docs.docker.com/build/concepts/context/#dockerignore-files).
type ignored []ignorePattern

type ignorePattern struct {
	re     *regexp.Regexp
	negate bool
}

// maxIgnore bounds the patterns of a .dockerignore.
const maxIgnore = 10_000

func parseIgnore(text string) (ignored, error) {
	var list ignored
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		line, negate := strings.CutPrefix(line, "!")
		pattern := strings.TrimPrefix(path.Clean("/"+strings.TrimSpace(line)), "/")
		if pattern == "" {
			continue
		}
		re, err := globRegexp(pattern)
		if err != nil {
			return nil, fmt.Errorf(".dockerignore: pattern %q: %w", line, err)
		}
		if list = append(list, ignorePattern{re, negate}); len(list) > maxIgnore {
			return nil, fmt.Errorf(".dockerignore: more than %d patterns", maxIgnore)
		}
	}
	return list, nil
}

// match tells whether a path is left out.
func (list ignored) match(name string) bool {
	out := false
	for _, p := range list {
		if p.negate == out && p.matchesOrParent(name) {
			out = !p.negate
		}
	}
	return out
}

// negates tells whether anything below a directory that is left out may be let in again.
func (list ignored) negates() bool {
	for _, p := range list {
		if p.negate {
			return true
		}
	}
	return false
}

func (p ignorePattern) matchesOrParent(name string) bool {
	for ; name != "." && name != "/" && name != ""; name = path.Dir(name) {
		if p.re.MatchString(name) {
			return true
		}
	}
	return false
}

// globRegexp translates a pattern of filepath.Match, with ** for any number of directories.
func globRegexp(pattern string) (*regexp.Regexp, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(`^(?:`)
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**/"):
			b.WriteString(`(?:.*/)?`)
			i += 2
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(`.*`)
			i++
		case c == '*':
			b.WriteString(`[^/]*`)
		case c == '?':
			b.WriteString(`[^/]`)
		case c == '\\' && i+1 < len(pattern):
			i++
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		case c == '[':
			end := strings.IndexByte(pattern[i+1:], ']')
			class := pattern[i+1 : i+1+end]
			b.WriteString("[" + strings.ReplaceAll(class, `[`, `\[`) + "]")
			i += end + 1
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	b.WriteString(`)$`)
	return regexp.Compile(b.String())
}
