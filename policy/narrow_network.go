package policy

import (
	"fmt"
	"slices"
	"strings"
)

func (n *narrower) network() {
	p, c := n.project.Network, n.ceiling.Network
	out := Network{
		Capture: stricter(n, "network.capture", p.Capture, c.Capture, CaptureRequired, CaptureAuto),
		Deny:    slices.Clone(p.Deny), Limits: p.Limits.narrow(c.Limits),
	}
	for _, rule := range c.Deny {
		if !slices.ContainsFunc(p.Deny, func(r Rule) bool { return r.String() == rule.String() }) {
			out.Deny = append(out.Deny, rule)
		}
	}
	if out.Limits != p.Limits {
		n.lowered("network.limits", "{"+strings.TrimPrefix(p.Limits.fieldString(), ", ")+"}", strings.TrimPrefix(out.Limits.fieldString(), ", "))
	}
	for i, rule := range p.Allow {
		out.Allow = append(out.Allow, n.allowRule(fmt.Sprintf("network.allow[%d]", i), rule)...)
	}
	n.out.Network = out
}

// allowRule gives what is left of a rule under the ceiling: mostly one rule, and several when different
// rules of the ceiling limit different ports.
func (n *narrower) allowRule(path string, rule Rule) []Rule {
	if rule.Bundle != "" {
		if !slices.ContainsFunc(n.ceiling.Network.Allow, func(c Rule) bool { return c.Bundle == rule.Bundle }) {
			n.refuse(path, fmt.Sprintf("the ceiling does not allow the bundle %s", rule.Bundle), n.allowedHint())
		}
		return []Rule{rule}
	}
	var out []Rule
	for _, ports := range rule.Ports {
		piece := rule
		piece.Ports = []PortRange{ports}
		piece, ok := n.allowPiece(path, piece)
		if !ok {
			return nil
		}
		same := slices.IndexFunc(out, func(o Rule) bool {
			return o.Limits == piece.Limits && slices.EqualFunc(o.HTTP, piece.HTTP, HTTPRule.Equal)
		})
		if same >= 0 {
			out[same].Ports = normalizePorts(append(slices.Clone(out[same].Ports), ports))
			continue
		}
		out = append(out, piece)
	}
	return out
}

// allowPiece narrows a rule with one range of ports.
func (n *narrower) allowPiece(path string, rule Rule) (Rule, bool) {
	var over []Rule
	for _, c := range n.ceiling.Network.Allow {
		if c.isOver(rule) {
			over = append(over, c)
		}
	}
	if len(over) == 0 {
		n.refuse(path, n.whyNot(rule), n.allowedHint())
		return rule, false
	}
	open := slices.IndexFunc(over, func(c Rule) bool { return len(c.HTTP) == 0 })
	switch {
	case open >= 0:
		return n.limited(path, rule, over[open]), true
	case len(rule.HTTP) == 0:
		return n.withRules(path, rule, over), true
	}
	for i, line := range rule.HTTP {
		j := slices.IndexFunc(over, func(c Rule) bool { return slices.ContainsFunc(c.HTTP, func(h HTTPRule) bool { return h.covers(line) }) })
		if j < 0 {
			n.refuse(fmt.Sprintf("%s.rules[%d]", path, i), fmt.Sprintf("the ceiling does not allow %s on %s", line, rule.Host), fmt.Sprintf("it has %s", over[0].String()))
			return rule, false
		}
		rule = n.limited(path, rule, over[j])
	}
	return rule, true
}

// credentialHosts keeps the hosts that credentials open to what the ceiling says of them. Where it says nothing, its own credential opens them.
func (n *narrower) credentialHosts() {
	if len(n.problems) > 0 { // a credential that is refused opens nothing
		return
	}
	for _, rule := range n.out.credentialRules() {
		about, over := false, []Rule(nil)
		for _, c := range n.ceiling.Network.Allow {
			about = about || c.isAbout(rule.Host)
			if c.Bundle == "" && c.isOver(rule) {
				over = append(over, c)
			}
		}
		open := slices.IndexFunc(over, func(c Rule) bool { return len(c.HTTP) == 0 })
		switch {
		case open >= 0:
			n.out.Network.Allow = append(n.out.Network.Allow, n.limited("credentials", rule, over[open]))
		case len(over) > 0:
			n.out.Network.Allow = append(n.out.Network.Allow, n.withRules("credentials", rule, over))
		case !about && !slices.ContainsFunc(n.ceiling.credentialRules(), func(c Rule) bool { return c.Host.covers(rule.Host) }):
			n.refuse("credentials", n.whyNot(rule), n.allowedHint())
		}
	}
}

// isOver reports whether c may stand over the rule, leaving method and path aside.
func (r Rule) isOver(rule Rule) bool {
	return r.Host.covers(rule.Host) && coversPorts(r.Ports, rule.Ports) && (r.TCP || !rule.TCP) && (r.Private || !rule.Private) && r.To == rule.To
}

// withRules puts the ceiling's rules on a rule that has none.
func (n *narrower) withRules(path string, rule Rule, over []Rule) Rule {
	from := rule.String()
	for _, c := range over {
		rule.HTTP = append(rule.HTTP, c.HTTP...)
		rule.Limits = rule.Limits.narrow(c.Limits)
	}
	n.narrowings = append(n.narrowings, Narrowing{Path: path, Place: rule.Place, From: from, To: rule.String(), Ceiling: over[0].Place})
	return rule
}

func (n *narrower) limited(path string, rule, over Rule) Rule {
	limits := rule.Limits.narrow(over.Limits)
	if limits != rule.Limits {
		from := rule.String()
		rule.Limits = limits
		n.narrowings = append(n.narrowings, Narrowing{Path: path, Place: rule.Place, From: from, To: rule.String(), Ceiling: over.Place})
	}
	return rule
}

func (n *narrower) whyNot(rule Rule) string {
	for _, c := range n.ceiling.Network.Allow {
		if !c.Host.covers(rule.Host) {
			continue
		}
		switch {
		case !coversPorts(c.Ports, rule.Ports):
			return fmt.Sprintf("the ceiling allows %s on port %s, not on %s", rule.Host, joinPorts(c.Ports), joinPorts(rule.Ports))
		case rule.TCP && !c.TCP:
			return fmt.Sprintf("the ceiling does not allow raw TCP to %s", rule.Host)
		case rule.Private && !c.Private:
			return fmt.Sprintf("the ceiling does not allow %s to have a private address", rule.Host)
		case rule.To != c.To:
			return fmt.Sprintf("the ceiling does not send %s to %s", rule.Host, rule.To)
		}
	}
	return fmt.Sprintf("the ceiling does not allow the host %s", rule.Host)
}

// allowedHint lists what the ceiling allows, if that is short.
func (n *narrower) allowedHint() string {
	if len(n.ceiling.Network.Allow) == 0 {
		return "the ceiling has no network.allow, so it allows no host"
	}
	words := convert(n.ceiling.Network.Allow, func(r Rule) string {
		if r.Bundle != "" {
			return r.Bundle
		}
		return r.Host.String()
	})
	if len(words) > 12 {
		words = append(words[:12], "...")
	}
	return "it allows " + strings.Join(words, ", ")
}
