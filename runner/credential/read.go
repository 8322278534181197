package credential

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// IsKept reports whether a credential is one that somebody keeps, so that it grows old; else each run has one issued.
func IsKept(c policy.Credential) bool {
	switch c.From.Kind {
	case "env", "file", "exec", "vault", "github-app":
		return true
	}
	return false
}

// Read obtains the secret that somebody keeps for a credential: of a GitHub App that is its private key.
func (cfg Config) Read(ctx context.Context, c policy.Credential) (secret.Value, error) {
	switch {
	case !IsKept(c):
		return secret.Value{}, fmt.Errorf("nothing is kept of what comes from %s", c.From.Kind)
	case c.From.Kind == "github-app":
		return cfg.static(c.Key)
	}
	from, err := cfg.open(ctx, c)
	if err != nil {
		return secret.Value{}, err
	}
	t, err := from.issue(ctx)
	return t.value, err
}

// Path is where a file of the policy is on this machine.
func (cfg Config) Path(name string) (string, error) { return cfg.path(name) }

// Hint is what mends an error of this package; empty if nobody knows.
func Hint(err error) string {
	if m, ok := errors.AsType[*mendError](err); ok {
		return m.hint
	}
	return ""
}

// Retrying is a client for requests that have a secret and can be sent twice: it asks again after failures of the moment, follows no
// redirect, and prints nothing.
func (cfg Config) Retrying() *retryablehttp.Client { return retrying(cfg.HTTP, 250*time.Millisecond) }

// Once is such a client for requests that must not be sent twice.
func (cfg Config) Once() *http.Client { return retrying(cfg.HTTP, 0).HTTPClient }

// WithoutURL takes the address out of an error of a request: what it has is nobody's business.
func WithoutURL(err error) error { return withoutURL(err) }
