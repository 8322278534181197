package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// endpointForm is the form of an address that secrets are sent to: https, or http to this machine.
const endpointForm = `(?:https://|http://(?:127\.0\.0\.1|localhost|\[::1\])[:/])[^\s#@\\]{1,1000}`

// CheckEndpoint refuses an address that no secret is sent to: anything but https, or http to this machine.
func CheckEndpoint(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("want an https URL")
	}
	addr, _ := netip.ParseAddr(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && (addr.IsLoopback() || u.Hostname() == "localhost") {
		return nil
	}
	return errors.New("want an https URL: a secret goes there")
}

// dateKind is a day. Bare it is a string to YAML 1.2 and a date to YAML 1.1, and both mean the same.
func dateKind() kind[time.Time] {
	rule := nameRule{`[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])`, "a date such as 2026-03-31"}
	matches := rule.matcher()
	quoted := text(rule, parseDate)
	return kind[time.Time]{quoted.schema, func(d *decoder, n *yaml.Node, path string, into *time.Time) bool {
		if n.Kind == yaml.ScalarNode && n.Style == 0 && matches(n.Value) {
			plain := *n
			plain.Style = yaml.DoubleQuotedStyle
			n = &plain
		}
		return quoted.read(d, n, path, into)
	}}
}

func rotationKind() kind[Rotation] {
	pointer := plainText(nameRule{`(?:/(?:[^~/\s]|~[01]){1,100}){1,10}`, `a JSON pointer such as "/api_key/value"`})
	value := key("value", pointer, func(s *RotationStep) *string { return &s.Value }, "JSON pointer to the new key in the answer. Without it the whole answer is the key.")
	id := key("id", pointer, func(s *RotationStep) *string { return &s.ID }, "JSON pointer to the id of the key in the answer.")
	return object(
		key("token", tokenKind(), func(r *Rotation) *Origin { return &r.Token }, "What authorises the steps at the provider, such as an administrator's key: env:NAME, file:PATH or exec:COMMAND."),
		key("identify", stepKind([]RotationWord{WordToken, WordOld}, id.must()), func(r *Rotation) *RotationStep { return &r.Identify },
			"Tells the id of the present key, where nothing else does."),
		key("create", stepKind([]RotationWord{WordToken, WordOld, WordOldID}, value, id), func(r *Rotation) *RotationStep { return &r.Create }, "Makes a new key."),
		key("prove", stepKind([]RotationWord{WordNew, WordNewID}), func(r *Rotation) *RotationStep { return &r.Prove }, "Succeeds with a key that works, and with no other."),
		key("store", list(storeKind(), 20), func(r *Rotation) *[]KeyStore { return &r.Store }, "Where the key is kept. Each has the present key already."),
		key("revoke", stepKind([]RotationWord{WordToken, WordNew, WordNewID, WordOld, WordOldID}), func(r *Rotation) *RotationStep { return &r.Revoke }, "Ends the old key."),
	).checked(checkRotation)
}

func tokenKind() kind[Origin] {
	return originKindOf(slices.DeleteFunc(originKinds(), func(k originKind) bool { return !slices.Contains([]string{"env", "file", "exec"}, k.name) }))
}

func stepKind(words []RotationWord, more ...field[RotationStep]) kind[RotationStep] {
	request := text(nameRule{`(?:GET|POST|PUT|PATCH|DELETE) ` + endpointForm, `a method and an https URL such as "POST https://api.example.com/v1/keys"`}, parseStepRequest)
	header := nameRule{`[A-Za-z][A-Za-z0-9-]{0,63}`, "a header name"}
	return object(append([]field[RotationStep]{
		key("command", commandKind(), func(s *RotationStep) *[]string { return &s.Command },
			"Program and arguments. It gets the secrets as variables: AGENT_SANDBOX_TOKEN, _NEW, _NEW_ID, _OLD and _OLD_ID."),
		key("request", request, func(s *RotationStep) *StepRequest { return &s.Request }, `Method and URL. {new-id} and {old-id} stand for ids.`),
		key("headers", mapping(header, longText("a value", 1000), 20), func(s *RotationStep) *map[string]string { return &s.Headers }, "Headers of the request. {token}, {new} and {old} stand for secrets."),
		key("body", plainText(nameRule{`[^\r]{1,1000}`, "a text of at most 1000 characters"}), func(s *RotationStep) *string { return &s.Body }, "Body of the request: JSON, or what the Content-Type header says."),
	}, more...)...).checked(func(d *decoder, n *yaml.Node, path string, s *RotationStep) bool {
		return checkStep(d, n, path, *s, words)
	})
}

