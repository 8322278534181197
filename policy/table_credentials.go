package policy

import (
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

func credentialsKind() kind[[]Credential] {
	name := nameRule{`[a-z][a-z0-9-]{0,62}`, "a name of small letters, digits and hyphens"}
	return converted(mapping(name, credentialKind(), 50), func(d *decoder, path string, m map[string]Credential) []Credential {
		var all []Credential
		for _, name := range slices.Sorted(maps.Keys(m)) {
			c := m[name]
			c.Name = name
			c.Place = d.places[joinPath(path, name)]
			if c.Deliver == "" {
				c.Deliver = DeliverInject
			}
			all = append(all, c)
		}
		return all
	})
}

func originKindOf(kinds []originKind) kind[Origin] {
	var forms, names []string
	for _, k := range kinds {
		form := k.name
		if k.argument != "" {
			form += ":(?:" + k.argument + ")"
		}
		forms, names = append(forms, form), append(names, k.name)
	}
	return text(nameRule{strings.Join(forms, "|"), "a source such as env:NAME or github-oidc"}, func(s string) (Origin, error) {
		return parseOrigin(s, names)
	})
}

func credentialKind() kind[Credential] {
	keyKinds := slices.DeleteFunc(originKinds(), func(k originKind) bool { return k.name != "env" && k.name != "file" })
	repository := text(nameRule{`self|[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}`, `"self" or "owner/name"`}, parseRepository)
	header := plainText(nameRule{`[A-Za-z][A-Za-z0-9-]{0,63}`, "a header name"})
	hosts := list(hostKind(), 20)
	return object(
		key("from", originKindOf(originKinds()), func(c *Credential) *Origin { return &c.From },
			"Source: env:NAME, file:PATH, exec:COMMAND, github-oidc, github-app:ID, vault:PATH#FIELD, aws:ROLE_ARN or gcp:PROVIDER.").must(),
		key("broker", text(nameRule{`https://[^\s?#@\\]{1,500}`, "an https URL"}, parseBroker), func(c *Credential) *string { return &c.Broker }, "URL of the token broker for github-oidc, or of the server for vault."),
		key("identity", plainText(nameRule{`[a-zA-Z0-9][a-zA-Z0-9._@-]{0,199}`, "a name"}), func(c *Credential) *string { return &c.Identity }, "Name of the trust policy at the broker, of the role at Vault, or the service account that gcp stands in for."),
		key("key", originKindOf(keyKinds), func(c *Credential) *Origin { return &c.Key }, "Private key of the GitHub App: env:NAME or file:PATH."),
		key("repositories", unique(list(repository, 500)), func(c *Credential) *[]string { return &c.Repositories }, `Repositories that the token is for: "self" or "owner/name". Requests for others are refused.`),
		key("permissions", mapping(nameRule{`[a-z][a-z_]{0,63}`, "a GitHub permission such as pull_requests"}, oneOf("read", "write", "admin"), 100),
			func(c *Credential) *map[string]string { return &c.Permissions }, "GitHub permissions that the token has: read, write or admin."),
		key("push", unique(list(text(nameRule{`refs/(?:heads|tags)/[^\s~^:?\[\\]{1,250}`, `a full ref such as "refs/heads/agent/*"`}, parseRefPattern), 50)),
			func(c *Credential) *[]string { return &c.Push }, "Refs that may be pushed; * is any characters of one name, ** any number of names."),
		key("public-read", boolean(), func(c *Credential) *bool { return &c.PublicRead },
			"true lets other repositories be read, without the credential: what is public of them. Default false."),
		key("deliver", oneOf(DeliverInject, DeliverEnv, DeliverFile), func(c *Credential) *Deliver { return &c.Deliver },
			"inject (default): attached by the runner, a placeholder is inside. env and file put the secret inside, which lowers the assurance."),
		key("env", plainText(nameRule{`[A-Za-z_][A-Za-z0-9_]{0,127}`, "a variable name"}), func(c *Credential) *string { return &c.Env }, "Variable that holds the placeholder, with deliver: env the secret, and with deliver: file the path of the file."),
		key("host", either("a host or a list of hosts", map[yaml.Kind]kind[[]Host]{
			yaml.ScalarNode:   converted(hostKind(), func(_ *decoder, _ string, h Host) []Host { return []Host{h} }),
			yaml.SequenceNode: hosts,
		}), func(c *Credential) *[]Host { return &c.Hosts }, "Hosts that the runner may attach it to."),
		key("header", header, func(c *Credential) *string { return &c.Header }, "Header that carries it, such as Authorization or x-api-key."),
		key("scheme", oneOf("bearer", "basic", "raw"), func(c *Credential) *string { return &c.Scheme }, "How the header carries it."),
		key("username", plainText(nameRule{`[^\s:]{1,100}`, "a user name without blanks and colons"}), func(c *Credential) *string { return &c.Username }, "User name, for scheme: basic."),
		key("rules", list(httpRuleKind(), 200), func(c *Credential) *[]HTTPRule { return &c.Rules }, "Only these requests get it: METHOD /path."),
		key("rotate", duration(time.Hour, 3650*day), func(c *Credential) *time.Duration { return &c.Rotate }, "How old it may become."),
		key("rotate-enforce", boolean(), func(c *Credential) *bool { return &c.RotateEnforce }, "true refuses a run when it is older than that, or when nobody knows its age."),
		key("rotated", dateKind(), func(c *Credential) *time.Time { return &c.Rotated }, "Day on which it was made, where nothing else tells. It is recorded as asserted."),
		key("rotation", rotationKind(), func(c *Credential) *Rotation { return &c.Rotation }, "How `credentials rotate` replaces it, and where it is kept."),
		key("allow-broad", longText("a reason", 200), func(c *Credential) *string { return &c.AllowBroad },
			"The reason for using a credential that reaches further than this project. Refused in CI."),
	).checked(checkCredential)
}
