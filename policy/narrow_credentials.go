package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func (n *narrower) credentials() {
	n.out.Credentials = slices.Clone(n.project.Credentials)
	for i, c := range n.project.Credentials {
		path := "credentials." + c.Name
		j := slices.IndexFunc(n.ceiling.Credentials, func(o Credential) bool { return o.Name == c.Name })
		if j < 0 {
			names := strings.Join(convert(n.ceiling.Credentials, func(o Credential) string { return o.Name }), ", ")
			hint := "it has none"
			if names != "" {
				hint = "it has " + names
			}
			n.refuse(path, "the ceiling has no credential of this name", hint)
			continue
		}
		n.out.Credentials[i] = n.credential(path, c, n.ceiling.Credentials[j])
	}
}

func (n *narrower) credential(path string, c, ceiling Credential) Credential {
	if c.From != ceiling.From {
		n.refuse(path+".from", fmt.Sprintf("the ceiling takes it from %s", ceiling.From), "")
	}
	if c.Key != ceiling.Key {
		n.refuse(path+".key", "the ceiling names another key", "")
	}
	n.sameText(path+".broker", &c.Broker, ceiling.Broker)
	n.sameText(path+".identity", &c.Identity, ceiling.Identity)
	n.sameText(path+".header", &c.Header, ceiling.Header)
	n.sameText(path+".scheme", &c.Scheme, ceiling.Scheme)
	n.sameText(path+".username", &c.Username, ceiling.Username)
	n.scope(path, c, ceiling)
	if c.AllowBroad != "" && ceiling.AllowBroad == "" {
		n.refuse(path+".allow-broad", "the ceiling does not allow a credential without a scope", "")
	}
	if c.PublicRead && !ceiling.PublicRead {
		n.refuse(path+".public-read", "the ceiling does not allow other repositories to be read", "")
	}
	c.Deliver = stricter(n, path+".deliver", c.Deliver, ceiling.Deliver, DeliverInject, DeliverFile, DeliverEnv)
	c.Hosts = n.hosts(path, c.Hosts, ceiling.Hosts)
	c.Rules = n.requests(path, c.Rules, ceiling.Rules)
	if rotate := smallerLimit(c.Rotate, ceiling.Rotate); rotate != c.Rotate {
		n.lowered(path+".rotate", FormatDuration(c.Rotate), FormatDuration(rotate))
		c.Rotate = rotate
	}
	c.RotateEnforce = c.RotateEnforce || ceiling.RotateEnforce
	return c
}

// sameText takes over what the ceiling says and the project leaves open.
func (n *narrower) sameText(path string, value *string, ceiling string) {
	switch {
	case ceiling == "" || *value == ceiling:
	case *value == "":
		*value = ceiling
	default:
		n.refuse(path, fmt.Sprintf("the ceiling has %q", ceiling), "")
	}
}

// scope compares repositories, permissions and refs.
func (n *narrower) scope(path string, c, ceiling Credential) {
	for i, r := range c.Repositories {
		if !slices.ContainsFunc(ceiling.Repositories, func(o string) bool { return strings.EqualFold(o, r) }) {
			n.refuse(fmt.Sprintf("%s.repositories[%d]", path, i), fmt.Sprintf("the ceiling does not allow the repository %s", r), "it allows "+strings.Join(ceiling.Repositories, ", "))
		}
	}
	rank := []string{"", "read", "write", "admin"}
	for _, name := range slices.Sorted(maps.Keys(c.Permissions)) {
		have, most := c.Permissions[name], ceiling.Permissions[name]
		if slices.Index(rank, have) > slices.Index(rank, most) {
			if most == "" {
				most = "nothing"
			}
			n.refuse(path+".permissions."+name, fmt.Sprintf("the ceiling allows %s, not %s", most, have), "")
		}
	}
	for i, ref := range c.Push {
		if !slices.ContainsFunc(ceiling.Push, func(o string) bool { return coversRef(o, ref) }) {
			n.refuse(fmt.Sprintf("%s.push[%d]", path, i), fmt.Sprintf("the ceiling does not allow a push to %s", ref), "")
		}
	}
}

// coversRef treats refs as the paths that they are.
func coversRef(pattern, ref string) bool {
	a, err1 := refParts(pattern)
	b, err2 := refParts(ref)
	return err1 == nil && err2 == nil && coversPath(a, b)
}

// refParts splits at slashes and stars. Nothing in a ref is escaped, so a percent sign is itself.
func refParts(s string) ([]pathPart, error) {
	var parts []pathPart
	for name := range strings.SplitSeq(s, "/") {
		if name == "**" {
			parts = append(parts, pathPart{deep: true})
			continue
		}
		if strings.Contains(name, "**") {
			return nil, fmt.Errorf("%q: ** must be a whole name", s)
		}
		parts = append(parts, pathPart{pieces: strings.Split(name, "*")})
	}
	return parts, nil
}

// hosts of a credential: where it may go is never for the project to widen.
func (n *narrower) hosts(path string, project, ceiling []Host) []Host {
	if len(project) == 0 {
		return ceiling
	}
	for _, h := range project {
		if !slices.ContainsFunc(ceiling, func(c Host) bool { return c.covers(h) }) {
			n.refuse(path+".host", fmt.Sprintf("the ceiling does not let it go to %s", h), "")
		}
	}
	return project
}

func (n *narrower) requests(path string, project, ceiling []HTTPRule) []HTTPRule {
	if len(ceiling) == 0 {
		return project
	}
	if len(project) == 0 {
		return ceiling
	}
	for i, line := range project {
		if !slices.ContainsFunc(ceiling, func(c HTTPRule) bool { return c.covers(line) }) {
			n.refuse(fmt.Sprintf("%s.rules[%d]", path, i), fmt.Sprintf("the ceiling does not let it go with %s", line), "")
		}
	}
	return project
}

// MatchRef reports whether a pattern of [Credential.Push] takes in a ref, which is a name and no pattern.
func MatchRef(pattern, ref string) bool {
	return !strings.Contains(ref, "*") && coversRef(pattern, ref)
}
