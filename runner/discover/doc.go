// Package discover finds the registries and mirrors that the tools of a project are configured for: what the bundles npm,
// go and debian stand for, and what extends pypi, cargo and maven. It reads files of the project and asks the image, in
// one container that has nothing; it opens no connection and writes nothing but its cache.
//
// Both are untrusted. A file is read through [os.Root], bounded, and parsed without expanding anything; a host
// is only ever one that a file or a tool names in full. User names and passwords in addresses are dropped where they are
// parsed, so that nothing here can record them. Hosts of local networks are reported, never returned as found.
package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/org/agent-sandbox/policy"
)

// ErrNoShell is what [Config].Probe returns when the image lacks the program that it is to run.
var ErrNoShell = errors.New("the image has no shell")

// Config says where to look.
type Config struct {
	Bundles []string // names of those that are asked for: [policy.Policy.UsedBundles]
	Project string   // directory on the host; required
	Subdir  string   // working directory below it, slash-separated
	// LookupEnv finds a variable of the agent's environment that does not come from the image. Nil: there is none.
	LookupEnv func(string) (string, bool)

	Image string // the image's id
	// Probe runs a command of the image in a container without network, mounts and rights, and returns its bounded output.
	// Nil: the image is not asked.
	Probe func(ctx context.Context, argv []string) ([]byte, error)
	// CacheDir keeps what an image said, by its id: asking takes a second. Empty: nothing is kept.
	CacheDir string
}

// Found is a host that a tool's configuration names.
type Found struct {
	Bundle string      `json:"bundle"`
	Host   policy.Host `json:"host"`
	Port   uint16      `json:"port"`
	Source string      `json:"source"` // "project: .npmrc:3", "image: npm config list"
}

// Skipped is something that a configuration names and that is not found for it.
type Skipped struct {
	Bundle string `json:"bundle"`
	Name   string `json:"name,omitempty"` // the host as it is written, or a file; empty when there is neither
	Source string `json:"source"`
	Why    string `json:"why"`
	Mend   string `json:"mend,omitempty"`
}

// String is "source: name: why".
func (s Skipped) String() string {
	if s.Name == "" {
		return s.Source + ": " + s.Why
	}
	return s.Source + ": " + s.Name + ": " + s.Why
}

// Result is all that was found, sorted.
type Result struct {
	Found   []Found
	Skipped []Skipped
	// Bundles are the same for [policy.Policy.Expand]. One without hosts says why.
	Bundles []policy.Bundle
}

// Find looks for the hosts of the bundles that are asked for, and for no others. An error means that looking itself failed;
// that nothing was found is none.
func Find(ctx context.Context, cfg Config) (Result, error) {
	wanted := map[string]bool{}
	for _, name := range cfg.Bundles {
		if b, _ := policy.LookupBundle(name); b.How != "" {
			wanted[name] = true
		}
	}
	if len(wanted) == 0 {
		return Result{}, nil
	}
	c := &collector{wanted: wanted, missing: map[string]string{}}
	if err := c.image(ctx, cfg); err != nil {
		return Result{}, err
	}
	c.environment(cfg.LookupEnv)
	if err := c.project(cfg.Project, cfg.Subdir); err != nil {
		return Result{}, fmt.Errorf("look for registries in the project: %w", err)
	}
	return c.result(), nil
}

// maxEntries bounds what is kept: a file can name any number of hosts.
const maxEntries = 500

// level is how strong a configuration is: the tools let the environment win over the project, and both over the image.
type level int

const (
	ofImage level = iota
	ofProject
	ofEnvironment // that the image sets
	ofAgent       // that the policy and the caller set
)

// collector gathers what the parsers find.
type collector struct {
	wanted  map[string]bool
	entries []entry
	missing map[string]string // bundle -> why the image has nothing for it
}

// entry is a site with where it comes from.
type entry struct {
	site
	bundle, source string
	level          level
}

// add takes what a parser found at source. A setting with a key stands in for those with the same key of a lower level: where
// a mirror is configured, the tool's default isn't reached.
func (c *collector) add(at level, bundle, source string, sites []site) {
	if !c.wanted[bundle] {
		return
	}
	for _, s := range sites {
		rival := func(o entry) bool { return o.bundle == bundle && o.key != "" && o.key == s.key }
		if slices.ContainsFunc(c.entries, func(o entry) bool { return rival(o) && o.level > at }) {
			continue
		}
		c.entries = slices.DeleteFunc(c.entries, func(o entry) bool { return rival(o) && o.level < at })
		e := entry{site: s, bundle: bundle, source: source, level: at}
		if s.line > 0 {
			e.source = fmt.Sprintf("%s:%d", source, s.line)
		}
		known := slices.ContainsFunc(c.entries, func(o entry) bool { return e.same(o) })
		if !known && len(c.entries) < maxEntries {
			c.entries = append(c.entries, e)
		}
	}
}

// same reports whether both say the same; where it was found first is enough.
func (e entry) same(o entry) bool {
	return e.bundle == o.bundle && e.key == o.key && e.host == o.host && e.port == o.port && e.name == o.name && e.why == o.why
}

func (c *collector) result() Result {
	slices.SortStableFunc(c.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.bundle, b.bundle), cmp.Compare(a.host.String(), b.host.String()), cmp.Compare(a.port, b.port))
	})
	var r Result
	for _, e := range c.entries {
		switch known := slices.ContainsFunc(r.Found, func(o Found) bool { return o.Bundle == e.bundle && o.Host == e.host && o.Port == e.port }); {
		case e.why != "":
			r.Skipped = append(r.Skipped, Skipped{Bundle: e.bundle, Name: e.name, Source: e.source, Why: e.why, Mend: e.mend})
		case !known && !e.host.IsZero():
			r.Found = append(r.Found, Found{Bundle: e.bundle, Host: e.host, Port: e.port, Source: e.source})
		}
	}
	for _, name := range policy.Bundles() {
		if c.wanted[name] {
			r.Bundles = append(r.Bundles, c.bundle(name, r))
		}
	}
	return r
}

func (c *collector) bundle(name string, r Result) policy.Bundle {
	b := policy.Bundle{Name: name, Discovered: true}
	for _, f := range r.Found {
		if f.Bundle == name {
			b.Hosts = append(b.Hosts, policy.BundleHost{Host: f.Host, Ports: []policy.PortRange{{First: f.Port, Last: f.Port}}, Reason: f.Source})
		}
	}
	if len(b.Hosts) > 0 {
		return b
	}
	b.Missing = cmp.Or(c.missing[name], "neither the image nor the project names one")
	for _, s := range r.Skipped {
		if s.Bundle == name {
			b.Missing, b.Mend = s.String(), s.Mend
			break
		}
	}
	return b
}
