package egress

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/org/agent-sandbox/runner/secret"
)

// Usage is what a credential was used for so far.
type Usage struct {
	Credential string
	Requests   uint64            // that carried it and were answered
	PerHost    map[string]uint64 // of them
	// Permissions are those that GitHub says the requests needed, with the highest level of each: read, write or admin. Where it names
	// alternatives, which of them it was can't be told, and none is counted.
	Permissions map[string]string
}

// maxPermissions bounds what a host can have noted.
const maxPermissions = 100

// usages counts for all connections of a gateway.
type usages struct {
	mu  sync.Mutex // guards all
	all map[string]*Usage
}

// count notes one answered request.
func (u *usages) count(name, host string, answer http.Header) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all = map[string]*Usage{}
	}
	one := u.all[name]
	if one == nil {
		one = &Usage{Credential: name, PerHost: map[string]uint64{}, Permissions: map[string]string{}}
		u.all[name] = one
	}
	one.Requests++
	if _, known := one.PerHost[host]; known || len(one.PerHost) < maxPermissions { // below a wildcard there may be any number
		one.PerHost[host]++
	}
	for permission, level := range accepted(answer.Get("X-Accepted-Github-Permissions")) {
		if had, known := one.Permissions[permission]; (known || len(one.Permissions) < maxPermissions) && rank(level) > rank(had) {
			one.Permissions[permission] = level
		}
	}
}

func rank(level string) int { return slices.Index([]string{"read", "write", "admin"}, level) }

// accepted reads "contents=write,workflows=write"; a semicolon separates alternatives. See
// https://docs.github.com/en/rest/authentication/permissions-required-for-github-apps.
func accepted(header string) map[string]string {
	if strings.Contains(header, ";") {
		return nil
	}
	needed := map[string]string{}
	for item := range strings.SplitSeq(header, ",") {
		name, level, _ := strings.Cut(strings.TrimSpace(item), "=")
		if name != "" && len(name) < 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") == "" && rank(level) >= 0 {
			needed[name] = level
		}
	}
	return needed
}

// Usage tells of each credential that was used, by name.
func (g *Gateway) Usage() []Usage {
	g.usages.mu.Lock()
	defer g.usages.mu.Unlock()
	var out []Usage
	for _, name := range slices.Sorted(maps.Keys(g.usages.all)) {
		u := *g.usages.all[name]
		u.PerHost, u.Permissions = maps.Clone(u.PerHost), maps.Clone(u.Permissions)
		out = append(out, u)
	}
	return out
}

// echoes makes what a host repeats of a credential the placeholder again.
type echoes struct {
	mu   sync.Mutex // guards what follows
	text string
	set  *secret.Set
}

// of is the set for the value as it is now; most requests have that of the one before.
func (e *echoes) of(c *Credential, text string) *secret.Set {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set == nil || e.text != text {
		e.text, e.set = text, new(secret.Set)
		e.set.Swap(c.Name, secret.New(text), c.Placeholder)
	}
	return e.set
}
