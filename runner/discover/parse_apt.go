package discover

import (
	"slices"
	"strings"
)

// parseAptList reads a sources.list in the one-line format of sources.list(5).
func parseAptList(text string) []site {
	var found sites
	lines(text, func(n int, line string) {
		line, _, _ = strings.Cut(line, "#")
		kind, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		if kind != "deb" && kind != "deb-src" {
			return
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") { // options
			_, rest, _ = strings.Cut(rest, "]")
		}
		if fields := strings.Fields(rest); len(fields) > 0 {
			found.add(aptAddress(fields[0]), "", n)
		}
	})
	return found
}

// aptAddress takes the methods away that lead to an ordinary address. mirror+file: names a file, which the image is asked for.
func aptAddress(uri string) string {
	for _, method := range []string{"mirror+", "tor+"} {
		uri = strings.TrimPrefix(uri, method)
	}
	if rest, ok := strings.CutPrefix(uri, "mirror://"); ok {
		return "http://" + rest
	}
	return uri
}

// parseAptSources reads a .sources file in the format of deb822(5): stanzas of fields, where a line that begins with white space
// goes on with the field before it. A stanza with `Enabled: no` doesn't count.
func parseAptSources(text string) []site {
	var found, stanza sites
	enabled, field := true, ""
	end := func() {
		if enabled {
			found = append(found, stanza...)
		}
		stanza, enabled, field = nil, true, ""
	}
	n := 0
	for line := range strings.Lines(text) {
		if n++; n > maxLines {
			break
		}
		line = strings.TrimRight(line, "\r\n \t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if line == "" {
			end()
			continue
		}
		value := line
		if line[0] != ' ' && line[0] != '\t' {
			field, value, _ = strings.Cut(line, ":")
			field = strings.ToLower(strings.TrimSpace(field))
		}
		switch field {
		case "uris":
			for _, uri := range strings.Fields(value) {
				stanza.add(aptAddress(uri), "", n)
			}
		case "enabled":
			enabled = !slices.Contains([]string{"no", "false", "0", "off", "without", "disable"}, strings.ToLower(strings.TrimSpace(value)))
		}
	}
	end()
	return found
}

// parseAptMirrors reads a list of mirrors, apt-transport-mirror(1): an address at the start of each line.
func parseAptMirrors(text string) []site {
	var found sites
	lines(text, func(n int, line string) {
		if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(line, "#") {
			found.add(fields[0], "", n)
		}
	})
	return found
}