func commandKind() kind[[]string] {
	return list(plainText(nameRule{`[^\n\r]{1,1000}`, "an argument of at most 1000 characters"}), 100)
}

func storeKind() kind[KeyStore] {
	repository := text(nameRule{`self|[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}`, `"self" or "owner/name"`}, parseRepository)
	return object(
		key("github", plainText(nameRule{`[A-Za-z_][A-Za-z0-9_]{0,127}`, "the name of an Actions secret"}), func(s *KeyStore) *string { return &s.GitHub }, "Name of an Actions secret."),
		key("repository", repository, func(s *KeyStore) *string { return &s.Repository }, `Repository that has the secret: "self" or "owner/name".`),
		key("environment", plainText(nameRule{`[^\s/\\][^/\\\n\r]{0,254}`, "the name of an environment"}), func(s *KeyStore) *string { return &s.Environment }, "Environment of the repository that has the secret."),
		key("organization", plainText(nameRule{`[A-Za-z0-9][A-Za-z0-9-]{0,38}`, "the name of an organisation"}), func(s *KeyStore) *string { return &s.Organization }, "Organisation that has the secret."),
		key("vault", plainText(nameRule{`[^#\s?]{1,250}/data/[^#\s?]{1,250}#[^#\s]{1,200}`, "PATH#FIELD of a KV v2 engine, such as kv/data/ci#key"}), func(s *KeyStore) *string { return &s.Vault },
			"Field of a secret in Vault's KV v2: PATH#FIELD."),
		key("address", text(nameRule{endpointForm, "an https URL"}, func(s string) (string, error) { return strings.TrimSuffix(s, "/"), CheckEndpoint(s) }), func(s *KeyStore) *string { return &s.Address },
			"URL of Vault. Default: VAULT_ADDR."),
		key("file", plainText(nameRule{`(?:/|~/|\./|\.\./).{1,1000}`, `a path that starts with "/", "~/", "./" or "../"`}), func(s *KeyStore) *string { return &s.File }, "File with the key alone."),
		key("command", commandKind(), func(s *KeyStore) *[]string { return &s.Command }, "Program that stores the key, which it has as AGENT_SANDBOX_NEW."),
		key("token", tokenKind(), func(s *KeyStore) *Origin { return &s.Token }, "What may write there. Default: GH_TOKEN or GITHUB_TOKEN, and VAULT_TOKEN."),
	).checked(checkStore)
}

// checkStep insists on one way to do it.
func checkStep(d *decoder, n *yaml.Node, path string, s RotationStep, words []RotationWord) bool {
	switch {
	case s.IsZero():
		return d.failAt(n, path, "there is neither a command nor a request", `request: "GET https://..."`)
	case len(s.Command) > 0 && s.Request.URL != "":
		return d.failAt(n, path+".command", "a step is a command or a request, not both", "remove one of them")
	case len(s.Command) > 0 && (s.Headers != nil || s.Body != ""):
		return d.failAt(n, path+".command", "headers and body are of a request", "remove them")
	case s.Body != "" && s.Request.Method == "GET":
		return d.failAt(n, path+".body", "a GET has no body", "")
	}
	if err := s.checkWords(words); err != nil {
		return d.failAt(n, path, err.Error(), "headers and body may have "+joined(words)+"; a command has them as variables such as AGENT_SANDBOX_NEW")
	}
	return true
}

