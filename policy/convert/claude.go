package convert

import "strings"

const onlyHTTPS = "every port of a domain is allowed there, and 443 alone here; write `{host: NAME, port: 80}` where plain HTTP is needed"

// claude reads a settings.json of Claude Code: the domains of its sandbox, and the rules on WebFetch and Read
// (https://code.claude.com/docs/en/settings).
func (b *builder) claude(text []byte) error {
	o, err := parseObject(text)
	if err != nil {
		return err
	}
	permissions := o.object("permissions")
	var rules []string
	if permissions.take("allow", &rules) {
		for _, rule := range rules {
			b.claudeRule(&b.allow, "permissions.allow", rule)
		}
	}
	rules = nil
	if permissions.take("deny", &rules) {
		for _, rule := range rules {
			b.claudeRule(&b.deny, "permissions.deny", rule)
		}
	}
	b.rest("permissions", permissions, "a run asks nobody: what the policy allows is allowed")
	b.sandbox("sandbox.", o.object("sandbox"))
	b.rest("", o, "nothing in a policy corresponds to it")
	return nil
}

// claudeRule reads Tool or Tool(argument).
func (b *builder) claudeRule(list *[]string, at, rule string) {
	tool, argument, _ := strings.Cut(strings.TrimSuffix(rule, ")"), "(")
	domain, isDomain := strings.CutPrefix(argument, "domain:")
	switch {
	case tool == "WebFetch" && isDomain:
		b.host(list, at, domain)
	case tool == "WebFetch" || tool == "WebSearch":
		b.leave(at+": "+rule, "it is about every host; name the hosts")
	case tool == "Read" && list == &b.deny && argument != "":
		b.path(at, argument)
	default:
		b.leave(at+": "+rule, "a policy limits what the sandbox reaches, not which tools and commands run in it")
	}
}

// srt reads the settings of Anthropic's sandbox-runtime (https://github.com/anthropic-experimental/sandbox-runtime).
func (b *builder) srt(text []byte) error {
	o, err := parseObject(text)
	if err != nil {
		return err
	}
	b.sandbox("", o)
	return nil
}

// sandbox reads the part that both tools have.
func (b *builder) sandbox(at string, o object) {
	network := o.object("network")
	var domains []string
	if network.take("allowedDomains", &domains) {
		b.domains(&b.allow, at+"network.allowedDomains", domains)
		if len(b.allow) > 0 {
			b.leave(at+"network.allowedDomains", onlyHTTPS)
		}
	}
	domains = nil
	if network.take("deniedDomains", &domains) {
		b.domains(&b.deny, at+"network.deniedDomains", domains)
	}
	b.rest(at+"network", network, "nothing of the host's sockets and proxies is visible in a run")
	files := o.object("filesystem")
	var paths []string
	if files.take("denyRead", &paths) {
		for _, path := range paths {
			if strings.HasPrefix(path, "/") {
				path = "/" + path // absolute here, relative to the project in a policy
			}
			b.path(at+"filesystem.denyRead", path)
		}
	}
	b.rest(at+"filesystem", files, "a run sees the project alone, and its files stay as they are until the changes are applied")
	b.rest(strings.TrimSuffix(at, "."), o, "nothing in a policy corresponds to it")
}

func (b *builder) domains(list *[]string, at string, domains []string) {
	for _, domain := range domains {
		b.host(list, at, domain)
	}
}

// rest names the members that nobody has read.
func (b *builder) rest(at string, o object, why string) {
	for _, key := range o.keys() {
		if key != "$schema" {
			b.leave(strings.TrimPrefix(at+"."+key, "."), why)
		}
	}
}

// awf reads a list of domains of gh-aw-firewall, one in a line or between commas
// (https://github.github.io/gh-aw-firewall/guides/domain-filtering). A domain there stands for the names below it as well.
func (b *builder) awf(text string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for domain := range strings.SplitSeq(line, ",") {
			domain = strings.TrimSpace(domain)
			if domain == "" {
				continue
			}
			port := ""
			if rest, ok := strings.CutPrefix(domain, "http://"); ok {
				domain, port = rest, ":80"
			}
			domain = strings.TrimSuffix(strings.TrimPrefix(domain, "https://"), "/")
			b.host(&b.allow, "domain", domain+port)
			if wild := "*." + strings.TrimPrefix(domain, "."); !strings.Contains(domain, "*") {
				if _, err := hostItem(domain); err == nil {
					b.host(&b.allow, "domain", wild+port)
				}
			}
		}
	}
	if len(b.allow) > 0 {
		b.leave("ports", onlyHTTPS)
	}
}
