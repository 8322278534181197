package credential

import (
	"context"
	"fmt"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// fixed is a secret that was there before the run, and stays.
type fixed struct {
	value secret.Value
	parts []part
}

func (f fixed) issue(context.Context) (token, error) {
	return token{value: f.value, parts: f.parts}, nil
}

// sample stands for a secret in a dry run, which has nothing issued and starts no command. It has the beginning of GitHub's tokens where it
// stands for one.
func sample(c policy.Credential) fixed {
	const text = "0123456789abcdefghijABCDEFGHIJ456789"
	switch {
	case isGitHub(c):
		return fixed{value: secret.New("ghs_" + text)}
	case c.From.Kind == "aws":
		return fixed{secret.New(text), []part{{"AWS_ACCESS_KEY_ID", secret.New(text)}, {"AWS_SECRET_ACCESS_KEY", secret.New(text)}, {"AWS_SESSION_TOKEN", secret.New(text)}}}
	}
	return fixed{value: secret.New(text)}
}

// static reads a secret from a variable or a file.
func (cfg Config) static(o policy.Origin) (secret.Value, error) {
	switch o.Kind {
	case "env":
		return cfg.variable(o.Argument)
	case "file":
		text, err := cfg.readFile(o.Argument)
		if err != nil {
			return secret.Value{}, err
		}
		if text = strings.TrimRight(text, "\r\n"); text == "" {
			return secret.Value{}, refuse("write the secret into it", "the file %s is empty", o.Argument)
		}
		return secret.New(text), nil
	}
	return secret.Value{}, fmt.Errorf("no secret can be read from %s", o.Kind)
}

func (cfg Config) variable(name string) (secret.Value, error) {
	text, ok := cfg.LookupEnv(name)
	switch {
	case !ok:
		return secret.Value{}, refuse("set it where you start the run, or remove the credential", "the variable %s is not set", name)
	case text == "":
		return secret.Value{}, refuse("give it the secret, or remove the credential", "the variable %s is empty", name)
	}
	return secret.New(text), nil
}