func joined(words []RotationWord) string {
	return strings.Join(convert(words, func(w RotationWord) string { return string(w) }), ", ")
}

// checkStore insists on one place.
func checkStore(d *decoder, n *yaml.Node, path string, s *KeyStore) bool {
	places := 0
	for _, set := range []bool{s.GitHub != "", s.Vault != "", s.File != "", len(s.Command) > 0} {
		if set {
			places++
		}
	}
	github, vault := s.GitHub != "", s.Vault != ""
	switch {
	case places != 1:
		return d.failAt(n, path, "want one of github, vault, file and command", "write an item for each place")
	case !github && (s.Repository != "" || s.Environment != "" || s.Organization != ""):
		return d.failAt(n, path, "repository, environment and organization are of a github secret", "remove them")
	case github && (s.Repository == "") == (s.Organization == ""):
		return d.failAt(n, path, "a github secret is of a repository or of an organization", "repository: self")
	case s.Environment != "" && s.Organization != "":
		return d.failAt(n, path+".environment", "an organisation has no environments", "repository: self")
	case !vault && s.Address != "":
		return d.failAt(n, path+".address", "an address is of vault", "remove it")
	case !github && !vault && s.Token != (Origin{}):
		return d.failAt(n, path+".token", "a token is for github and vault", "remove it")
	}
	return true
}

// namedStep is one step beside `create`.
type namedStep struct {
	name string
	RotationStep
}

func (r *Rotation) steps() []namedStep {
	return []namedStep{{"identify", r.Identify}, {"prove", r.Prove}, {"revoke", r.Revoke}}
}

// checkRotation refuses a recipe that would leave a key behind, or nothing.
func checkRotation(d *decoder, n *yaml.Node, path string, r *Rotation) bool {
	ok := true
	if len(r.Store) == 0 {
		ok = d.failAt(n, path, "a rotation needs to know where the key is kept", "store: [{github: NAME, repository: self}]")
	}
	if r.Create.IsZero() {
		for _, step := range r.steps() {
			if !step.IsZero() {
				ok = d.failAt(n, path+"."+step.name, "there is no `create` that makes a new key", "")
			}
		}
		return ok
	}
	for _, step := range r.steps() {
		if step.IsZero() && step.name != "identify" {
			ok = d.failAt(n, path+".create", fmt.Sprintf("a new key needs `%s` as well", step.name), "the old key is revoked when the new one has been proved")
		}
	}
	if r.Revoke.Uses(WordOldID) && r.Create.ID == "" {
		ok = d.failAt(n, path+".revoke", "the next rotation would not know the id of this key", "add `id:` to `create`")
	}
	if r.Token == (Origin{}) && slices.ContainsFunc([]RotationStep{r.Identify, r.Create, r.Revoke}, func(s RotationStep) bool { return s.Uses(WordToken) }) {
		ok = d.failAt(n, path+".token", "the steps use {token}, and there is none", "token: env:NAME")
	}
	return ok
}

// checkAge refuses an age where there is none.
func checkAge(d *decoder, n *yaml.Node, path string, c *Credential) bool {
	ok := true
	for key, set := range map[string]bool{"rotate": c.Rotate != 0, "rotated": !c.Rotated.IsZero(), "rotation": len(c.Rotation.Store) > 0} {
		if set && slices.Contains([]string{"github-oidc", "aws", "gcp"}, c.From.Kind) {
			ok = d.failAt(n, path+"."+key, fmt.Sprintf("what comes from %s is issued for each run: nothing of it is kept, so nothing grows old", c.From.Kind), "remove it")
		}
	}
	if c.RotateEnforce && c.Rotate == 0 {
		ok = d.failAt(n, path+".rotate-enforce", "there is no `rotate` to enforce", "add `rotate: 30d`")
	}
	return ok
}
