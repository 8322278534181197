package credential

import (
	"context"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// environment takes secrets from the caller's variables. They don't change during a run, and nothing is issued.
type environment struct {
	lookup func(string) (string, bool)
}

func (e environment) open(_ context.Context, c policy.Credential) (func(context.Context) (secret.Value, error), error) {
	name := c.From.Argument
	text, ok := e.lookup(name)
	switch {
	case !ok:
		return nil, refuse("set it where you start the run, or remove the credential", "the variable %s is not set", name)
	case text == "":
		return nil, refuse("give it the secret, or remove the credential", "the variable %s is empty", name)
	}
	value := secret.New(text)
	return func(context.Context) (secret.Value, error) { return value, nil }, nil
}
