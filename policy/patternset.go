package policy

import "strings"

// PatternSet matches a path against many patterns at once. As in gitignore(5) the last pattern that matches
// decides, "!" takes out again what an earlier one took in, and nothing below a matched directory can be taken out.
// It is safe for concurrent use, and made for walks over hundreds of thousands of paths.
type PatternSet struct {
	patterns []Pattern
	names    map[string][]int // patterns whose last part is a literal name, by that name
	suffixes map[string][]int // patterns whose last part is "*.ext", by ".ext"
	others   []int
}

// NewPatternSet compiles patterns, in the order in which they count.
func NewPatternSet(patterns []Pattern) *PatternSet {
	s := &PatternSet{patterns: patterns, names: map[string][]int{}, suffixes: map[string][]int{}}
	for i, p := range patterns {
		if len(p.parts) == 0 {
			continue
		}
		last := p.parts[len(p.parts)-1]
		if ext, ok := last.glob.extension(); ok {
			s.suffixes[ext] = append(s.suffixes[ext], i)
		} else if last.glob == nil {
			s.names[last.literal] = append(s.names[last.literal], i)
		} else {
			s.others = append(s.others, i)
		}
	}
	return s
}

// extension is ".pem" of "*.pem": after the star a dot, then neither dots nor wildcards.
func (g glob) extension() (string, bool) {
	if len(g) < 3 || g[0].kind != globStar {
		return "", false
	}
	literal, ok := g[1:].literal()
	return literal, ok && strings.LastIndexByte(literal, '.') == 0
}

// Match reports whether the set takes in the path or a directory above it. The path is relative to the project,
// slash-separated and clean; it may hold any bytes. dir says that the path itself is a directory. A nil set matches nothing.
func (s *PatternSet) Match(path string, dir bool) bool {
	if s == nil || path == "" || path == "." {
		return false
	}
	start := 0
	for {
		length := strings.IndexByte(path[start:], '/')
		if length < 0 {
			return s.matchEntry(path, path[start:], dir)
		}
		if s.matchEntry(path[:start+length], path[start:start+length], true) {
			return true
		}
		start += length + 1
	}
}

// MatchEntry is Match for a path of which it is known that no directory above it matches, as in a walk that stays out of those
// that do. A nil set matches nothing.
func (s *PatternSet) MatchEntry(path string, dir bool) bool {
	if s == nil || path == "" || path == "." {
		return false
	}
	return s.matchEntry(path, path[strings.LastIndexByte(path, '/')+1:], dir)
}

// matchEntry asks the pattern with the highest number that matches this one path.
func (s *PatternSet) matchEntry(path, base string, dir bool) bool {
	last := s.deciding(path, base, dir)
	return last >= 0 && !s.patterns[last].negated
}

// deciding is the highest number of a pattern that matches, or -1.
func (s *PatternSet) deciding(path, base string, dir bool) int {
	folded := foldName(base)
	last := s.highest(s.names[folded], -1, path, dir)
	if dot := strings.LastIndexByte(folded, '.'); dot >= 0 {
		last = s.highest(s.suffixes[folded[dot:]], last, path, dir)
	}
	return s.highest(s.others, last, path, dir)
}

func (s *PatternSet) highest(numbers []int, last int, path string, dir bool) int {
	for i := len(numbers) - 1; i >= 0 && numbers[i] > last; i-- {
		if s.patterns[numbers[i]].Match(path, dir) {
			return numbers[i]
		}
	}
	return last
}
