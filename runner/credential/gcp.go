package credential

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// gcp gets an access token of Google Cloud for the job's identity, by workload identity federation: the identity is exchanged for a token of the
// pool's, and that, if the policy names a service account, for one of the account. They end by themselves: nobody can revoke them.
//
// See https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token and
// https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken.
type gcp struct {
	exchanger
	c policy.Credential
}

const (
	gcpTokens   = "https://sts.googleapis.com/v1/token"
	gcpAccounts = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
	gcpScope    = "https://www.googleapis.com/auth/cloud-platform"
)

func (cfg Config) openGCP(c policy.Credential) (issuer, error) {
	s := strings.Split(c.From.Argument, "/")
	if len(s) != 8 || s[2] != "locations" || s[4] != "workloadIdentityPools" || s[6] != "providers" {
		return nil, refuse("write projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER", "%q is no name of a provider of identities", c.From.Argument)
	}
	if c.Identity != "" && !strings.HasSuffix(c.Identity, ".gserviceaccount.com") {
		return nil, refuse("write NAME@PROJECT.iam.gserviceaccount.com", "%q is no service account", c.Identity)
	}
	if err := cfg.needIdentity("use `exec:gcloud auth print-access-token`"); err != nil {
		return nil, err
	}
	return gcp{exchanger{cfg, "Google Cloud"}, c}, nil
}

func (g gcp) issue(ctx context.Context) (token, error) {
	// Providers take their own address as audience unless they were told otherwise.
	identity, err := g.cfg.OIDC(ctx, "https://iam.googleapis.com/"+g.c.From.Argument)
	if err != nil {
		return token{}, err
	}
	body, err := json.Marshal(map[string]string{
		"audience": "//iam.googleapis.com/" + g.c.From.Argument, "grantType": "urn:ietf:params:oauth:grant-type:token-exchange", "scope": gcpScope,
		"requestedTokenType": "urn:ietf:params:oauth:token-type:access_token", "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt",
		"subjectToken": identity.Reveal(),
	})
	if err != nil {
		return token{}, err
	}
	var federated struct {
		Token   string `json:"access_token"`
		Seconds int64  `json:"expires_in"`
	}
	if err := g.json(ctx, http.MethodPost, gcpTokens, nil, body, &federated); err != nil {
		return token{}, fmt.Errorf("exchange the identity: %w", err)
	}
	if federated.Token == "" || federated.Seconds <= 0 {
		return token{}, errNoEnd
	}
	if g.c.Identity == "" {
		return token{value: secret.New(federated.Token), expires: g.cfg.now()().Add(time.Duration(federated.Seconds) * time.Second)}, nil
	}
	return g.account(ctx, federated.Token)
}

// account has the service account give a token.
func (g gcp) account(ctx context.Context, federated string) (token, error) {
	body, err := json.Marshal(map[string]any{"scope": []string{gcpScope}, "lifetime": "3600s"})
	if err != nil {
		return token{}, err
	}
	var got struct {
		Token   string    `json:"accessToken"`
		Expires time.Time `json:"expireTime"`
	}
	header := http.Header{"Authorization": {"Bearer " + federated}}
	if err := g.json(ctx, http.MethodPost, gcpAccounts+url.PathEscape(g.c.Identity)+":generateAccessToken", header, body, &got); err != nil {
		return token{}, fmt.Errorf("stand in for %s: %w", g.c.Identity, err)
	}
	if got.Token == "" || got.Expires.IsZero() {
		return token{}, errNoEnd
	}
	return token{value: secret.New(got.Token), expires: got.Expires}, nil
}
