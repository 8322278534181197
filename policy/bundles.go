package policy

import (
	"cmp"
	"fmt"
	"slices"
)

// Bundle is what a bare word in network.allow and network.deny stands for.
type Bundle struct {
	Name   string
	About  string       // what works with it, and what to know before allowing it
	Source string       // URL of the operator's own statement of the hosts
	Hosts  []BundleHost // sorted by host; empty when Discovered
	// Discovered bundles have no list: their hosts come from the tools' own configuration, in the image and in the
	// project, so that a company's mirror works unchanged.
	Discovered bool
	How        string // where hosts, or further hosts, are discovered; empty when they aren't
	Mend       string // what to do when none are found
	Missing    string // in what [Policy.Expand] is given: why there are no hosts
}

// BundleHost is one host of a [Bundle].
type BundleHost struct {
	Host   Host
	Ports  []PortRange
	Reason string // what is fetched or sent there, or which configuration names it
	Source string // URL of the statement about it; empty for one that was found
}

// LookupBundle finds a bundle by its name, one of [Bundles].
func LookupBundle(name string) (Bundle, bool) {
	at := slices.IndexFunc(bundleData(), func(b bundleRow) bool { return b.name == name })
	if at < 0 {
		return Bundle{}, false
	}
	return bundleData()[at].bundle(), true
}

// Expand replaces each bundle by a rule for each of its hosts, which keeps the bundle's name and place. In network.deny the
// rules take in every port. [Policy.Decide] needs it: a bundle by itself matches no host. The policy itself
// stays as it is, and one that is expanded already comes back the same.
//
// found has what the tools' configuration names, by the bundle's name: it fills the discovered bundles and extends the
// others. Found hosts must be public: an address of a local network, or a name without a dot, needs an entry of
// the policy's own and is left out here.
//
// The problems are the discovered bundles, by name and place, that nothing was found for.
func (p *Policy) Expand(found ...Bundle) (*Policy, Problems) {
	out := *p
	var problems Problems
	expand := func(path string, rules []Rule, denied bool) []Rule {
		var all []Rule
		for i, rule := range rules {
			if rule.Bundle == "" || !rule.Host.IsZero() {
				all = append(all, rule)
				continue
			}
			bundle, _ := LookupBundle(rule.Bundle)
			bundle = bundle.with(found)
			if len(bundle.Hosts) == 0 {
				problems = append(problems, bundle.missing(rule.Place, fmt.Sprintf("%s[%d]", path, i)))
			}
			all = append(all, bundle.rules(rule.Place, denied)...)
		}
		return all
	}
	out.Network.Allow = append(expand("network.allow", p.Network.Allow, false), p.credentialRules()...)
	out.Network.Deny = expand("network.deny", p.Network.Deny, true)
	problems.sort()
	return &out, problems
}

// with adds the hosts that were found for the bundle.
func (b Bundle) with(found []Bundle) Bundle {
	for _, f := range found {
		if f.Name != b.Name {
			continue
		}
		b.Missing, b.Mend = cmp.Or(b.Missing, f.Missing), cmp.Or(f.Mend, b.Mend)
		for _, h := range f.Hosts {
			if h.Host.NeedsEntry() == "" && len(h.Ports) > 0 && !b.has(h) {
				b.Hosts = append(b.Hosts, h)
			}
		}
	}
	slices.SortStableFunc(b.Hosts, func(a, b BundleHost) int { return cmp.Compare(a.Host.String(), b.Host.String()) })
	return b
}

// has reports whether the bundle lets everything through that h would.
func (b Bundle) has(h BundleHost) bool {
	return slices.ContainsFunc(b.Hosts, func(o BundleHost) bool { return o.Host.covers(h.Host) && coversPorts(o.Ports, h.Ports) })
}

func (b Bundle) missing(place Place, path string) Problem {
	why := cmp.Or(b.Missing, "no configuration that names one was looked at")
	return Problem{Place: place, Path: path, Message: fmt.Sprintf("no host was found for the bundle %s: %s", b.Name, why), Hint: b.Mend}
}

// UsedBundles are the names of the bundles that the policy allows or denies, sorted.
func (p *Policy) UsedBundles() []string {
	var names []string
	for _, rule := range slices.Concat(p.Network.Allow, p.Network.Deny) {
		if rule.Bundle != "" {
			names = append(names, rule.Bundle)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// NeedsEntry says why a host that a tool's configuration names is not allowed by a bundle, but only by an entry of the
// policy itself; empty when it may be.
func (h Host) NeedsEntry() string {
	switch {
	case h.IsZero():
		return "it is no host"
	case h.wildcard || h.public:
		return "it is not one host"
	case h.isSingleLabel():
		return "a name without a dot means something on one network only"
	case h.addr.IsValid() && AddressClass(h.addr) != ClassPublic:
		return fmt.Sprintf("it is a %s address", AddressClass(h.addr))
	}
	return ""
}

func (b Bundle) rules(place Place, denied bool) []Rule {
	return convert(b.Hosts, func(h BundleHost) Rule {
		ports := h.Ports
		if denied {
			ports = []PortRange{{1, allPorts}}
		}
		return Rule{Bundle: b.Name, Host: h.Host, Ports: ports, Place: place}
	})
}

// Reachable answers for a name whether some connection to it could be allowed: what a resolver has to know, which is asked
// before the port is chosen. The verdict is that of the lowest port that is allowed, or says why there is none.
func (p *Policy) Reachable(name string) Verdict {
	if p == nil {
		return Verdict{Reason: "there is no policy"}
	}
	target, err := ParseTarget(name)
	switch {
	case err != nil:
		return Verdict{Code: CodeBadHost, Reason: err.Error()}
	case target.addr.IsValid():
		return Verdict{Code: CodeBadHost, Reason: "an address is no name", Target: target}
	}
	first := Verdict{Code: CodeNoRule, Reason: "no rule allows the host", Target: target}
	for _, port := range p.turningPorts(target) {
		v := p.decideConnection(target, port)
		v.Target = target
		if v.Allowed() {
			return v
		}
		if v.Code == CodeDenied {
			first = v
		}
	}
	return first
}

// Ports are those on which a connection to the name could be allowed, sorted; none for an address and for what is no name.
func (p *Policy) Ports(name string) []PortRange {
	if v := p.Reachable(name); !v.Allowed() {
		return nil
	}
	target, err := ParseTarget(name)
	if err != nil {
		return nil
	}
	var open []PortRange
	turning := p.turningPorts(target)
	for i, first := range turning {
		last := uint16(allPorts)
		if i+1 < len(turning) {
			last = turning[i+1] - 1
		}
		if p.decideConnection(target, first).Allowed() {
			open = append(open, PortRange{first, last})
		}
	}
	return normalizePorts(open)
}

// turningPorts are the ports at which the verdict for a host can change, sorted: between two of them it is the same.
func (p *Policy) turningPorts(target Host) []uint16 {
	var ports []uint16
	for _, rules := range [][]Rule{p.Network.Allow, p.Network.Deny} {
		for _, rule := range rules {
			if !rule.Host.covers(target) {
				continue
			}
			for _, r := range rule.Ports {
				ports = append(ports, r.First)
				if r.Last < allPorts {
					ports = append(ports, r.Last+1)
				}
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
