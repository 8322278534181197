package policy

import (
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
}

// BundleHost is one host of a [Bundle].
type BundleHost struct {
	Host   Host
	Ports  []PortRange
	Reason string // what is fetched or sent there
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
// stays as it is.
//
// The problems are the discovered bundles, by name and place: their hosts aren't known here.
func (p *Policy) Expand() (*Policy, Problems) {
	out := *p
	var problems Problems
	expand := func(path string, rules []Rule, denied bool) []Rule {
		var all []Rule
		for i, rule := range rules {
			if rule.Bundle == "" {
				all = append(all, rule)
				continue
			}
			bundle, _ := LookupBundle(rule.Bundle)
			if len(bundle.Hosts) == 0 {
				problems = append(problems, Problem{
					Place: rule.Place, Path: fmt.Sprintf("%s[%d]", path, i),
					Message: fmt.Sprintf("this version can't find the hosts of the bundle %s yet", rule.Bundle),
					Hint:    "name the registry's host itself",
				})
			}
			all = append(all, bundle.rules(rule.Place, denied)...)
		}
		return all
	}
	out.Network.Allow = expand("network.allow", p.Network.Allow, false)
	out.Network.Deny = expand("network.deny", p.Network.Deny, true)
	problems.sort()
	return &out, problems
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
