package discover

import (
	"encoding/xml"
	"strings"
)

// maxDepth bounds the nesting of a file.
const maxDepth = 64

// parseMaven reads the addresses that packages come from in a settings.xml (mirrors, repositories and pluginRepositories of profiles) or a
// pom.xml. distributionManagement is left out: that is where a build would send things. An address counts as it is in
// the file, with nothing decoded.
func parseMaven(text string) []site {
	d := xml.NewDecoder(strings.NewReader(text))
	var found sites
	var path []string
	start := int64(0)
	for {
		before := d.InputOffset()
		token, err := d.Token()
		if err != nil {
			return found // at the end, or what comes is no XML
		}
		switch t := token.(type) {
		case xml.StartElement:
			if path = append(path, t.Name.Local); len(path) > maxDepth {
				return found
			}
			start = d.InputOffset()
		case xml.EndElement:
			if isMavenAddress(path) && start <= before {
				line, _ := d.InputPos()
				found.add(text[start:before], "", line)
			}
			path = path[:max(0, len(path)-1)]
		}
	}
}

// isMavenAddress reports whether the element is a url that things are fetched from.
func isMavenAddress(path []string) bool {
	switch p := strings.Join(path, "/"); {
	case p == "settings/mirrors/mirror/url":
		return true
	case !strings.HasPrefix(p, "settings/profiles/profile/") && !strings.HasPrefix(p, "project/"):
		return false
	case strings.Contains(p, "/distributionManagement/"):
		return false
	default:
		return strings.HasSuffix(p, "/repositories/repository/url") || strings.HasSuffix(p, "/pluginRepositories/pluginRepository/url")
	}
}
