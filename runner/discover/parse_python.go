package discover

import "strings"

// parsePipConf reads a pip.conf (https://pip.pypa.io/en/stable/topics/configuration/): index-url, extra-index-url and find-links of
// any section. A value goes on in lines that begin with white space.
func parsePipConf(text string) []site {
	var found sites
	taking := false
	n := 0
	for line := range strings.Lines(text) {
		if n++; n > maxLines {
			break
		}
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		value := trimmed
		if line[0] != ' ' && line[0] != '\t' {
			at := strings.IndexAny(trimmed, "=:")
			if taking = at > 0 && isIndexOption(trimmed[:at]); !taking {
				continue
			}
			value = trimmed[at+1:]
		}
		if taking {
			for _, address := range strings.Fields(value) {
				found.add(address, "", n)
			}
		}
	}
	return found
}

func isIndexOption(key string) bool {
	switch strings.ReplaceAll(strings.ToLower(strings.TrimSpace(key)), "_", "-") {
	case "index-url", "extra-index-url", "find-links":
		return true
	}
	return false
}

// parseRequirements reads the options of a requirements file that name an index
// (https://pip.pypa.io/en/stable/reference/requirements-file-format/).
func parseRequirements(text string) []site {
	var found sites
	lines(text, func(n int, line string) {
		if !strings.HasPrefix(line, "-") {
			return
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.ContainsAny(key, " \t") {
			key, value, _ = strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		}
		switch key {
		case "-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links":
			if fields := strings.Fields(value); len(fields) > 0 {
				found.add(unquote(fields[0]), "", n)
			}
		}
	})
	return found
}

// parsePyproject reads the indexes of uv, Poetry and PDM from a pyproject.toml.
func parsePyproject(text string) []site {
	return tomlSites(text, func(path []string) bool {
		if len(path) < 3 || path[0] != "tool" {
			return false
		}
		last := path[len(path)-1]
		switch path[1] {
		case "uv":
			return isUVSetting(path[2:])
		case "poetry", "pdm":
			return path[2] == "source" && last == "url"
		}
		return false
	})
}

// parseUV reads a uv.toml (https://docs.astral.sh/uv/reference/settings/).
func parseUV(text string) []site { return tomlSites(text, isUVSetting) }

func isUVSetting(path []string) bool {
	if len(path) > 0 && path[0] == "pip" {
		path = path[1:]
	}
	switch {
	case len(path) == 1:
		return isIndexOption(path[0])
	case len(path) == 2:
		return path[0] == "index" && path[1] == "url"
	}
	return false
}

// parseCargo reads where a .cargo/config.toml replaces crates.io or adds registries
// (https://doc.rust-lang.org/cargo/reference/source-replacement.html).
func parseCargo(text string) []site {
	return tomlSites(text, func(path []string) bool {
		if len(path) != 3 {
			return false
		}
		return path[0] == "source" && path[2] == "registry" || path[0] == "registries" && path[2] == "index"
	})
}
