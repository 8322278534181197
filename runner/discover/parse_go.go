package discover

import "strings"

// The variables of Go that name hosts.
const (
	goProxy = "GOPROXY"
	goSumDB = "GOSUMDB"
)

// parseGoProxy reads GOPROXY (https://go.dev/ref/mod#environment-variables): addresses between commas and bars. "off" names no
// host, and "direct" any: the repositories of the modules.
func parseGoProxy(value string) []site {
	var found sites
	direct := false
	for _, item := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == '|' }) {
		switch item = strings.TrimSpace(item); item {
		case "off":
			return goProxyEnd(found, site{key: goProxy, name: "off", why: "fetches nothing", mend: "set GOPROXY, or remove the bundle go"})
		case "direct":
			direct = true
		default:
			found.add(item, goProxy, 0)
		}
	}
	if direct {
		return goProxyEnd(found, site{
			key: goProxy, name: "direct", why: "fetches modules from their own repositories",
			mend: "name the hosts of the repositories in network.allow, or set GOPROXY to a proxy",
		})
	}
	return found
}

// goProxyEnd adds the note on a list without a proxy. After one it is only the last resort.
func goProxyEnd(found []site, note site) []site {
	if len(found) > 0 {
		return found
	}
	return []site{note}
}

// parseGoSumDB reads GOSUMDB: "off", "NAME", "NAME+KEY", or either and an address. The name of a database without an
// address is its host.
func parseGoSumDB(value string) []site {
	name, address, _ := strings.Cut(strings.TrimSpace(value), " ")
	if name == "" || name == "off" {
		return []site{{key: goSumDB}} // nothing to reach, and nothing of a weaker configuration either
	}
	if address == "" {
		host, _, _ := strings.Cut(name, "+")
		address = "https://" + host
	}
	var found sites
	found.add(address, goSumDB, 0)
	return found
}
