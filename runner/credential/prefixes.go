package credential

import (
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// prefix is a beginning by which services and their clients know their tokens.
type prefix struct {
	text string
	// broad says why such a token reaches further than one task should; empty for one that doesn't.
	broad string
}

const everyRepository = "it reaches every repository of its owner"

// prefixes are public: they tell nothing about the secret behind them.
func prefixes() []prefix {
	return []prefix{
		// https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github#githubs-token-formats
		{"ghp_", everyRepository},
		{"github_pat_", "it may reach more repositories than this one, and its scope can't be seen"},
		{"gho_", everyRepository},
		{"ghu_", "it acts as its owner"},
		{"ghs_", ""},
		{"ghr_", "it is good for further tokens"},
		// https://docs.gitlab.com/security/tokens/#token-prefixes
		{"glpat-", "it reaches every project of its owner"},
		{"sk-ant-api03-", ""},
		{"sk-ant-oat01-", ""},
		{"sk-ant-admin01-", "it administers an organisation"},
		{"sk-ant-", ""},
		{"sk-proj-", ""},
		{"sk-svcacct-", ""},
		{"sk-admin-", "it administers an organisation"},
		{"sk-or-v1-", ""},
		{"sk-", ""},
		{"AIza", ""},
		{"hf_", ""},
		{"xai-", ""},
		{"gsk_", ""},
		{"npm_", ""},
		{"pypi-", ""},
	}
}

// prefixOf is the longest of them that text starts with; the zero prefix if there is none.
func prefixOf(text string) prefix {
	var longest prefix
	for _, p := range prefixes() {
		if strings.HasPrefix(text, p.text) && len(p.text) > len(longest.text) {
			longest = p
		}
	}
	return longest
}

// reach refuses a secret that reaches too far, unless somebody has given a reason. It returns why it was accepted.
func reach(c policy.Credential, text string, ci bool) (string, error) {
	p := prefixOf(text)
	switch {
	case p.broad == "":
		return "", nil
	case c.AllowBroad == "":
		return "", refuse("use a token for this project alone, or give the reason: `allow-broad: REASON`", "a token that starts with %s is refused: %s", p.text, p.broad)
	case ci:
		return "", refuse("use a token for this project alone", "a token that starts with %s is refused in CI, where `allow-broad` does not count: %s", p.text, p.broad)
	}
	return "its token starts with " + p.text + ": " + p.broad + "; the policy allows that: " + c.AllowBroad, nil
}
