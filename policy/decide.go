package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Action is the answer of a [Verdict]. The zero Action denies.
type Action int

// The actions.
const (
	Deny Action = iota // zero: a forgotten assignment fails closed
	Allow
)

// String is "deny" or "allow".
func (a Action) String() string {
	if a == Allow {
		return "allow"
	}
	return "deny"
}

// MarshalText is [Action.String].
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Code is the stable word for why a verdict is as it is.
type Code string

// The codes.
const (
	CodeNoPolicy   Code = ""            // the zero Verdict
	CodeAllowed    Code = "allowed"     // an allow rule matched, no deny rule did
	CodeDenied     Code = "denied"      // a deny rule matched
	CodeNoRule     Code = "no-rule"     // no rule is about the host
	CodePort       Code = "port"        // rules are about the host, but not the port
	CodeRequest    Code = "request"     // rules are about the host and port, but not the method and path
	CodeBadHost    Code = "bad-host"    // not a host that all programs read alike
	CodeBadRequest Code = "bad-request" // a method or path that is never passed on
)

// Request is what the agent asks for: a connection, or with Method and Path one HTTP request on it.
type Request struct {
	Host   string // name or address as the client has it
	Port   uint16
	Method string // empty (with Path) for a connection
	Path   string // up to "?", as it is on the wire
}

// String is "host:port" or "METHOD host:port/path".
func (r Request) String() string {
	host := r.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if r.Method == "" && r.Path == "" {
		return fmt.Sprintf("%s:%d", host, r.Port)
	}
	return fmt.Sprintf("%s %s:%d%s", r.Method, host, r.Port, r.Path)
}

// Verdict is the answer to a [Request]. The zero Verdict denies.
type Verdict struct {
	Action  Action
	Code    Code
	Reason  string    // one sentence for people
	Rule    *Rule     // the rule that decided, or that came closest; nil when there is none. Not to be changed.
	HTTP    *HTTPRule // the line of Rule that decided, if it was one
	Inspect bool      // an allowed connection must be read, and each request on it decided again
	TCP     bool      // an allowed connection may speak anything
	Private bool      // an allowed connection may go to a local network; see PermitsAddress
	To      Endpoint  // where an allowed connection goes instead of the target; zero: to the target
	Target  Host      // the host of the request in its one spelling
	Path    CleanPath // the path of the request in its one spelling
}

// Allowed reports whether the action is [Allow].
func (v Verdict) Allowed() bool { return v.Action == Allow }

// Place is where the policy has the rule that decided.
func (v Verdict) Place() Place {
	if v.Rule == nil {
		return Place{}
	}
	return v.Rule.Place
}

// PermitsAddress reports whether the runner may dial this address for an allowed connection: a public one, one that the
// policy names itself, or with `private: true` one of the local networks. A metadata service has to be named by address.
// Check the address that is dialled, after the last resolution.
func (v Verdict) PermitsAddress(addr netip.Addr) bool {
	if !v.Allowed() {
		return false
	}
	named := v.Target
	if !v.To.IsZero() {
		named = v.To.Host
	}
	class := AddressClass(addr)
	switch {
	case named.addr.IsValid():
		return named.addr == addr.Unmap()
	case class == ClassPublic:
		return true
	case class >= ClassLoopback:
		return v.Private || !v.To.IsZero()
	}
	return false
}

// Decide answers a request: allowed when an allow rule takes it in and no deny rule does. It is a pure function
// of its arguments, and denies whatever it can't read in one way only. A nil Policy denies.
func (p *Policy) Decide(r Request) Verdict {
	if p == nil {
		return Verdict{Reason: "there is no policy"}
	}
	target, err := ParseTarget(r.Host)
	if err != nil {
		return Verdict{Code: CodeBadHost, Reason: err.Error()}
	}
	if r.Port == 0 {
		return Verdict{Code: CodeBadHost, Reason: "port 0 is no port", Target: target}
	}
	if r.Method == "" && r.Path == "" {
		v := p.decideConnection(target, r.Port)
		v.Target = target
		return v
	}
	v := p.decideRequest(target, r)
	v.Target = target
	return v
}

