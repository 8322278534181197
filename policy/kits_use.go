package policy

import (
	"fmt"
	"slices"
	"strings"
)

// KitUse is what a kit has brought into one run: for the plan, and for whoever starts the agent.
type KitUse struct {
	Kit        Kit
	Credential string   // that it works with, by its name in the policy; empty: none
	Added      bool     // the credential comes from the kit, not from the policy's file
	Hosts      []Host   // that the kit has added to network.allow
	Env        []EnvVar // the kit's settings that the policy does not set itself
}

// MissingCredentialError says that a kit can't work: nothing that it could sign in with is there.
type MissingCredentialError struct {
	Kit  string
	From []string // the variables that were looked for
	Name string   // how the policy could name a credential
}

func (e *MissingCredentialError) Error() string {
	if len(e.From) == 1 {
		return fmt.Sprintf("the agent %s needs a credential, and %s is not set", e.Kit, e.From[0])
	}
	return fmt.Sprintf("the agent %s needs a credential, and none of %s is set", e.Kit, strings.Join(e.From, ", "))
}

// Hint is what mends it.
func (e *MissingCredentialError) Hint() string {
	return fmt.Sprintf("set %s; or say in the policy where it is: credentials: {%s: {from: ...}}. It stays outside of the sandbox", e.From[0], e.Name)
}

// WithKit gives the policy with what the kit needs beside it: its name, the credential to work with, and the hosts of that. The policy
// itself stays as it is, and counts first: a credential of the kit's services that it names is the one, its variables hold, and to a
// host that one of its rules names the kit adds nothing, so that what was narrowed stays so.
//
// isSet tells whether a variable of the caller is there; without any for the kit the error is a [MissingCredentialError].
func (p *Policy) WithKit(k Kit, isSet func(string) bool) (*Policy, KitUse, error) {
	out := *p
	out.Agent = k.Name
	use := KitUse{Kit: k}
	chosen, credential, err := p.kitCredential(k, isSet)
	if err != nil {
		return nil, KitUse{}, err
	}
	if chosen != nil {
		use.Credential, use.Added = credential.Name, p.credential(credential.Name) == nil
		if use.Added {
			out.Credentials = append(slices.Clone(p.Credentials), credential)
			slices.SortFunc(out.Credentials, func(a, b Credential) int { return strings.Compare(a.Name, b.Name) })
		}
		use.Hosts = p.lackedHosts(credential)
		out.Network.Allow = append(slices.Clone(p.Network.Allow), convert(use.Hosts, kitRule(k.Name))...)
		use.Env = p.lackedEnv(chosen.Set)
	}
	use.Env = append(p.lackedEnv(k.Env), use.Env...)
	return &out, use, nil
}

// kitCredential chooses what the kit works with: nil for a kit that needs nothing.
func (p *Policy) kitCredential(k Kit, isSet func(string) bool) (*KitCredential, Credential, error) {
	var from []string
	for i, c := range k.Credentials {
		service, _ := LookupService(c.Service)
		for _, name := range service.Names {
			if have := p.credential(name); have != nil {
				return &k.Credentials[i], *have, nil
			}
		}
		from = append(from, c.From...)
	}
	for i, c := range k.Credentials {
		for _, variable := range c.From {
			if isSet(variable) {
				return &k.Credentials[i], c.credential(k.Name, variable), nil
			}
		}
	}
	if len(k.Credentials) == 0 {
		return nil, Credential{}, nil
	}
	return nil, Credential{}, &MissingCredentialError{Kit: k.Name, From: from, Name: k.Credentials[0].Service}
}

func (c KitCredential) credential(kit, variable string) Credential {
	return Credential{
		Name: c.Service, From: Origin{Kind: "env", Argument: variable}, Deliver: DeliverInject, Env: c.Env, Place: kitPlace(kit),
	}
}

// OfKit reports whether a kit has brought the credential: the policy's file does not name it.
func (c Credential) OfKit() bool {
	return c.Place.Line == 0 && strings.HasPrefix(c.Place.File, kitPlace("").File)
}

// kitPlace is where messages say that something comes from.
func kitPlace(name string) Place { return Place{File: "kit " + name} }

func kitRule(name string) func(Host) Rule {
	return func(h Host) Rule { return Rule{Host: h, Ports: []PortRange{{443, 443}}, Place: kitPlace(name)} }
}

func (p *Policy) credential(name string) *Credential {
	at := slices.IndexFunc(p.Credentials, func(c Credential) bool { return c.Name == name })
	if at < 0 {
		return nil
	}
	return &p.Credentials[at]
}

// credentialRules open the hosts of the credentials that are held to repositories: what is for another repository is refused there, so that
// nobody need write them down. A rule of the policy about one of the hosts counts in its place.
func (p *Policy) credentialRules() []Rule {
	var rules []Rule
	for _, c := range p.Credentials {
		if c.Deliver != DeliverInject || len(c.Repositories) == 0 {
			continue
		}
		for _, h := range p.lackedHosts(c) {
			if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Host == h }) {
				rules = append(rules, Rule{Host: h, Ports: []PortRange{{443, 443}}, Place: c.Place})
			}
		}
	}
	return rules
}

// lackedHosts are the hosts of a credential that no rule of the policy is about.
func (p *Policy) lackedHosts(c Credential) []Host {
	hosts := c.Hosts
	if service, ok := ServiceOf(c); ok && len(hosts) == 0 {
		for _, place := range service.Attach {
			hosts = append(hosts, place.Hosts...)
		}
	}
	return slices.DeleteFunc(slices.Clone(hosts), func(h Host) bool {
		return slices.ContainsFunc(p.Network.Allow, func(r Rule) bool { return r.isAbout(h) })
	})
}

// isAbout reports whether the rule, or the list of its bundle, says something about HTTPS to the host.
func (r Rule) isAbout(h Host) bool {
	https := []PortRange{{443, 443}}
	if r.Bundle == "" || !r.Host.IsZero() {
		return r.Host.covers(h) && coversPorts(r.Ports, https)
	}
	bundle, _ := LookupBundle(r.Bundle)
	return slices.ContainsFunc(bundle.Hosts, func(b BundleHost) bool { return b.Host.covers(h) && coversPorts(b.Ports, https) })
}

func (p *Policy) lackedEnv(all []EnvVar) []EnvVar {
	return slices.DeleteFunc(slices.Clone(all), func(v EnvVar) bool {
		return slices.ContainsFunc(p.Env, func(e EnvVar) bool { return e.Name == v.Name })
	})
}
