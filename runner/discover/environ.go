package discover

import "strings"

// parseVariable reads a variable that a tool takes a registry from. The bundle is empty for any other.
func parseVariable(name, value string) (bundle string, found []site) {
	lower := strings.ToLower(name)
	switch {
	case lower == "npm_config_registry" || name == "YARN_NPM_REGISTRY_SERVER" || lower == "yarn_registry":
		return "npm", oneSite(value, registryKey)
	case strings.HasPrefix(lower, "npm_config_@") && strings.HasSuffix(lower, ":registry"):
		return "npm", oneSite(value, lower[len("npm_config_"):])
	case name == goProxy:
		return "go", parseGoProxy(value)
	case name == goSumDB:
		return "go", parseGoSumDB(value)
	case name == "PIP_INDEX_URL", name == "PIP_EXTRA_INDEX_URL", name == "PIP_FIND_LINKS",
		name == "UV_INDEX_URL", name == "UV_EXTRA_INDEX_URL", name == "UV_DEFAULT_INDEX", name == "UV_INDEX", name == "UV_FIND_LINKS":
		return "pypi", indexSites(value)
	case strings.HasPrefix(name, "CARGO_REGISTRIES_") && strings.HasSuffix(name, "_INDEX"),
		strings.HasPrefix(name, "CARGO_SOURCE_") && strings.HasSuffix(name, "_REGISTRY"):
		return "cargo", oneSite(value, "")
	}
	return "", nil
}

func oneSite(value, key string) []site {
	var found sites
	found.add(value, key, 0)
	return found
}

// indexSites reads addresses between spaces; uv lets each have a name: "name=https://...".
func indexSites(value string) []site {
	var found sites
	for _, address := range strings.Fields(strings.ReplaceAll(value, ",", " ")) {
		if name, rest, ok := strings.Cut(address, "="); ok && !strings.Contains(name, ":") {
			address = rest
		}
		found.add(address, "", 0)
	}
	return found
}

// variables are those of [parseVariable] that have a fixed name.
func variables() []string {
	return []string{
		"npm_config_registry", "NPM_CONFIG_REGISTRY", "YARN_NPM_REGISTRY_SERVER", "YARN_REGISTRY", goProxy, goSumDB,
		"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS",
		"UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS",
	}
}

// environment reads the variables that the agent gets beside those of the image.
func (c *collector) environment(lookup func(string) (string, bool)) {
	if lookup == nil {
		return
	}
	for _, name := range variables() {
		if value, ok := lookup(name); ok {
			bundle, found := parseVariable(name, value)
			c.add(ofAgent, bundle, "environment: "+name, found)
		}
	}
}
