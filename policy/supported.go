package policy

import (
	"fmt"
	"slices"
)

// Features says which mechanisms the program has. What is false and asked for by a policy is refused by
// [Unsupported]: a protection or a permission that is written down and does nothing would be worse than none.
type Features struct {
	Network     bool                // network: rules are enforced and connections made
	Credentials []CredentialFeature // credentials: the sources that there are, each with a delivery
	Rotation    bool                // credentials: rotate and rotate-enforce
	Agents      bool                // agent: kits
	Caches      bool                // caches: volumes
	ImageBuild  bool                // image.build
	Signing     bool                // evidence.sign other than auto and none
	Include     bool                // evidence.include
}

// CredentialFeature is one source of credentials with one way to deliver them.
type CredentialFeature struct {
	Kind    string // of [OriginKinds]
	Deliver Deliver
}

// Unsupported lists the sections of the policy that need a mechanism which the program lacks, by name and place, sorted. Empty
// means that all of the policy can be kept.
func Unsupported(p *Policy, have Features) Problems {
	var problems Problems
	add := func(have, used bool, path, what string) {
		if !have && used {
			problems = append(problems, Problem{
				Place: p.placeOrFile(path), Path: path,
				Message: fmt.Sprintf("this version can't %s yet", what), Hint: "remove the section, or use a version that can",
			})
		}
	}
	n := p.Network
	add(have.Network, len(n.Allow) > 0, "network.allow", "let anything through")
	add(have.Network, len(n.Deny) > 0, "network.deny", "apply network rules")
	add(have.Network, n.Limits != Limits{}, "network.limits", "limit traffic")
	for _, c := range p.Credentials {
		path := "credentials." + c.Name
		fromKind := func(f CredentialFeature) bool { return f.Kind == c.From.Kind }
		if !slices.ContainsFunc(have.Credentials, fromKind) {
			add(false, true, path, "get credentials from "+c.From.Kind)
			continue
		}
		add(slices.Contains(have.Credentials, CredentialFeature{c.From.Kind, c.Deliver}), true, path+".deliver",
			fmt.Sprintf("deliver credentials from %s as %s", c.From.Kind, c.Deliver))
		add(have.Rotation, c.Rotate != 0, path+".rotate", "tell the age of a credential")
	}
	add(have.Agents, p.Agent != "", "agent", "start an agent by the name of its kit")
	add(have.Caches, len(p.Caches) > 0, "caches", "keep caches")
	add(have.ImageBuild, p.Image.Build != "", "image", "build an image")
	add(have.Signing, p.Evidence.Sign != "auto" && p.Evidence.Sign != "none", "evidence.sign", "sign with "+p.Evidence.Sign)
	add(have.Include, len(p.Evidence.Include) > 0, "evidence.include", "include contents in the evidence")
	problems.sort()
	return problems
}

// placeOrFile is the place of the key, or that of the closest key above it, or the file.
func (p *Policy) placeOrFile(path string) Place {
	for path != "" {
		if place, ok := p.places[path]; ok {
			return place
		}
		path = parentPath(path)
	}
	return Place{File: p.name}
}
