package policy

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

func imageKind() kind[Image] {
	const (
		domain = `[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]{1,5})?`
		name   = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
		tag    = `:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
		digest = `sha256:[a-f0-9]{64}`
		// https://github.com/distribution/reference
		named = `(?:` + domain + `/)?` + name + `(?:/` + name + `)*(?:` + tag + `)?(?:@` + digest + `)?`
		what  = `an image reference such as "debian:13-slim" or "ghcr.io/acme/agent@sha256:..."`
	)
	described := object(
		key("build", text(nameRule{`[^/\\:\n\r][^\\:\n\r]{0,500}`, "a path of a Dockerfile in the project"}, parseProjectPath),
			func(i *Image) *string { return &i.Build }, "Path of a Dockerfile, or of a devcontainer.json that names one or an image, relative to the project."),
		key("target", plainText(nameRule{`[A-Za-z][A-Za-z0-9_.-]{0,127}`, "the name of a stage, as in FROM ... AS name"}),
			func(i *Image) *string { return &i.Target }, "Stage of the Dockerfile that is built. Default: the last."),
		key("from", plainText(nameRule{named, what}), func(i *Image) *string { return &i.Reference },
			"Image that the agents are installed on. Default: the program's."),
		key("agents", unique(list(oneOf(Installable()...), len(Installable()))), func(i *Image) *[]string { return &i.Agents },
			"Kits whose programs are installed on top, at the kits' versions, from lock files with integrity hashes."),
	)
	described.schema["minProperties"] = 1
	return either("an image reference, {build: Dockerfile} or {from: reference, agents: [...]}", map[yaml.Kind]kind[Image]{
		yaml.ScalarNode:  text(nameRule{named + `|` + digest, what}, func(s string) (Image, error) { return Image{Reference: s}, nil }),
		yaml.MappingNode: described.checked(checkImage),
	})
}

// checkImage is for the form with keys.
func checkImage(d *decoder, n *yaml.Node, path string, i *Image) bool {
	ok := true
	_, given := d.places[path+".agents"]
	switch {
	case given && len(i.Agents) == 0:
		ok = d.failAt(n, path+".agents", "the list of agents is empty", "leave the key out")
	case i.Build == "" && !given && i.Reference == "":
		ok = d.failAt(n, path, "it says nothing: want `build`, or `agents`", "image: {build: Dockerfile}")
	case i.Build == "" && !given:
		ok = d.failAt(n, path+".from", "there is nothing to put on the image: want `agents` beside it", "image: "+i.Reference)
	}
	if i.Build != "" && i.Reference != "" {
		ok = d.failAt(n, path+".from", "a Dockerfile says itself what it starts from", "remove `from` or `build`")
	}
	if strings.HasPrefix(i.Reference, "sha256:") {
		ok = d.failAt(n, path+".from", "nothing can be installed on an image without a name", "give it one: docker tag "+i.Reference[:min(19, len(i.Reference))]+" NAME:TAG")
	}
	if i.Target != "" && i.Build == "" {
		ok = d.failAt(n, path+".target", "only a Dockerfile has stages", "add `build: Dockerfile`")
	}
	slices.Sort(i.Agents)
	return ok
}
