package credential

import (
	"slices"
	"strings"

	"github.com/org/agent-sandbox/runner/event"
)

// notInside refuses a secret that the policy's own variables would take inside, under whatever name, and a variable that
// would have two values.
func notInside(cfg Config, placeholders []string, text string) error {
	for _, v := range cfg.Env {
		if slices.Contains(placeholders, v.Name) {
			return refuse("remove it from `env`", "the variable %s is to have the placeholder, and `env` sets it as well", v.Name)
		}
		value := v.Value
		if v.FromHost {
			value, _ = cfg.LookupEnv(v.Name)
		}
		if strings.Contains(value, text) {
			return refuse("remove it from `env`", "the variable %s would take the secret itself inside", v.Name)
		}
	}
	return nil
}

// distinct refuses two credentials for one variable, or for the same header of one host: which of them is meant would be
// anybody's guess. Of two that are held to repositories the repository tells.
func distinct(grants, more []Grant) error {
	for _, g := range more {
		for _, o := range grants {
			for _, name := range g.Env {
				if slices.Contains(o.Env, name) {
					return refuse("give one of them another variable with `env:`", "the variable %s is that of the credential %s already", name, o.Name)
				}
			}
			for _, h := range g.Hosts {
				if !slices.Contains(o.Hosts, h) || len(g.Rules) > 0 || len(o.Rules) > 0 {
					continue
				}
				if name, both := common(g.Repositories, o.Repositories); both {
					return refuse("name each repository in one of them", "the repository %s is that of the credential %s already", name, o.Name)
				}
				if len(g.Repositories) == 0 || len(o.Repositories) == 0 {
					return refuse("say with `rules:` which requests get which", "the credential %s is for every request to %s already", o.Name, h)
				}
			}
		}
	}
	return nil
}

// common is a repository of both.
func common(a, b []event.CredentialRepository) (string, bool) {
	i := slices.IndexFunc(a, func(x event.CredentialRepository) bool {
		return slices.ContainsFunc(b, func(y event.CredentialRepository) bool { return strings.EqualFold(x.Name, y.Name) })
	})
	if i < 0 {
		return "", false
	}
	return a[i].Name, true
}
