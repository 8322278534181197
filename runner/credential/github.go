package credential

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// isGitHub reports whether the credential is a token that is issued for this run, for repositories.
func isGitHub(c policy.Credential) bool {
	return c.From.Kind == "github-app" || c.From.Kind == "github-oidc"
}

// DefaultGitHubAPI is the API of github.com.
const DefaultGitHubAPI = "https://api.github.com"

// checkHosts refuses a token of another GitHub without the hosts where it may go: those that are known are github.com's, and would
// see it. An API on this machine stands in for github.com's.
func (cfg Config) checkHosts(c policy.Credential) error {
	u, err := url.Parse(cfg.api())
	if err != nil {
		return err
	}
	addr, _ := netip.ParseAddr(u.Hostname())
	if !isGitHub(c) || c.Deliver != policy.DeliverInject || len(c.Hosts) > 0 || cfg.api() == DefaultGitHubAPI || addr.IsLoopback() {
		return nil
	}
	return refuse(fmt.Sprintf("add `host: %s`", strings.TrimPrefix(u.Hostname(), "api.")), "it is issued by the GitHub at %s, and would go to github.com", u.Hostname())
}

// dangerous are permissions with which a token can widen itself, or what runs with the rights of others
// (https://docs.github.com/en/rest/authentication/permissions-required-for-github-apps).
func dangerous(name, level string) bool {
	if level == "read" {
		return false
	}
	return slices.Contains([]string{"administration", "members", "secrets", "workflows", "environments", "actions_variables"}, name) || strings.HasPrefix(name, "organization_")
}

// checkScope refuses a scope that reaches further than the project. ceiling says which of the dangerous permissions an organisation allows by name.
func checkScope(c policy.Credential, ceiling map[string]string) error {
	for name, level := range c.Permissions {
		if dangerous(name, level) && ceiling[name] != level {
			return refuse("remove it; an organisation's ceiling can allow it by name", "the permission %s: %s would let the agent change what runs with others' rights", name, level)
		}
	}
	return nil
}

// gitHub talks to the REST API.
type gitHub struct {
	api  string // base URL, without a slash at the end
	http *http.Client
}

const (
	maxAnswer   = 1 << 20
	requestTime = 20 * time.Second
	tries       = 4
)

// statusError is an answer that is none.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("status %d: %s", e.status, e.message), ": ")
}

// retrying asks again after failures of the moment, and never prints what it asks. It follows no redirect: the request has a secret.
func retrying(base *http.Client, wait time.Duration) *retryablehttp.Client {
	c := retryablehttp.NewClient()
	c.Logger = nil
	c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = tries-1, wait, 8*wait
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	c.HTTPClient = &http.Client{Timeout: requestTime}
	if base != nil {
		c.HTTPClient.Transport = base.Transport
	}
	c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// withoutURL takes the address out of an error: its query is nobody's business.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// call sends a request with a bearer token, and reads the answer into out unless that is nil. It returns the status.
func (g gitHub) call(ctx context.Context, method, path string, bearer secret.Value, body, out any) (int, error) {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, method, g.api+path, payload)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+bearer.Reveal())
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	resp, err := retrying(g.http, 250*time.Millisecond).Do(req)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", method, path, withoutURL(err))
	}
	defer resp.Body.Close()
	return resp.StatusCode, readAnswer(resp, out)
}

// readAnswer reads a JSON answer; one that is not of the 200s is a *statusError with what the server says.
func readAnswer(resp *http.Response, out any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return err
	case len(b) > maxAnswer:
		return fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		text := said(b)
		return &statusError{resp.StatusCode, text[:min(len(text), 300)]}
	case out == nil:
		return nil
	}
	if json.Unmarshal(b, out) != nil {
		return errors.New("the answer is not the JSON that was expected")
	}
	return nil
}

