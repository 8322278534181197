package policy

import "slices"

// Bundles are the names of the host lists that network.allow and network.deny take as bare words.
func Bundles() []string {
	return []string{
		"alpine", "anthropic", "cargo", "debian", "docker-hub", "ghcr", "github", "go", "google-ai", "gradle", "huggingface",
		"maven", "npm", "nuget", "openai", "packagist", "playwright", "pypi", "rubygems", "ubuntu",
	}
}

// Agents are the names of the kits that the program has.
func Agents() []string {
	return []string{"aider", "claude", "codex", "gemini", "goose", "opencode", "shell"}
}

// CacheKinds are the caches that a policy can ask for.
func CacheKinds() []string { return []string{"cargo", "go", "npm", "pip"} }

// EvidenceParts are the contents that evidence.include can add; without it there are digests only.
func EvidenceParts() []string { return []string{"events", "patch", "prompt", "stderr", "stdout"} }

// SignModes are the values of evidence.sign.
func SignModes() []string { return []string{"auto", "keyless", "key", "none"} }

// originKind is one source of a credential.
type originKind struct {
	name     string
	argument string // regular expression for what follows the colon; empty: nothing may follow
	github   bool   // gives a GitHub token, so it has repositories, permissions and push
}

func originKinds() []originKind {
	return []originKind{
		{name: "env", argument: `[A-Za-z_][A-Za-z0-9_]{0,127}`},
		{name: "file", argument: `(/|~/|\./|\.\./).{1,1000}`},
		{name: "exec", argument: `[^ ].{0,1000}`},
		{name: "github-oidc", github: true},
		{name: "github-app", argument: `[1-9][0-9]{0,11}`, github: true},
		{name: "vault", argument: `[^#]{1,500}#[^#]{1,200}`},
		{name: "aws", argument: `arn:[a-z-]+:iam::[0-9]{12}:role/.{1,500}`},
		{name: "gcp", argument: `projects/.{1,500}`},
	}
}

// OriginKinds are the kinds of [Origin].
func OriginKinds() []string {
	var names []string
	for _, k := range originKinds() {
		names = append(names, k.name)
	}
	return names
}

// isGitHub reports whether the credential is a GitHub token that we have issued ourselves.
func (o Origin) isGitHub() bool {
	return slices.ContainsFunc(originKinds(), func(k originKind) bool { return k.github && k.name == o.Kind })
}
