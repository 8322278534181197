package policy

import "slices"

// Service says how one service takes its credential, so that a policy need only name the service.
type Service struct {
	Names  []string     // names of credentials that mean this service
	Env    []string     // variables in which its clients look for the credential
	Attach []Attachment // where it goes; never empty
}

// Attachment is one place where a credential is attached to requests.
type Attachment struct {
	Hosts    []Host
	Header   string // name of the header
	Scheme   string // bearer, basic or raw
	Username string // for basic
	Source   string // URL of the operator's own statement
}

// LookupService finds a service by the name of a credential.
func LookupService(name string) (Service, bool) {
	all := serviceData()
	at := slices.IndexFunc(all, func(s serviceRow) bool { return slices.Contains(s.names, name) })
	if at < 0 {
		return Service{}, false
	}
	row := all[at]
	return Service{Names: row.names, Env: row.env, Attach: convert(row.attach, attachRow.attachment)}, true
}

// ServiceOf is the service that a credential is for: that of its name, and GitHub for every token that GitHub issues, so that one policy can have several. The
// variables of a service are those of the credential with its name alone.
func ServiceOf(c Credential) (Service, bool) {
	service, known := LookupService(c.Name)
	if !known && c.From.isGitHub() {
		service, known = LookupService("github")
		service.Env = nil
	}
	return service, known
}

// Services are the names of credentials whose service is known, sorted.
func Services() []string {
	var names []string
	for _, row := range serviceData() {
		names = append(names, row.names...)
	}
	slices.Sort(names)
	return names
}

// serviceRow is a service as it is written down here.
type serviceRow struct {
	names, env []string
	attach     []attachRow
}

type attachRow struct {
	hosts                            []string
	header, scheme, username, source string
}

func (r attachRow) attachment() Attachment {
	return Attachment{Hosts: convert(r.hosts, mustHost), Header: r.header, Scheme: r.scheme, Username: r.username, Source: r.source}
}

func serviceData() []serviceRow {
	return []serviceRow{
		{
			names: []string{"anthropic"}, env: []string{"ANTHROPIC_API_KEY"},
			attach: []attachRow{{[]string{"api.anthropic.com"}, "x-api-key", "raw", "", "https://docs.anthropic.com/en/api/overview"}},
		},
		{
			names: []string{"claude-code"}, env: []string{"CLAUDE_CODE_OAUTH_TOKEN"},
			attach: []attachRow{{[]string{"api.anthropic.com"}, "Authorization", "bearer", "", "https://docs.anthropic.com/en/docs/claude-code/iam"}},
		},
		{
			names: []string{"openai"}, env: []string{"OPENAI_API_KEY"},
			attach: []attachRow{{[]string{"api.openai.com"}, "Authorization", "bearer", "", "https://platform.openai.com/docs/api-reference/authentication"}},
		},
		{
			names: []string{"gemini", "google", "google-ai"}, env: []string{"GEMINI_API_KEY", "GOOGLE_API_KEY"},
			attach: []attachRow{{[]string{"generativelanguage.googleapis.com"}, "x-goog-api-key", "raw", "", "https://ai.google.dev/gemini-api/docs/api-key"}},
		},
		{
			names: []string{"mistral"}, env: []string{"MISTRAL_API_KEY"},
			attach: []attachRow{{[]string{"api.mistral.ai"}, "Authorization", "bearer", "", "https://docs.mistral.ai/api/"}},
		},
		{
			names: []string{"openrouter"}, env: []string{"OPENROUTER_API_KEY"},
			attach: []attachRow{{[]string{"openrouter.ai"}, "Authorization", "bearer", "", "https://openrouter.ai/docs/api-reference/authentication"}},
		},
		{
			names: []string{"huggingface"}, env: []string{"HF_TOKEN"},
			attach: []attachRow{{[]string{"huggingface.co"}, "Authorization", "bearer", "", "https://huggingface.co/docs/hub/security-tokens"}},
		},
		{
			names: []string{"github"}, env: []string{"GH_TOKEN", "GITHUB_TOKEN"},
			attach: []attachRow{
				{[]string{"api.github.com", "uploads.github.com"}, "Authorization", "bearer", "", "https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api"},
				{
					[]string{"github.com"},
					"Authorization", "basic", "x-access-token",
					"https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/authenticating-as-a-github-app-installation",
				},
			},
		},
	}
}
