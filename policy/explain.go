package policy

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// ParseRequest reads what `policy explain` is asked: HOST[:PORT], and with it METHOD and PATH or neither. The port is
// 443 when there is none; a query of the path is left out. The host is not checked here, since [Policy.Decide] answers for any.
func ParseRequest(target, method, path string) (Request, error) {
	if strings.Contains(target, "://") || strings.Contains(target, "/") {
		return Request{}, fmt.Errorf("%q: want HOST[:PORT] METHOD /PATH, not a URL", target)
	}
	if (method == "") != (path == "") {
		return Request{}, errors.New("want a method and a path, or neither")
	}
	path, _, _ = strings.Cut(path, "?")
	r := Request{Host: strings.Trim(target, "[]"), Port: 443, Method: strings.ToUpper(method), Path: path}
	if strings.Count(target, ":") > 1 && !strings.Contains(target, "]:") {
		return r, nil // an IPv6 address without a port
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return r, nil
	}
	n, err := parsePort(port)
	if err != nil {
		return Request{}, err
	}
	r.Host, r.Port = host, n
	return r, nil
}

// Explanation is a verdict with what somebody needs who wants another one.
type Explanation struct {
	Request Request
	Verdict Verdict
	Place   Place  // of the deciding rule; the zero Place when there is none
	Line    string // the deciding rule in the form of the file; empty when there is none
	Add     string // an item for network.allow that would allow the request; empty when it is allowed or can't be
	Hint    string // what to do instead of adding, or beside it
}

// Explain answers a request as [Policy.Decide] does, and says which rule decided and what to add.
func (p *Policy) Explain(r Request) Explanation {
	v := p.Decide(r)
	e := Explanation{Request: r, Verdict: v, Place: v.Place()}
	if v.Rule != nil {
		e.Line = v.Rule.String()
	}
	if !v.Allowed() {
		e.Add, e.Hint = suggest(r, v)
	}
	if name := bundleOf(v.Target, r.Port); v.Code == CodeNoRule && e.Hint == "" && name != "" {
		e.Hint = fmt.Sprintf("the bundle %s has it, with the hosts that belong to it", name)
	}
	return e
}

// bundleOf is the smallest bundle that lists a host, if there is one.
func bundleOf(target Host, port uint16) string {
	name, size := "", 0
	for _, row := range bundleData() {
		b := row.bundle()
		if b.has(BundleHost{Host: target, Ports: []PortRange{{port, port}}}) && (name == "" || len(b.Hosts) < size) {
			name, size = b.Name, len(b.Hosts)
		}
	}
	return name
}

// suggest proposes the narrowest rule that the loader accepts.
func suggest(r Request, v Verdict) (add, hint string) {
	switch v.Code {
	case CodeBadHost, CodeBadRequest, CodeNoPolicy:
		return "", "no rule can allow this"
	case CodeDenied:
		return "", fmt.Sprintf("a deny rule wins over every allow rule: change it (%s)", v.Place())
	}
	rule := Rule{Host: v.Target, Ports: []PortRange{{r.Port, r.Port}}}
	if _, err := ParseHost(v.Target.String()); err != nil {
		return "", err.Error()
	}
	if v.Code == CodeRequest || r.Method != "" {
		text := r.Method + " " + strings.ReplaceAll(v.pathText(r), "*", "%2A")
		line, err := ParseHTTPRule(text)
		if err != nil {
			return "", err.Error()
		}
		rule.HTTP = []HTTPRule{line}
	} else if r.Port != 80 && r.Port != 443 {
		hint = "tcp: true lets any protocol through; leave it out when it speaks TLS or HTTP"
		rule.TCP = true
	}
	if v.Target.isSingleLabel() {
		rule.Private = true
		hint = "a short name is looked up on the runner's network"
	}
	if class := AddressClass(v.Target.Addr()); v.Target.Addr().IsValid() && class != ClassPublic {
		hint = fmt.Sprintf("this is a %s address", class)
	}
	return rule.String(), hint
}

// pathText is the path that was decided on, or the one that was asked for when the host was refused first.
func (v Verdict) pathText(r Request) string {
	if s := v.Path.String(); s != "" {
		return s
	}
	if p, err := ParsePath(r.Path); err == nil {
		return p.String()
	}
	return r.Path
}

// String is the rule as an item of the file, in its shortest form.
func (r Rule) String() string {
	if r.Bundle != "" {
		return r.Bundle
	}
	host := r.Host.String()
	simple := !r.TCP && !r.Private && r.To.IsZero() && len(r.HTTP) == 0 && r.Limits == (Limits{}) && !r.Host.isSingleLabel()
	if simple && len(r.Ports) == 1 && r.Ports[0].First == r.Ports[0].Last {
		return r.shortString(host)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "{host: %s", quoteYAML(host))
	if ports := r.portsString(); ports != "" {
		fmt.Fprintf(&b, ", port: %s", ports)
	}
	if r.TCP {
		b.WriteString(", tcp: true")
	}
	if r.Private {
		b.WriteString(", private: true")
	}
	if !r.To.IsZero() {
		fmt.Fprintf(&b, ", to: %q", r.To)
	}
	if len(r.HTTP) > 0 {
		lines := convert(r.HTTP, func(h HTTPRule) string { return strconv.Quote(h.String()) })
		fmt.Fprintf(&b, ", rules: [%s]", strings.Join(lines, ", "))
	}
	b.WriteString(r.Limits.fieldString())
	b.WriteString("}")
	return b.String()
}

func (r Rule) shortString(host string) string {
	switch port := r.Ports[0].First; {
	case port == 443 && strings.Contains(host, ":"):
		return strconv.Quote("[" + host + "]")
	case port == 443:
		return quoteYAML(host)
	default:
		return strconv.Quote(net.JoinHostPort(host, strconv.Itoa(int(port))))
	}
}

// portsString is empty for the default of an allow rule.
func (r Rule) portsString() string {
	words := convert(r.Ports, func(p PortRange) string {
		if p.First == p.Last {
			return p.String()
		}
		return strconv.Quote(p.String())
	})
	switch {
	case len(r.Ports) == 1 && r.Ports[0] == PortRange{443, 443} && !r.TCP && r.To.IsZero():
		return ""
	case len(r.Ports) == 1:
		return words[0]
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func (l Limits) fieldString() string {
	var parts []string
	if l.Upload != 0 {
		parts = append(parts, "upload: "+l.Upload.String())
	}
	if l.Download != 0 {
		parts = append(parts, "download: "+l.Download.String())
	}
	if l.Idle != 0 {
		parts = append(parts, "idle: "+FormatDuration(l.Idle))
	}
	if l.Connect != 0 {
		parts = append(parts, "connect: "+FormatDuration(l.Connect))
	}
	if len(parts) == 0 {
		return ""
	}
	return ", limits: {" + strings.Join(parts, ", ") + "}"
}

// quoteYAML puts quotes around what YAML would take for something else: wildcards and addresses.
func quoteYAML(s string) string {
	if strings.ContainsAny(s, "*:") || isAmbiguous(s) {
		return strconv.Quote(s)
	}
	return s
}