// said is what a server has to say about a failure, if anything: GitHub and our broker have a message, Vault a list of errors, Google
// an error with a message or a description.
func said(answer []byte) string {
	var m struct {
		Message     string
		Errors      json.RawMessage
		Error       json.RawMessage
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(answer, &m) // a message is a courtesy, and so are the following
	var list []string
	_ = json.Unmarshal(m.Errors, &list)
	var inner struct{ Message string }
	_ = json.Unmarshal(m.Error, &inner)
	return cmp.Or(m.Message, strings.Join(list, "; "), inner.Message, m.Description)
}

// installationToken is GitHub's answer
// (https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app).
type installationToken struct {
	Token        string            `json:"token"`
	ExpiresAt    time.Time         `json:"expires_at"`
	Permissions  map[string]string `json:"permissions"`
	Selection    string            `json:"repository_selection"`
	Repositories []struct {
		ID       int64  `json:"id"`
		FullName string `json:"full_name"`
	} `json:"repositories"`
}

func (t installationToken) scope(push []string) *event.CredentialScope {
	s := &event.CredentialScope{Permissions: t.Permissions, Push: push}
	for _, r := range t.Repositories {
		s.Repositories = append(s.Repositories, event.CredentialRepository{ID: r.ID, Name: r.FullName})
	}
	return s
}

// compare checks that the grant is what was asked for: not wider, or it must not be used, and not narrower, or the task fails half-way.
func (t installationToken) compare(c policy.Credential) error {
	if t.Selection == "all" {
		return errors.New("it is for all repositories of its owner")
	}
	for _, r := range t.Repositories {
		if !containsFold(c.Repositories, r.FullName) {
			return fmt.Errorf("it is for the repository %s, which was not asked for", r.FullName)
		}
	}
	for _, name := range c.Repositories {
		if !slices.ContainsFunc(t.scope(nil).Repositories, func(r event.CredentialRepository) bool { return strings.EqualFold(r.Name, name) }) {
			return fmt.Errorf("it is not for the repository %s", name)
		}
	}
	rank := []string{"", "read", "write", "admin"}
	for name, level := range t.Permissions {
		// GitHub adds metadata: read to every token.
		if slices.Index(rank, level) > slices.Index(rank, c.Permissions[name]) && !(name == "metadata" && level == "read") {
			return fmt.Errorf("it has %s: %s, which was not asked for", name, level)
		}
	}
	for name, level := range c.Permissions {
		if slices.Index(rank, t.Permissions[name]) < slices.Index(rank, level) {
			return fmt.Errorf("it lacks %s: %s", name, level)
		}
	}
	return nil
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(o string) bool { return strings.EqualFold(o, s) })
}

// accept takes the token if it is what was asked for, and revokes it if not.
func (g gitHub) accept(ctx context.Context, t installationToken, c policy.Credential, issuance string) (token, error) {
	value := secret.New(t.Token)
	if value.IsEmpty() {
		return token{}, errors.New("the answer has no token")
	}
	if err := t.compare(c); err != nil {
		_, revokeErr := g.revoke(context.WithoutCancel(ctx), value)
		return token{}, errors.Join(fmt.Errorf("the token that was issued is not the one that was asked for, and was revoked: %w", err), revokeErr)
	}
	return token{value: value, expires: t.ExpiresAt, granted: t.scope(c.Push), issuance: issuance}, nil
}

// revoke ends an installation token, and tries whether that is so: it is only over when GitHub refuses it.
func (g gitHub) revoke(ctx context.Context, value secret.Value) (event.Revocation, error) {
	ctx, cancel := context.WithTimeout(ctx, revokeTime)
	defer cancel()
	if _, err := g.call(ctx, http.MethodDelete, "/installation/token", value, nil, nil); err != nil && statusOf(err) != http.StatusUnauthorized {
		return event.RevocationFailed, fmt.Errorf("revoke: %w", err)
	}
	switch _, err := g.call(ctx, http.MethodGet, "/installation/repositories?per_page=1", value, nil, nil); {
	case statusOf(err) == http.StatusUnauthorized:
		return event.RevocationVerified, nil
	case err == nil:
		return event.RevocationFailed, errors.New("GitHub says that it is revoked, and still takes it")
	default:
		return event.RevocationAccepted, nil
	}
}

func (g gitHub) kept(value secret.Value) Kept { return Kept{GitHubAPI: g.api, Token: value.Reveal()} }

func statusOf(err error) int {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.status
	}
	return 0
}
