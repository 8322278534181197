package policy

import (
	"strings"
)

// Protector tells which changed paths need care. It sees through the spellings under which a Mac or a Windows machine finds the
// same file: case, characters that HFS+ ignores, trailing dots and blanks, NTFS streams and short names.
// It is safe for concurrent use.
type Protector struct {
	reject, warn tierSet
	short        map[string]string // folded 8.3 name with "#" for its digit -> folded protected name
}

type tierSet struct {
	set     *PatternSet
	reasons []string // by pattern number
}

// protection is one row of the default table or one pattern of a policy.
type protection struct {
	pattern Pattern
	tier    Tier
	reason  string
}

// Protector matches the default protected paths and those of the workspace. The stronger tier wins.
func (w Workspace) Protector() *Protector {
	all := defaultProtections()
	for _, p := range w.Protect.Reject {
		all = append(all, protection{p, TierReject, "the policy protects it"})
	}
	for _, p := range w.Protect.Warn {
		all = append(all, protection{p, TierWarn, "the policy watches it"})
	}
	return newProtector(all)
}

func newProtector(all []protection) *Protector {
	p := &Protector{short: map[string]string{}}
	var patterns [2][]Pattern
	for i, tier := range []Tier{TierReject, TierWarn} {
		set := []*tierSet{&p.reject, &p.warn}[i]
		for _, row := range all {
			if row.tier != tier {
				continue
			}
			patterns[i] = append(patterns[i], row.pattern)
			set.reasons = append(set.reasons, row.reason)
			p.addShortNames(row.pattern)
		}
		set.set = NewPatternSet(patterns[i])
	}
	for short, long := range gitShortNames() {
		p.short[short] = long
	}
	return p
}

// Tier is the tier of a path and the reason for it.
func (p *Protector) Tier(path string) (Tier, string) {
	names := p.canonicalNames(path)
	gitReason, insideGit := gitReason(names)
	if gitReason != "" {
		return TierReject, gitReason
	}
	canonical := strings.Join(names, "/")
	if reason, ok := p.reject.find(canonical); ok {
		return TierReject, reason
	}
	if reason, ok := p.warn.find(canonical); ok {
		return TierWarn, reason
	}
	// The files beside it decide whether this is a repository; that takes the whole change set.
	if !insideGit && (path == "HEAD" || strings.HasSuffix(path, "/HEAD")) {
		return TierWarn, "a file HEAD can make its directory a git repository, whose config runs programs"
	}
	return TierNone, ""
}

// find tries the path and every directory above it. Whether the last name is a directory is not known, so a
// pattern for directories alone counts as well.
func (t tierSet) find(path string) (string, bool) {
	for end := 0; ; {
		start := end
		length := strings.IndexByte(path[start:], '/')
		if length < 0 {
			end = len(path)
		} else {
			end = start + length
		}
		if n := t.set.deciding(path[:end], path[start:end], true); n >= 0 {
			return t.reasons[n], true
		}
		if end == len(path) {
			return "", false
		}
		end++
	}
}

// canonicalNames are the names of the path as the most forgiving file system reads them. A backslash separates, since it
// does so on Windows, where the change set may be applied.
func (p *Protector) canonicalNames(path string) []string {
	var names []string
	for _, raw := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		name := canonicalName(raw)
		if long, ok := p.short[shortNameKey(name)]; ok {
			name = long
		}
		if name != "." {
			names = append(names, name)
		}
	}
	return names
}

// canonicalName follows git's next_hfs_char (utf8.c) and is_ntfs_dotgit (path.c), for every name and not only ".git".
func canonicalName(name string) string {
	name = foldName(dropIgnorable(name))
	if stream := strings.IndexByte(name, ':'); stream > 0 {
		name = name[:stream]
	}
	if trimmed := strings.TrimRight(name, ". "); trimmed != "" {
		return trimmed
	}
	return name
}

// dropIgnorable removes the characters that HFS+ leaves out of a comparison.
func dropIgnorable(s string) string {
	if !strings.ContainsFunc(s, hfsIgnores) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := nextRune(s)
		if !hfsIgnores(r) {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

func hfsIgnores(r rune) bool {
	return r >= 0x200c && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x206a && r <= 0x206f || r == 0xfeff
}

// addShortNames notes the 8.3 names that Windows makes for the literal names of a pattern. Two long
// names with one short name: the first stays, and rejected ones come first.
func (p *Protector) addShortNames(pattern Pattern) {
	for _, part := range pattern.parts {
		if part.deep || part.glob != nil {
			continue
		}
		if key := shortNameOf(part.literal); key != "" {
			if _, taken := p.short[key]; !taken {
				p.short[key] = part.literal
			}
		}
	}
}

// shortNameOf is the generated 8.3 form of a folded name with "#" for its digit, or "" when the name needs none.
// https://learn.microsoft.com/windows/win32/fileio/naming-a-file#short-vs-long-names
func shortNameOf(long string) string {
	stem := strings.TrimLeft(long, ".")
	ext := ""
	if dot := strings.LastIndexByte(stem, '.'); dot >= 0 {
		stem, ext = stem[:dot], stem[dot+1:]
	}
	fits := len(stem) <= 8 && len(ext) <= 3 && !strings.ContainsAny(stem, ". +,;=[]") && !strings.HasPrefix(long, ".")
	if fits {
		return ""
	}
	stem = strings.NewReplacer(".", "", " ", "", "+", "_", ",", "_", ";", "_", "=", "_", "[", "_", "]", "_").Replace(stem)
	stem = stem[:min(6, len(stem))] + "~#"
	if ext = ext[:min(3, len(ext))]; ext != "" {
		stem += "." + ext
	}
	return stem
}

// shortNameKey puts "#" for the digit of "git~1" or "gitlab~1.yml"; it is "" for a name that is no short name.
func shortNameKey(name string) string {
	tilde := strings.IndexByte(name, '~')
	if tilde < 1 || tilde > 6 || len(name) < tilde+2 || name[tilde+1] < '1' || name[tilde+1] > '9' {
		return ""
	}
	rest := name[tilde+2:]
	if rest != "" && rest[0] != '.' {
		return ""
	}
	return name[:tilde] + "~#" + rest
}
