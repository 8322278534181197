package discover

import (
	"encoding/json"
	"slices"
	"strings"
)

// registryKey is the setting of npm, pnpm and yarn that names where packages without a scope come from.
const registryKey = "registry"

// sites collects addresses that are of the network.
type sites []site

func (s *sites) add(address, key string, line int) {
	if one, ok := siteOf(address, key, line); ok {
		*s = append(*s, one)
	}
}

// maxLines bounds the lines of a file that are looked at.
const maxLines = 50_000

// lines calls f for each line, trimmed, with its number.
func lines(text string, f func(n int, line string)) {
	n := 0
	for line := range strings.Lines(text) {
		if n++; n > maxLines {
			return
		}
		f(n, strings.TrimSpace(line))
	}
}

// parseNpmrc reads the registries of an .npmrc (npmrc(5)), which pnpm shares: `registry`
// and `@scope:registry` outside of sections. The credentials that it holds beside them are not looked at.
func parseNpmrc(text string) []site {
	var found sites
	section := false
	lines(text, func(n int, line string) {
		if line == "" || strings.HasPrefix(line, ";") || strings.HasPrefix(line, "#") {
			return
		}
		section = section || strings.HasPrefix(line, "[")
		key, value, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		switch {
		case !ok || section:
		case key == registryKey:
			found.add(unquote(value), registryKey, n)
		case strings.HasPrefix(key, "@") && strings.HasSuffix(key, ":registry"):
			found.add(unquote(value), key, n)
		}
	})
	return found
}

// unquote takes the quotes from a plain value. One with escapes stays as it is, and is then no address.
func unquote(s string) string {
	s = strings.TrimSpace(s)
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		s = s[1 : n-1]
	}
	return s
}

// parseYarnrc reads npmRegistryServer of a .yarnrc.yml (Yarn 2 and later), its own and those of
// scopes. It is looked for line by line: of the YAML around it nothing counts.
func parseYarnrc(text string) []site {
	var found sites
	lines(text, func(n int, line string) {
		value, ok := strings.CutPrefix(line, "npmRegistryServer:")
		if !ok {
			return
		}
		value, _, _ = strings.Cut(value, " #")
		found.add(unquote(value), registryKey, n)
	})
	return found
}

// parseYarnClassic reads the registry of a .yarnrc: `registry "https://..."`.
func parseYarnClassic(text string) []site {
	var found sites
	lines(text, func(n int, line string) {
		key, value, ok := strings.Cut(line, " ")
		key = unquote(key)
		if !ok || strings.HasPrefix(key, "#") {
			return
		}
		if key == registryKey || strings.HasPrefix(key, "@") && strings.HasSuffix(key, ":registry") {
			found.add(unquote(value), key, n)
		}
	})
	return found
}

// parseNpmConfig reads what `npm config list --json` prints. npm leaves the credentials out.
func parseNpmConfig(text string) []site {
	var all map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &all) != nil {
		return nil
	}
	var found sites
	for _, key := range sortedKeys(all) {
		var value string
		if key == registryKey || strings.HasPrefix(key, "@") && strings.HasSuffix(key, ":registry") {
			if json.Unmarshal(all[key], &value) == nil {
				found.add(value, key, 0)
			}
		}
	}
	return found
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
