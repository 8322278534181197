package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Pattern is a glob as in gitignore(5), relative to the root of the project and parsed once.
//
// A pattern without a slash (but for one at its end) matches at any depth, any other from the root. "*" and "?" stay
// within a name, "[a-z]" and "[!a-z]" are one character, "**" is any number of directories, a slash at the end
// means directories alone, "!" in front negates (see [PatternSet]), and a backslash quotes the next character.
//
// Unlike git's, matching ignores case: patterns guard what must not be seen or written, and a host with a
// case-insensitive file system has one file under many spellings. The zero Pattern matches nothing.
type Pattern struct {
	text    string
	negated bool
	dirOnly bool
	parts   []part // one for each name of the path; a floating pattern starts with a "**"
}

// part matches one name, or any number of names.
type part struct {
	deep    bool   // "**"
	literal string // folded; set when glob is nil
	glob    glob
	first   byte // folded ASCII character that a glob starts with, and
	last    byte // that it ends with; zero when that is open
}

const (
	maxPatternLength = 512 // characters
	maxPatternParts  = 32
)

// ParsePattern parses a pattern. The error says what is wrong with it, without repeating it.
func ParsePattern(s string) (Pattern, error) {
	if err := checkPatternText(s); err != nil {
		return Pattern{}, err
	}
	p := Pattern{text: s}
	rest, negated := strings.CutPrefix(s, "!")
	p.negated = negated
	rest, p.dirOnly = cutTrailingSlash(rest)
	anchored := strings.Contains(rest, "/")
	rest = strings.TrimPrefix(rest, "/")
	names := strings.Split(rest, "/")
	if len(names) > maxPatternParts {
		return Pattern{}, fmt.Errorf("a pattern has at most %d names", maxPatternParts)
	}
	if !anchored && names[0] != "**" {
		p.parts = append(p.parts, part{deep: true})
	}
	for _, name := range names {
		parsed, err := parsePart(name)
		if err != nil {
			return Pattern{}, err
		}
		p.parts = append(p.parts, parsed)
	}
	if p.parts[len(p.parts)-1].deep { // what is inside, not the directory itself
		p.parts = append(p.parts, part{glob: glob{{kind: globStar}}})
	}
	return p, nil
}

func checkPatternText(s string) error {
	switch {
	case s == "":
		return errors.New("a pattern can't be empty")
	case !utf8.ValidString(s):
		return errors.New("a pattern must be valid UTF-8")
	case utf8.RuneCountInString(s) > maxPatternLength:
		return fmt.Errorf("a pattern has at most %d characters", maxPatternLength)
	case strings.IndexFunc(s, isControl) >= 0:
		return errors.New("a pattern can't hold control characters")
	}
	return nil
}

// cutTrailingSlash takes one slash from the end, unless it is all there is.
func cutTrailingSlash(s string) (string, bool) {
	if len(s) > 1 && strings.HasSuffix(s, "/") {
		return s[:len(s)-1], true
	}
	return s, false
}

func parsePart(name string) (part, error) {
	switch name {
	case "":
		return part{}, errors.New("a pattern can't have an empty name between slashes")
	case ".", "..":
		return part{}, fmt.Errorf("a pattern can't hold the name %q: it is relative to the project and stays in it", name)
	case "**":
		return part{deep: true}, nil
	}
	if strings.Contains(name, "**") {
		return part{}, errors.New(`"**" must be a whole name between slashes`)
	}
	g, err := parseGlob(name)
	if err != nil {
		return part{}, err
	}
	if literal, ok := g.literal(); ok {
		return part{literal: literal}, nil
	}
	return part{glob: g, first: g[0].ascii(), last: g[len(g)-1].ascii()}, nil
}

// mustPattern is for the tables of this package.
func mustPattern(s string) Pattern {
	p, err := ParsePattern(s)
	if err != nil {
		panic(fmt.Sprintf("policy: bug in a built-in pattern %q: %v", s, err))
	}
	return p
}

// String is the pattern as it was written.
func (p Pattern) String() string { return p.text }

// MarshalText is [Pattern.String].
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.text), nil }

// Negated reports whether the pattern starts with "!": in a [PatternSet] it takes a path out again.
func (p Pattern) Negated() bool { return p.negated }

// Equal reports whether both were written alike.
func (p Pattern) Equal(q Pattern) bool { return p.text == q.text }

// Match reports whether the pattern names this very path, without regard to "!" and to the directories above it.
// The path is relative to the project, slash-separated and clean; it may hold any bytes. dir says that it is a directory.
func (p Pattern) Match(path string, dir bool) bool {
	if p.dirOnly && !dir || len(p.parts) == 0 || path == "" || path == "." {
		return false
	}
	if len(p.parts) == 2 && p.parts[0].deep && !p.parts[1].deep { // one name at any depth: the common case
		return p.parts[1].matchName(path[strings.LastIndexByte(path, '/')+1:])
	}
	var buf [24]string
	return matchParts(p.parts, appendNames(buf[:0], path))
}

// appendNames is strings.Split without its allocation.
func appendNames(names []string, path string) []string {
	for {
		name, rest, found := strings.Cut(path, "/")
		names = append(names, name)
		if !found {
			return names
		}
		path = rest
	}
}

// matchParts walks both lists, and on a mismatch goes back to the last "**" only: an earlier one could take nothing
// that the last can't, so the work is at most len(parts)*len(names).
func matchParts(parts []part, names []string) bool {
	i, j := 0, 0
	backPart, backName := -1, 0
	for j < len(names) {
		switch {
		case i < len(parts) && parts[i].deep:
			backPart, backName = i, j
			i++
		case i < len(parts) && parts[i].matchName(names[j]):
			i++
			j++
		case backPart >= 0:
			backName++
			i, j = backPart+1, backName
		default:
			return false
		}
	}
	return !slices.ContainsFunc(parts[i:], func(p part) bool { return !p.deep })
}

func (p part) matchName(name string) bool {
	if p.glob != nil {
		return startsOrEnds(p.first, name, 0) && startsOrEnds(p.last, name, len(name)-1) && p.glob.match(name)
	}
	return equalFolded(p.literal, name)
}

// startsOrEnds is a cheap look at one end of the name, which settles most of them. Beyond ASCII it leaves the answer
// to the glob, since other characters fold to ASCII ones.
func startsOrEnds(want byte, name string, at int) bool {
	if want == 0 || name == "" || name[at] >= utf8.RuneSelf {
		return true
	}
	return fold(rune(name[at])) == rune(want)
}
