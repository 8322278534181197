package actions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/org/agent-sandbox/runner/secret"
)

// PullSpec is a pull request to be opened.
type PullSpec struct {
	HTTP  *http.Client // nil: one of ours
	API   string       // base URL of GitHub's API; empty: that of github.com
	Token secret.Value

	Repository  string // owner/name
	Base, Head  string // branches
	Title, Body string
}

const (
	pullTimeout = 30 * time.Second
	maxPullJSON = 4 << 20 // bytes
	defaultAPI  = "https://api.github.com"
)

// OpenPull opens a pull request, unless there is an open one of that branch, and returns its address. It follows no redirect: the request
// has a token.
func OpenPull(ctx context.Context, p PullSpec) (string, error) {
	base, err := url.Parse(strings.TrimRight(cmp.Or(p.API, defaultAPI), "/") + "/")
	if err != nil {
		return "", fmt.Errorf("open a pull request: %w", err)
	}
	owner, name, ok := strings.Cut(p.Repository, "/")
	if !ok {
		return "", fmt.Errorf("open a pull request: %q is no repository", p.Repository)
	}
	h := &http.Client{Timeout: pullTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	transport := http.DefaultTransport
	if p.HTTP != nil && p.HTTP.Transport != nil {
		transport = p.HTTP.Transport
	}
	h.Transport = bounded{transport}
	client := github.NewClient(h).WithAuthToken(p.Token.Reveal())
	client.BaseURL = base
	open, _, err := client.PullRequests.List(ctx, owner, name, &github.PullRequestListOptions{State: "open", Head: owner + ":" + p.Head, Base: p.Base})
	if err != nil {
		return "", pullError(err)
	}
	if len(open) > 0 {
		return open[0].GetHTMLURL(), nil
	}
	made, _, err := client.PullRequests.Create(ctx, owner, name, &github.NewPullRequest{
		Title: &p.Title, Head: &p.Head, Base: &p.Base, Body: &p.Body, MaintainerCanModify: github.Bool(false),
	})
	if err != nil {
		return "", pullError(err)
	}
	return made.GetHTMLURL(), nil
}

// pullError says what the server said, without the address of the request.
func pullError(err error) error {
	if answer, ok := errors.AsType[*github.ErrorResponse](err); ok && answer.Response != nil {
		return fmt.Errorf("open a pull request: status %d: %s", answer.Response.StatusCode, answer.Message)
	}
	return fmt.Errorf("open a pull request: %w", err)
}

// bounded cuts answers that are longer than any that we ask for.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if resp != nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxPullJSON), resp.Body}
	}
	return resp, err
}

// BaseBranch is the branch that changes of this job are for; empty if the job does not say.
func (j *Job) BaseBranch() string {
	if pr := j.Payload.PullRequest; pr != nil {
		return pr.Base.Ref
	}
	if name, ok := strings.CutPrefix(j.Ref, "refs/heads/"); ok {
		return name
	}
	return j.Payload.Repository.DefaultBranch
}
