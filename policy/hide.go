package policy

// DefaultHide are the patterns that every policy starts with: files whose only content is a secret. A
// file's own `hide` comes after them, so that "!name" shows one again. Configuration that merely may hold a secret (.npmrc,
// .envrc, application.yml) is not among them, since builds break without it. Returned anew on each call.
func DefaultHide() []Pattern {
	groups := [][]string{
		// dotenv: https://github.com/motdotla/dotenv; the copies meant for the repository hold no values.
		{".env", ".env.*", "*.env", "!.env.example", "!.env.sample", "!.env.template", "!.env.dist", "!.env.defaults", "!.env.schema", "!.env.*.example", "!.env.*.sample", "!.env.*.template", "!example.env", "!sample.env"},
		// direnv's own files are usually committed; these are the private half by convention.
		{".envrc.local", ".envrc.private"},
		// Private keys and key stores. Certificates alone end in .crt or .cer.
		{"*.pem", "*.key", "*.p12", "*.pfx", "*.p8", "*.jks", "*.keystore", "*.ppk", "*.kdbx"},
		{"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"},
		// Stored logins of tools.
		{".netrc", "_netrc", ".git-credentials", ".pgpass", ".pypirc", ".htpasswd", ".vault-token", ".aws/", ".azure/", ".gnupg/", ".ssh/"},
		{".docker/config.json", ".kube/config", ".config/gcloud/", "kubeconfig", "*.kubeconfig"},
		{"service-account*.json", "service_account*.json", "*-credentials.json", "client_secret*.json"},
		// Terraform keeps every secret of the infrastructure in its state, in plain text.
		{"*.tfstate", "*.tfstate.backup", "*.tfstate.*.backup"},
	}
	var patterns []Pattern
	for _, group := range groups {
		for _, text := range group {
			patterns = append(patterns, mustPattern(text))
		}
	}
	return patterns
}
