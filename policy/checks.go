package policy

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"
)

// failAt notes a problem at a key or item below path.
func (d *decoder) failAt(n *yaml.Node, path, message, hint string) bool {
	place, ok := d.places[path]
	if !ok {
		place = d.at(n)
	}
	d.problems = append(d.problems, Problem{Place: place, Path: path, Message: message, Hint: hint})
	return false
}

func checkMounts(d *decoder, n *yaml.Node, path string, mounts *[]Mount) bool {
	return noTwins(d, n, path, *mounts, "mount target", func(m Mount) string { return m.Target })
}

func checkEnv(d *decoder, n *yaml.Node, path string, env *[]EnvVar) bool {
	return noTwins(d, n, path, *env, "variable", func(e EnvVar) string { return e.Name })
}

// noTwins refuses two items with one name: which of them counts would be anybody's guess.
func noTwins[T any](d *decoder, n *yaml.Node, path string, items []T, what string, name func(T) string) bool {
	ok := true
	first := map[string]int{}
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", path, i)
		if line, twice := first[name(item)]; twice {
			ok = d.failAt(n, at, fmt.Sprintf("the %s %s is there twice; the first is in line %d", what, shorten(name(item)), line), "")
			continue
		}
		first[name(item)] = d.places[at].Line
	}
	return ok
}

// finishRule gives a rule its place, and its ports when the file names none.
func finishRule(ports PortRange) func(*decoder, *yaml.Node, string, *Rule) bool {
	return func(d *decoder, n *yaml.Node, _ string, r *Rule) bool {
		r.Place = d.at(n)
		if r.Bundle == "" && len(r.Ports) == 0 {
			r.Ports = []PortRange{ports}
		}
		return true
	}
}

func checkAllowEntry(d *decoder, n *yaml.Node, path string, r *Rule) bool {
	ok := checkRulesKey(d, n, path, r)
	if r.TCP && len(r.Ports) == 0 {
		ok = d.failAt(n, path+".tcp", "raw TCP needs a port", "add `port:`")
	}
	if r.TCP && len(r.HTTP) > 0 {
		ok = d.failAt(n, path+".rules", "rules need a look at the connection, which `tcp: true` rules out", "remove one of them")
	}
	if r.Host.wildcard && !r.To.IsZero() {
		ok = d.failAt(n, path+".to", "a wildcard can't be sent to one place", "name the host")
	}
	if !r.To.IsZero() && len(r.Ports) == 0 {
		ok = d.failAt(n, path+".to", "`to` needs a port", "add `port:`, the one that is dialled inside")
	}
	if r.Host.addr.IsValid() && r.Private {
		ok = d.failAt(n, path+".private", "an address that is named needs no `private`", "remove it")
	}
	if r.Host.isSingleLabel() && r.To.IsZero() && !r.Private {
		ok = d.failAt(n, path+".host", "a name without a dot means something on one network only", "add `to: host:port`, or `private: true`")
	}
	return ok
}

func checkDenyEntry(d *decoder, n *yaml.Node, path string, r *Rule) bool {
	return checkRulesKey(d, n, path, r)
}

// checkRulesKey refuses an empty list: is that "no request" or "no rules"?
func checkRulesKey(d *decoder, n *yaml.Node, path string, r *Rule) bool {
	if _, set := d.places[path+".rules"]; set && len(r.HTTP) == 0 {
		return d.failAt(n, path+".rules", "the list of rules is empty", "leave the key out to take in every request")
	}
	return true
}

// checkAllowList refuses rules that change nothing, because somebody believes that they do.
func checkAllowList(d *decoder, n *yaml.Node, path string, rules *[]Rule) bool {
	ok := true
	for i := range *rules {
		for j := range *rules {
			if i == j {
				continue
			}
			if reason := idleRule((*rules)[i], (*rules)[j], j < i); reason != "" {
				at := fmt.Sprintf("%s[%d]", path, i)
				ok = d.failAt(n, at, fmt.Sprintf("%s line %d", reason, (*rules)[j].Place.Line), "remove one of them")
				break
			}
		}
	}
	return ok
}