// decideConnection lets a connection through that some request on it could be allowed for.
func (p *Policy) decideConnection(target Host, port uint16) Verdict {
	inspect := false
	for i := range p.Network.Deny {
		rule := &p.Network.Deny[i]
		if !rule.matchHost(target, port) {
			continue
		}
		if len(rule.HTTP) == 0 {
			return Verdict{Code: CodeDenied, Reason: "a deny rule names it", Rule: rule}
		}
		inspect = true
	}
	v, first := Verdict{Inspect: inspect}, (*Rule)(nil)
	for i := range p.Network.Allow {
		rule := &p.Network.Allow[i]
		if !rule.matchHost(target, port) {
			continue
		}
		if first == nil {
			first = rule
		}
		if v.To.IsZero() {
			v.To = rule.To
		}
		v.Private = v.Private || rule.Private
		if len(rule.HTTP) == 0 {
			v.TCP = v.TCP || rule.TCP
			v.Rule = cmp.Or(v.Rule, rule)
		}
	}
	if first == nil {
		return p.noRule(target, port)
	}
	v.Action, v.Code, v.Reason = Allow, CodeAllowed, "an allow rule names it"
	if v.Rule == nil {
		v.Rule, v.Inspect, v.Reason = first, true, "some requests are allowed there"
	}
	v.TCP = v.TCP && !v.Inspect
	return v
}

// noRule says how close it was.
func (p *Policy) noRule(target Host, port uint16) Verdict {
	for i := range p.Network.Allow {
		rule := &p.Network.Allow[i]
		if rule.Host.covers(target) {
			return Verdict{Code: CodePort, Reason: fmt.Sprintf("the host is allowed on port %s, not on %d", joinPorts(rule.Ports), port), Rule: rule}
		}
	}
	return Verdict{Code: CodeNoRule, Reason: "no rule allows the host"}
}

func joinPorts(ports []PortRange) string {
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = p.String()
	}
	return strings.Join(words, ", ")
}

func (p *Policy) decideRequest(target Host, r Request) Verdict {
	connection := p.decideConnection(target, r.Port)
	if !connection.Allowed() {
		return connection
	}
	if !isMethod(r.Method) || r.Method == "CONNECT" || r.Method == "TRACE" || r.Method == "TRACK" {
		return Verdict{Code: CodeBadRequest, Reason: "the method is not one that is passed on"}
	}
	path, err := ParsePath(r.Path)
	if err != nil {
		return Verdict{Code: CodeBadRequest, Reason: err.Error()}
	}
	v := p.decidePath(target, r, path)
	v.Path = path
	if v.Allowed() {
		v.Private, v.To = connection.Private, connection.To
	}
	return v
}

func (p *Policy) decidePath(target Host, r Request, path CleanPath) Verdict {
	for i := range p.Network.Deny {
		rule := &p.Network.Deny[i]
		for j := range rule.HTTP {
			if rule.matchHost(target, r.Port) && rule.HTTP[j].matchDenied(r.Method, path) {
				return Verdict{Code: CodeDenied, Reason: "a deny rule names the request", Rule: rule, HTTP: &rule.HTTP[j]}
			}
		}
	}
	var closest *Rule
	for i := range p.Network.Allow {
		rule := &p.Network.Allow[i]
		if !rule.matchHost(target, r.Port) {
			continue
		}
		if len(rule.HTTP) == 0 {
			return Verdict{Action: Allow, Code: CodeAllowed, Reason: "an allow rule names the host", Rule: rule}
		}
		for j := range rule.HTTP {
			if rule.HTTP[j].Match(r.Method, path) {
				return Verdict{Action: Allow, Code: CodeAllowed, Reason: "an allow rule names the request", Rule: rule, HTTP: &rule.HTTP[j]}
			}
		}
		closest = rule
	}
	return Verdict{Code: CodeRequest, Reason: "the host is allowed, but not this method and path", Rule: closest}
}
