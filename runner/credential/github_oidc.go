package credential

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// gitHubOIDC exchanges the job's identity for a token at a broker: ours, or any server that speaks octo-sts' protocol
// (https://github.com/octo-sts/app).
type gitHubOIDC struct {
	gitHub
	c      policy.Credential
	cfg    Config
	unseen *sync.Once // the record says once that the permissions are not known
}

func (cfg Config) openGitHubOIDC(c policy.Credential) (issuer, error) {
	switch {
	case c.Broker == "":
		return nil, refuse("add `broker: https://...`, the address of your token broker", "nobody is named who exchanges the job's identity for a token")
	case cfg.OIDC == nil:
		return nil, refuse("in a workflow give the job `permissions: {id-token: write}`; on a laptop use github-app, or `agent-sandbox dev oidc` with a broker of your own",
			"this process has no identity that a broker would take")
	case len(c.Repositories) != 1:
		return nil, fmt.Errorf("the broker gives a token for one repository at a time, and %d are asked for", len(c.Repositories))
	}
	if err := checkScope(c, cfg.Permissions); err != nil {
		return nil, err
	}
	return gitHubOIDC{gitHub{cfg.api(), cfg.HTTP}, c, cfg, &sync.Once{}}, nil
}

// exchanged is the answer of /sts/exchange. octo-sts has the token alone.
type exchanged struct {
	Token        string            `json:"token"`
	ExpiresAt    time.Time         `json:"expires_at"`
	Permissions  map[string]string `json:"permissions"`
	IssuanceID   string            `json:"issuance_id"`
	Repositories []struct {
		ID       int64  `json:"id"`
		FullName string `json:"full_name"`
	} `json:"repositories"`
}

func (o gitHubOIDC) issue(ctx context.Context) (token, error) {
	u, err := url.Parse(o.c.Broker)
	if err != nil {
		return token{}, err
	}
	identity, err := o.cfg.OIDC(ctx, u.Hostname())
	if err != nil {
		return token{}, err
	}
	u = u.JoinPath("sts", "exchange")
	u.RawQuery = url.Values{"scope": {o.c.Repositories[0]}, "identity": {orDefault(o.c.Identity)}}.Encode()
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return token{}, err
	}
	req.Header.Set("Authorization", "Bearer "+identity.Reveal())
	client := retrying(o.http, 250*time.Millisecond)
	// The identity is good for one exchange: a broker that took it and whose answer was lost would refuse it again.
	client.RetryMax = 0
	resp, err := client.Do(req)
	if err != nil {
		return token{}, fmt.Errorf("ask the broker %s: %w", u.Host, withoutURL(err))
	}
	defer resp.Body.Close()
	var e exchanged
	if err := readAnswer(resp, &e); err != nil {
		return token{}, fmt.Errorf("the broker %s: %w", u.Host, err)
	}
	return o.check(ctx, e)
}

func orDefault(identity string) string {
	if identity == "" {
		return "agent-sandbox"
	}
	return identity
}

// check compares the grant with the request. A server that tells no more than the token is asked no further: GitHub is, by the token itself.
func (o gitHubOIDC) check(ctx context.Context, e exchanged) (token, error) {
	t := installationToken{Token: e.Token, ExpiresAt: e.ExpiresAt, Permissions: e.Permissions, Repositories: e.Repositories, Selection: "selected"}
	if len(e.Repositories) == 0 || e.Permissions == nil {
		if err := o.complete(ctx, &t); err != nil {
			return token{}, err
		}
	}
	if t.ExpiresAt.IsZero() { // or it would never be renewed
		t.ExpiresAt = o.cfg.now()().Add(lifetime)
	}
	want := o.c
	if e.Permissions == nil { // GitHub doesn't tell either; the trust policy at the server does
		want = withPermissions(o.c, nil)
		o.unseen.Do(func() {
			o.cfg.Emit(event.Lowered{
				What: "credential " + o.c.Name + ": its permissions are not compared with the policy's",
				Why:  "the broker does not tell what it granted, and GitHub does not tell what a token may do",
				Mend: "use a broker that tells, such as agent-sandbox broker serve, or keep the trust policy there as narrow as this one",
			})
		})
	}
	return o.accept(ctx, t, want, e.IssuanceID)
}

// complete asks GitHub which repositories the token is for.
func (o gitHubOIDC) complete(ctx context.Context, t *installationToken) error {
	if t.Token == "" {
		return errors.New("the broker's answer has no token")
	}
	var list struct {
		Total        int    `json:"total_count"`
		Selection    string `json:"repository_selection"`
		Repositories []struct {
			ID       int64  `json:"id"`
			FullName string `json:"full_name"`
		} `json:"repositories"`
	}
	value := secret.New(t.Token)
	if _, err := o.call(ctx, http.MethodGet, "/installation/repositories?per_page=100", value, nil, &list); err != nil {
		_, revokeErr := o.revoke(context.WithoutCancel(ctx), value)
		return errors.Join(fmt.Errorf("ask GitHub what the token is for: %w", err), revokeErr)
	}
	t.Repositories = list.Repositories
	if list.Total > len(list.Repositories) {
		t.Selection = "all" // more than anybody named
	}
	return nil
}

// lifetime is that of every installation token.
const lifetime = time.Hour

func withPermissions(c policy.Credential, granted map[string]string) policy.Credential {
	c.Permissions = granted
	return c
}