// idleRule says why r is without effect beside other: because other is the same and comes first, or lets every
// request through that r is there to limit, or sends the same connection elsewhere.
func idleRule(r, other Rule, otherFirst bool) string {
	switch {
	case otherFirst && r.sameTarget(other) && slices.EqualFunc(r.HTTP, other.HTTP, HTTPRule.Equal):
		return "the same rule is in"
	case len(r.HTTP) > 0 && len(other.HTTP) == 0 && other.Host.covers(r.Host) && coversPorts(other.Ports, r.Ports):
		return "its rules limit nothing, since every request is allowed by"
	case otherFirst && r.Bundle == "" && r.Host == other.Host && overlapPorts(r.Ports, other.Ports) && !r.To.IsZero() && !other.To.IsZero() && r.To != other.To:
		return "the host is sent to another place by"
	}
	return ""
}

func (r Rule) sameTarget(o Rule) bool {
	return r.Bundle == o.Bundle && r.Host == o.Host && slices.Equal(r.Ports, o.Ports) && r.TCP == o.TCP
}

func overlapPorts(ports, others []PortRange) bool {
	return slices.ContainsFunc(ports, func(p PortRange) bool {
		return slices.ContainsFunc(others, func(o PortRange) bool { return p.First <= o.Last && o.First <= p.Last })
	})
}

func coversPorts(ports, others []PortRange) bool {
	for _, o := range others {
		if !slices.ContainsFunc(ports, func(p PortRange) bool { return p.covers(o) }) {
			return false
		}
	}
	return true
}

func checkCredential(d *decoder, n *yaml.Node, path string, c *Credential) bool {
	ok := checkGitHubKeys(d, n, path, c)
	if (c.Key != Origin{}) != (c.From.Kind == "github-app") {
		ok = d.failAt(n, path+".key", "a private key is for github-app, which needs one", `key: file:PATH or env:NAME`)
	}
	ok = checkServer(d, n, path, c) && ok
	ok = checkDeliver(d, n, path, c) && ok
	if c.Username != "" && c.Scheme != "basic" {
		ok = d.failAt(n, path+".username", "a user name is for `scheme: basic`", "")
	}
	ok = checkAge(d, n, path, c) && ok
	if _, set := d.places[path+".rules"]; set && len(c.Rules) == 0 {
		ok = d.failAt(n, path+".rules", "the list of rules is empty", "leave the key out to take in every request")
	}
	for i, h := range c.Hosts {
		if h.isSingleLabel() {
			ok = d.failAt(n, path+".host", fmt.Sprintf("%s is no full name", h), fmt.Sprintf("item %d: write it with its domain", i+1))
		}
	}
	return ok
}

// checkServer is for the keys that say where an identity is exchanged, and for whom.
func checkServer(d *decoder, n *yaml.Node, path string, c *Credential) bool {
	ok := true
	if c.Broker != "" && c.From.Kind != "github-oidc" && c.From.Kind != "vault" {
		ok = d.failAt(n, path+".broker", "only github-oidc goes through a broker, and vault through a server", "remove it")
	}
	if c.Broker == "" && c.From.Kind == "vault" {
		ok = d.failAt(n, path+".broker", "nobody knows where the Vault server is", "add `broker: https://...`, its address")
	}
	if c.Identity != "" && !slices.Contains([]string{"github-oidc", "vault", "gcp"}, c.From.Kind) {
		ok = d.failAt(n, path+".identity", fmt.Sprintf("a credential from %s has no identity to choose", c.From.Kind), "remove it")
	}
	if c.Identity == "" && c.From.Kind == "vault" {
		ok = d.failAt(n, path+".identity", "Vault needs the name of a role for the job", "add `identity: ROLE`")
	}
	return ok
}

