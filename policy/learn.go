package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Lesson is what a policy lacks for requests that were refused.
type Lesson struct {
	Add  []Addition
	Left []LeftOut // requests that no addition allows, by host
}

// Addition is an item for network.allow.
type Addition struct {
	Item     string    // in the form of the file
	Why      string    // for people
	Requests []Request // that it is for
}

// LeftOut is a refused request for which nothing is proposed.
type LeftOut struct {
	Request Request
	Why     string
}

// EverythingPublic stands for a host in the rules that AllowPublic makes, in records too. The loader would not read it.
const EverythingPublic = "(everything public)"

// AllowPublic is the policy with everything public allowed besides, for a run that the policy is learned from: every full name and
// every public address, but for what the policy denies. Local networks stay as closed as they are; on other ports
// than those of HTTP any protocol is let through. No file can say this, and a run that uses it has to record that it did.
func (p *Policy) AllowPublic() *Policy {
	out := *p
	everything := Host{public: true}
	out.Network.Allow = append(slices.Clone(p.Network.Allow),
		Rule{Host: everything, Ports: []PortRange{{80, 80}, {443, 443}}},
		Rule{Host: everything, Ports: []PortRange{{1, 79}, {81, 442}, {444, allPorts}}, TCP: true})
	return &out
}

// maxNames is how many names of one domain are listed before a wildcard stands for them.
const maxNames = 5

// Learn proposes the smallest additions that would have allowed the refused requests: a bundle where one has the
// host, else the host itself, and a wildcard only for more than a few names of one domain. What the policy denies stays
// denied, what it limits to some requests stays limited, and no addition opens a local network or a whole public suffix.
// found is as for [Policy.Expand]; without it the discovered bundles are never proposed.
func (p *Policy) Learn(refused []Request, found ...Bundle) Lesson {
	expanded, _ := p.Expand(found...)
	l := &learner{policy: p}
	for _, r := range refused {
		l.sort(r, expanded.Decide(r))
	}
	l.bundles(found)
	l.wildcards()
	for _, w := range l.wanted {
		l.host(w)
	}
	slices.SortFunc(l.lesson.Left, func(a, b LeftOut) int { return cmp.Compare(a.Request.String(), b.Request.String()) })
	return l.lesson
}

type learner struct {
	policy *Policy
	wanted []wish
	lesson Lesson
}

// wish is a refused request that an addition may allow.
type wish struct {
	request Request
	verdict Verdict
}

func (w wish) port() PortRange { return PortRange{w.request.Port, w.request.Port} }

// sort puts away what nothing can or need be done about.
func (l *learner) sort(r Request, v Verdict) {
	why := ""
	switch {
	case v.Allowed():
		return
	case v.Code == CodeDenied:
		why = fmt.Sprintf("the policy denies it (%s)", v.Place())
	case v.Target.IsZero():
		why = v.Reason
	default:
		why = v.Target.NeedsEntry()
		if why == "" {
			why = ownSuffix(v.Target)
		}
	}
	known := slices.ContainsFunc(l.wanted, func(w wish) bool { return w.verdict.Target == v.Target && w.request.sameAs(r) })
	switch {
	case why != "":
		l.leave(r, why)
	case !known:
		l.wanted = append(l.wanted, wish{r, v})
	}
}

// ownSuffix refuses names that nobody can own: public suffixes, and endings that mean the local network.
func ownSuffix(h Host) string {
	if h.addr.IsValid() {
		return ""
	}
	suffix, _ := publicsuffix.PublicSuffix(h.name)
	switch last := h.name[strings.LastIndexByte(h.name, '.')+1:]; {
	case suffix == h.name:
		return "it is a public suffix"
	case slices.Contains([]string{"local", "localhost", "internal", "lan", "home", "corp", "arpa", "invalid", "test", "onion"}, last):
		return fmt.Sprintf("names under .%s are of a local network; add an entry with `private: true` if it is meant", last)
	}
	return ""
}

func (r Request) sameAs(o Request) bool {
	return r.Port == o.Port && r.Method == o.Method && r.Path == o.Path
}

func (l *learner) leave(r Request, why string) {
	left := LeftOut{r, why}
	if !slices.Contains(l.lesson.Left, left) {
		l.lesson.Left = append(l.lesson.Left, left)
	}
}

// add takes the wishes that the addition grants away from those that are left.
func (l *learner) add(item, why string, grants func(wish) bool) {
	a := Addition{Item: item, Why: why}
	l.wanted = slices.DeleteFunc(l.wanted, func(w wish) bool {
		if !grants(w) {
			return false
		}
		a.Requests = append(a.Requests, w.request)
		return true
	})
	l.lesson.Add = append(l.lesson.Add, a)
}

// bundles proposes the bundles that have what is wanted: the one with the most of it first, and of several such the
// smallest.
func (l *learner) bundles(found []Bundle) {
	for {
		var best Bundle
		most := 0
		for _, name := range Bundles() {
			b, _ := LookupBundle(name)
			b = b.with(found)
			n := 0
			for _, w := range l.wanted {
				if b.grants(w) {
					n++
				}
			}
			if n > most || n == most && n > 0 && len(b.Hosts) < len(best.Hosts) {
				if !l.opens(b.Hosts) {
					best, most = b, n
				}
			}
		}
		if most == 0 {
			return
		}
		l.add(best.Name, fmt.Sprintf("a bundle, of %s: %s", counted(len(best.Hosts), "host"), best.About), best.grants)
	}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (b Bundle) grants(w wish) bool {
	return b.has(BundleHost{Host: w.verdict.Target, Ports: []PortRange{w.port()}})
}

// opens reports whether an entry for the hosts would let through what the policy limits to some requests or bytes.
func (l *learner) opens(hosts []BundleHost) bool {
	return slices.ContainsFunc(l.policy.Network.Allow, func(r Rule) bool {
		return (len(r.HTTP) > 0 || r.Limits != Limits{}) && slices.ContainsFunc(hosts, func(h BundleHost) bool {
			return (h.Host.covers(r.Host) || r.Host.covers(h.Host)) && overlapPorts(h.Ports, r.Ports)
		})
	})
}

// wildcards proposes one for more than a few names of one domain on the port of HTTPS.
func (l *learner) wildcards() {
	names := map[string][]string{}
	for _, w := range l.wanted {
		if domain := w.domain(); domain != "" && !slices.Contains(names[domain], w.verdict.Target.name) {
			names[domain] = append(names[domain], w.verdict.Target.name)
		}
	}
	for _, domain := range sortedNames(names) {
		host, err := ParseHost("*." + domain)
		if err != nil || len(names[domain]) <= maxNames || l.opens([]BundleHost{{Host: host, Ports: []PortRange{{443, 443}}}}) {
			continue
		}
		l.add(quoteYAML(host.String()), fmt.Sprintf("%d names of one domain", len(names[domain])), func(w wish) bool { return w.domain() == domain })
	}
}

func sortedNames(m map[string][]string) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// domain is the registrable domain that the host is below, empty for the domain itself and where no wildcard would do.
func (w wish) domain() string {
	target := w.verdict.Target
	if target.addr.IsValid() || w.request.Port != 443 || w.request.Method != "" || w.verdict.Code != CodeNoRule {
		return ""
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(target.name)
	if err != nil || domain == target.name {
		return ""
	}
	return domain
}

// host proposes the host itself.
func (l *learner) host(w wish) {
	item, why := suggest(w.request, w.verdict)
	if item == "" {
		l.leave(w.request, why)
		return
	}
	l.lesson.Add = append(l.lesson.Add, Addition{Item: item, Why: why, Requests: []Request{w.request}})
}
