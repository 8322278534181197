package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/agent-sandbox/policy"
)

// isIssued reports whether the credential is made for this run, so that a dry run must not ask for it.
func isIssued(c policy.Credential) bool {
	return slices.Contains([]string{"github-app", "github-oidc", "vault", "aws", "gcp"}, c.From.Kind)
}

// needIdentity refuses a source that exchanges the job's identity where there is none.
func (cfg Config) needIdentity(instead string) error {
	if cfg.OIDC != nil {
		return nil
	}
	return refuse("in a workflow give the job `permissions: {id-token: write}`; on a laptop "+instead, "this process has no identity that could be exchanged")
}

// exchanger talks to a service that gives a credential for the job's identity.
type exchanger struct {
	cfg  Config
	name string // of the service, for people
}

// send makes one request and reads the answer as read has it. It is tried once: an identity is good for one exchange.
func (x exchanger) send(ctx context.Context, method, url string, header http.Header, body []byte, read func(*http.Response) error) error {
	req, err := retryablehttp.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return fmt.Errorf("%s: %w", x.name, withoutURL(err))
	}
	for name, values := range header {
		req.Header[name] = values
	}
	client := retrying(x.cfg.HTTP, 250*time.Millisecond)
	client.RetryMax = 0
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", x.name, withoutURL(err))
	}
	defer resp.Body.Close()
	if err := read(resp); err != nil {
		return fmt.Errorf("%s: %w", x.name, err)
	}
	return nil
}

// json makes a request with a JSON body, if it is not empty, and a JSON answer.
func (x exchanger) json(ctx context.Context, method, url string, header http.Header, body []byte, out any) error {
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Accept", "application/json")
	if len(bytes.TrimSpace(body)) > 0 {
		header.Set("Content-Type", "application/json")
	}
	return x.send(ctx, method, url, header, body, func(resp *http.Response) error { return readAnswer(resp, out) })
}

// errNoEnd: a credential of a cloud has one.
var errNoEnd = errors.New("the answer lacks the credential or the time of its end")