// checkDeliver refuses what would do nothing for a secret that is inside: nobody is between the agent and the host then.
func checkDeliver(d *decoder, n *yaml.Node, path string, c *Credential) bool {
	ok := true
	aws := c.From.Kind == "aws"
	if c.Deliver == DeliverEnv && c.Env == "" && !aws {
		ok = d.failAt(n, path+".deliver", "`deliver: env` needs the name of the variable", "add `env: NAME`")
	}
	if c.Deliver == DeliverEnv && c.Env != "" && aws {
		ok = d.failAt(n, path+".env", "the variables of AWS have names of their own", "remove it")
	}
	if c.Deliver == DeliverInject || c.Deliver == "" {
		if aws {
			ok = d.failAt(n, path+".from", "AWS has each request signed with the secret, so it can't be attached on the way", "add `deliver: env` or `deliver: file`: it is inside then, for an hour at most")
		}
		return ok
	}
	for _, key := range []string{"push", "public-read", "host", "header", "scheme", "username", "rules"} {
		if _, set := d.places[path+"."+key]; set {
			ok = d.failAt(n, path+"."+key, fmt.Sprintf("`%s` is kept on the wire, where nobody looks with `deliver: %s`", key, c.Deliver), "remove it, or use `deliver: inject`")
		}
	}
	if c.Repositories != nil && !c.From.isGitHub() {
		ok = d.failAt(n, path+".repositories", fmt.Sprintf("`repositories` of a token that exists is kept on the wire, where nobody looks with `deliver: %s`", c.Deliver), "remove it, or use `deliver: inject`")
	}
	return ok
}

// checkGitHubKeys insists on a scope: GitHub takes an empty list of repositories or permissions for all of them.
func checkGitHubKeys(d *decoder, n *yaml.Node, path string, c *Credential) bool {
	ok := true
	if !c.From.isGitHub() && path == "credentials.github" {
		return checkGivenGitHub(d, n, path, c)
	}
	if !c.From.isGitHub() {
		for name, set := range map[string]bool{"repositories": c.Repositories != nil, "permissions": c.Permissions != nil, "push": c.Push != nil, "public-read": c.PublicRead} {
			if set {
				ok = d.failAt(n, path+"."+name, fmt.Sprintf("only a token of GitHub's has %s, not one from %s", name, c.From.Kind), "remove it")
			}
		}
		return ok
	}
	if len(c.Repositories) == 0 {
		ok = d.failAt(n, path+".repositories", "a GitHub token needs its repositories: without them it is for all", `repositories: [self]`)
	}
	if len(c.Permissions) == 0 {
		ok = d.failAt(n, path+".permissions", "a GitHub token needs its permissions: without them it has all", `permissions: {contents: read}`)
	}
	if len(c.Push) > 0 && c.Permissions["contents"] != "write" {
		ok = d.failAt(n, path+".push", "pushing needs `contents: write` among the permissions", "")
	}
	return ok
}

// checkGivenGitHub is for a token of GitHub's that existed before. The runner holds it to repositories and refs on the wire; permissions
// are the token's own.
func checkGivenGitHub(d *decoder, n *yaml.Node, path string, c *Credential) bool {
	ok := true
	if c.Permissions != nil {
		ok = d.failAt(n, path+".permissions", fmt.Sprintf("a token from %s has the permissions that it has", c.From.Kind), "remove it, or use github-app or github-oidc")
	}
	if slices.Contains(c.Repositories, "self") {
		ok = d.failAt(n, path+".repositories", fmt.Sprintf("with a token from %s the repository has to be named", c.From.Kind), "write owner/name")
	}
	for name, set := range map[string]bool{"push": c.Push != nil, "public-read": c.PublicRead} {
		if set && len(c.Repositories) == 0 {
			ok = d.failAt(n, path+"."+name, fmt.Sprintf("`%s` needs `repositories`", name), "repositories: [owner/name]")
		}
	}
	return ok
}
