package workspace

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// judgeName looks at a name that the agent made: what it does to a terminal, and to other file systems.
func judgeName(v *verdict, p string) {
	if hasControl(p) {
		v.add(Reject, "name with control characters: "+printable(p))
	}
	if strings.ContainsFunc(p, isBidi) {
		v.add(Reject, "name that reorders the text around it: "+printable(p))
	}
	if !utf8.ValidString(p) {
		v.add(Warn, "name that is not UTF-8: "+printable(p))
	}
	if strings.ContainsFunc(p, isInvisible) {
		v.add(Warn, "name with invisible characters: "+printable(p))
	}
	if strings.Contains(p, `\`) {
		v.add(Warn, "name with a backslash, which Windows takes for a slash")
	}
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// isBidi reports the characters of the Trojan Source attack (CVE-2021-42574) and their relatives.
func isBidi(r rune) bool {
	return unicode.Is(unicode.Bidi_Control, r)
}

// isInvisible reports characters that take no place on a terminal, and the separators that some break lines at.
func isInvisible(r rune) bool {
	return !isBidi(r) && (unicode.Is(unicode.Cf, r) || unicode.In(r, unicode.Zl, unicode.Zp) ||
		unicode.Is(unicode.Variation_Selector, r))
}

// printable makes text safe for a terminal: control characters as ^[ or <U+0085>, bidirectional controls and
// other invisible characters as <U+202E>, bytes that are not UTF-8 as <FF>.
func printable(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		writePrintable(&b, r, s[:size])
		s = s[size:]
	}
	return b.String()
}

func unprintable(r rune) bool {
	return unicode.IsControl(r) || isBidi(r) || isInvisible(r) || r == utf8.RuneError
}

func writePrintable(b *strings.Builder, r rune, raw string) {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		fmt.Fprintf(b, "<%02X>", raw[0])
	case r < 0x20 || r == 0x7f:
		b.WriteByte('^')
		b.WriteByte(byte(r) ^ 0x40)
	case unicode.IsControl(r) || isBidi(r) || isInvisible(r):
		fmt.Fprintf(b, "<U+%04X>", r)
	default:
		b.WriteString(raw)
	}
}

// inGit reports whether a path is inside a .git directory, or is one, by whatever name a file system
// would take for it.
func inGit(p string) bool {
	for name := range strings.SplitSeq(p, "/") {
		if isGitName(name) {
			return true
		}
	}
	return false
}

// isGitName reports whether some file system opens .git under this name: with case folded (APFS, NTFS),
// code points ignored (HFS+), trailing dots, spaces and streams cut off, or its short name (NTFS).
// git refuses the same, see verify_dotfile and is_ntfs_dotgit in its read-cache.c and path.c.
func isGitName(name string) bool {
	if isPlain(name) {
		return name == ".git"
	}
	for part := range strings.SplitSeq(name, `\`) {
		switch f := foldName(part); {
		case f == ".git":
			return true
		case len(f) == len("git~1") && strings.HasPrefix(f, "git~") && f[4] >= '0' && f[4] <= '9':
			return true
		}
	}
	return false
}

// foldPath gives the path as the most forgiving file system would compare it.
func foldPath(p string) string {
	if isPlain(p) {
		return p
	}
	names := strings.Split(p, "/")
	for i, name := range names {
		names[i] = foldName(name)
	}
	return strings.Join(names, "/")
}

// isPlain reports paths that folding leaves alone: the usual ones.
func isPlain(p string) bool {
	for i := range len(p) {
		switch c := p[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '-', c == '/':
		case c == '.' && i+1 < len(p) && p[i+1] != '/' && p[i+1] != '.':
		default:
			return false
		}
	}
	return true
}

func foldName(name string) string {
	if i := strings.IndexByte(name, ':'); i > 0 {
		name = name[:i] // an NTFS stream: ".git::$INDEX_ALLOCATION" is ".git"
	}
	name = strings.Map(func(r rune) rune {
		if isIgnored(r) {
			return -1
		}
		// SimpleFold's smallest member is one representative for all spellings, such as K and the Kelvin sign.
		low := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			low = min(low, f)
		}
		return unicode.ToLower(low)
	}, name)
	if trimmed := strings.TrimRight(name, ". "); trimmed != "" {
		return trimmed
	}
	return name
}

// isIgnored reports the code points that HFS+ ignores in names; the list is that of next_hfs_char in git's utf8.c.
func isIgnored(r rune) bool {
	switch {
	case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
		return true
	}
	return false
}
