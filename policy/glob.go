package policy

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// glob matches one name without slashes. It is never nil for a parsed one.
type glob []globToken

type globKind uint8

const (
	globRune globKind = iota
	globAny
	globStar
	globClass
)

type globToken struct {
	kind    globKind
	char    rune // folded
	ranges  []runeRange
	negated bool
}

type runeRange struct{ low, high rune }

func parseGlob(name string) (glob, error) {
	g := make(glob, 0, len(name))
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		i += size
		token := globToken{kind: globRune, char: fold(r)}
		switch r {
		case '*':
			token = globToken{kind: globStar}
		case '?':
			token = globToken{kind: globAny}
		case '[':
			class, n, err := parseClass(name[i:])
			if err != nil {
				return nil, err
			}
			token = class
			i += n
		case '\\':
			quoted, n := utf8.DecodeRuneInString(name[i:])
			if !strings.ContainsRune(`*?[]\!# `, quoted) || n == 0 {
				return nil, errors.New(`a backslash quotes one of * ? [ ] \ ! # and the blank; names are separated by "/"`)
			}
			token.char = quoted
			i += n
		}
		g = append(g, token)
	}
	return g, nil
}

// parseClass reads what follows "[", up to and with "]", and says how long that was. As in a shell, "]" stands for
// itself when it is first, "-" when it is first or last.
func parseClass(s string) (globToken, int, error) {
	unclosed := errors.New(`"[" without "]" (quote it as "\[")`)
	token := globToken{kind: globClass}
	i := 0
	if strings.HasPrefix(s, "!") || strings.HasPrefix(s, "^") {
		token.negated = true
		i++
	}
	for first := true; ; first = false {
		low, n, err := classRune(s[i:])
		if err != nil {
			return token, 0, unclosed
		}
		i += n
		if low == ']' && n == 1 && !first {
			return token, i, nil
		}
		if low == '[' && n == 1 && strings.HasPrefix(s[i:], ":") {
			return token, 0, errors.New(`named classes such as "[:alpha:]" are not supported`)
		}
		high := low
		if rest := s[i:]; len(rest) > 1 && rest[0] == '-' && rest[1] != ']' {
			if high, n, err = classRune(rest[1:]); err != nil {
				return token, 0, unclosed
			}
			i += 1 + n
		}
		if high < low {
			return token, 0, errors.New("a range in brackets is the wrong way round")
		}
		token.ranges = append(token.ranges, runeRange{low, high})
	}
}

// classRune reads one character, quoted or not; a quoted one has a size above 1, so it never ends the class.
func classRune(s string) (rune, int, error) {
	skip := 0
	if strings.HasPrefix(s, `\`) {
		skip = 1
	}
	r, n := utf8.DecodeRuneInString(s[skip:])
	if n == 0 {
		return 0, 0, errors.New("end of pattern")
	}
	return r, skip + n, nil
}

// literal is the folded text of a glob without wildcards.
func (g glob) literal() (string, bool) {
	var b strings.Builder
	for _, t := range g {
		if t.kind != globRune {
			return "", false
		}
		b.WriteRune(t.char)
	}
	return b.String(), true
}

// match goes back to the last star only, as matchParts does, so the work is at most len(g)*len(name).
func (g glob) match(name string) bool {
	i, j := 0, 0
	backToken, backByte := -1, 0
	for j < len(name) {
		r, size := nextRune(name[j:])
		switch {
		case i < len(g) && g[i].kind == globStar:
			backToken, backByte = i, j
			i++
		case i < len(g) && g[i].match(r):
			i++
			j += size
		case backToken >= 0:
			_, size := nextRune(name[backByte:])
			backByte += size
			i, j = backToken+1, backByte
		default:
			return false
		}
	}
	for i < len(g) && g[i].kind == globStar {
		i++
	}
	return i == len(g)
}

// ascii is the one ASCII character that the token stands for, or zero.
func (t globToken) ascii() byte {
	if t.kind == globRune && t.char < utf8.RuneSelf {
		return byte(t.char)
	}
	return 0
}

func (t globToken) match(r rune) bool {
	switch t.kind {
	case globAny:
		return true
	case globRune:
		return t.char == fold(r)
	case globClass:
		return t.inClass(r) != t.negated
	}
	return false
}

func (t globToken) inClass(r rune) bool {
	for next := r; ; {
		for _, span := range t.ranges {
			if span.low <= next && next <= span.high {
				return true
			}
		}
		if r < 0 { // a byte that is no character has no other case
			return false
		}
		if next = unicode.SimpleFold(next); next == r {
			return false
		}
	}
}

// nextRune is utf8.DecodeRuneInString, but tells bytes that are not UTF-8 apart: they are negative, so that no
// pattern names them and every wildcard takes them.
func nextRune(s string) (rune, int) {
	r, size := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && size == 1 {
		return -1 - rune(s[0]), 1
	}
	return r, size
}

// fold gives all cases of a character one form: the lower case for ASCII, and for those beyond that fold to ASCII
// (the Kelvin sign, the long s).
func fold(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	if least < utf8.RuneSelf {
		return fold(least)
	}
	return least
}

// foldName folds each character. Most names are lower-case ASCII, which costs nothing.
func foldName(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return foldSlow(s)
		}
	}
	return s
}

func foldSlow(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for len(s) > 0 {
		r, size := nextRune(s)
		if r < 0 {
			b.WriteByte(s[0])
		} else {
			b.WriteRune(fold(r))
		}
		s = s[size:]
	}
	return b.String()
}

// equalFolded compares a folded literal with a name, without allocating.
func equalFolded(folded, name string) bool {
	for len(folded) > 0 && len(name) > 0 {
		f, fn := nextRune(folded)
		r, rn := nextRune(name)
		if r >= 0 {
			r = fold(r)
		}
		if f != r {
			return false
		}
		folded, name = folded[fn:], name[rn:]
	}
	return folded == "" && name == ""
}
