package credential

import (
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// part is one of the secrets of a source that gives several at once, with the name that its clients know it by.
type part struct {
	name  string
	value secret.Value
}

// inside is the grant of a secret that the policy wants in the sandbox. Nothing replaces it there when it ends.
func (h *held) inside(g Grant, c policy.Credential, cfg Config) ([]Grant, error) {
	t := h.current
	switch {
	case c.Deliver == policy.DeliverFile:
		g.Env, g.Inside = nil, []secret.Value{t.value}
		if c.Env != "" {
			g.Env = []string{c.Env}
		}
		if len(t.parts) > 0 {
			g.Inside = []secret.Value{profile(t.parts)}
			if c.Env == "" {
				g.Env = []string{profileVariable}
			}
		}
	case len(t.parts) > 0:
		g.Env = nil
		for _, p := range t.parts {
			g.Env, g.Inside = append(g.Env, p.name), append(g.Inside, p.value)
		}
	default:
		g.Env, g.Inside = []string{c.Env}, []secret.Value{t.value}
	}
	for _, v := range g.Inside {
		if c.Deliver == policy.DeliverEnv && strings.ContainsRune(v.Reveal(), 0) {
			return nil, refuse("use `deliver: file`", "the secret has a NUL, which no variable takes")
		}
		if err := notInside(cfg, g.Env, v.Reveal()); err != nil {
			return nil, err
		}
	}
	grants := []Grant{g}
	h.issued = issuedBy(piece{Credential: c}, grants)
	return grants, nil
}
