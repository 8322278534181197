package actions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/agent-sandbox/runner/secret"
)

// Identity is where a job with `permissions: id-token: write` gets a token that says who it is, as often as it wants.
type Identity struct {
	URL   string
	Token secret.Value // for the request
	HTTP  *http.Client // nil: one of ours
}

// IdentityFromEnv is the identity of the job that the environment is of; nil if it has none.
func IdentityFromEnv(lookup func(string) (string, bool)) *Identity {
	u, _ := lookup("ACTIONS_ID_TOKEN_REQUEST_URL")
	token, _ := lookup("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if u == "" || token == "" {
		return nil
	}
	return &Identity{URL: u, Token: secret.New(token)}
}

// maxIDToken bounds the answer in bytes; a token has about two thousand.
const maxIDToken = 64 << 10

// IDToken asks for a token for one audience.
func (i *Identity) IDToken(ctx context.Context, audience string) (secret.Value, error) {
	if audience == "" {
		return secret.Value{}, errors.New("token of the job's identity: no audience")
	}
	address, err := i.address(audience)
	if err != nil {
		return secret.Value{}, err
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return secret.Value{}, fmt.Errorf("token of the job's identity: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+i.Token.Reveal())
	req.Header.Set("Accept", "application/json; api-version=2.0")
	resp, err := newClient(i.HTTP, nil).Do(req)
	if err != nil {
		return secret.Value{}, fmt.Errorf("token of the job's identity: %w", noURL(err))
	}
	defer resp.Body.Close()
	var answer struct {
		Value string `json:"value"`
	}
	err = readJSON(resp, maxIDToken, &answer)
	if err == nil && answer.Value == "" {
		err = errors.New("the answer has none")
	}
	if err != nil {
		return secret.Value{}, fmt.Errorf("token of the job's identity: %w", err)
	}
	return secret.New(answer.Value), nil
}

// address is the request's, which on GitHub has a query already.
func (i *Identity) address(audience string) (string, error) {
	u, err := url.Parse(i.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", errors.New("token of the job's identity: ACTIONS_ID_TOKEN_REQUEST_URL is no URL")
	}
	sep := "?"
	if strings.Contains(i.URL, "?") {
		sep = "&"
	}
	return i.URL + sep + "audience=" + url.QueryEscape(audience), nil
}

// Bounds of a request to the runner's services.
const (
	tries       = 5
	waitMin     = 500 * time.Millisecond
	waitMax     = 8 * time.Second
	waitAsked   = time.Minute // the longest that a server can have us wait
	requestTime = 5 * time.Minute
)

// newClient tries again after failures of the network and of the server. The package's own logger would print addresses, which are
// signed; retried gets what may be said of them.
func newClient(base *http.Client, retried func(what string)) *retryablehttp.Client {
	c := retryablehttp.NewClient()
	c.Logger = nil
	c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = tries-1, waitMin, waitMax
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	c.CheckRetry = checkRetry
	c.Backoff = backoff
	if base != nil {
		ours := *base
		c.HTTPClient = &ours
	} else {
		c.HTTPClient.Timeout = requestTime
	}
	c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // with the token in its headers
	c.RequestLogHook = func(_ retryablehttp.Logger, req *http.Request, attempt int) {
		if attempt > 0 && retried != nil {
			retried(fmt.Sprintf("%s %s: attempt %d", req.Method, req.URL.Path, attempt+1))
		}
	}
	return c
}

// checkRetry follows actions/toolkit: these statuses and failures of the network.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil {
		return true, nil //nolint:nilerr // tried again; the last error is returned
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true, nil
	}
	return false, nil
}

// backoff doubles the wait each time, or follows the server's Retry-After, within bounds.
func backoff(least, most time.Duration, attempt int, resp *http.Response) time.Duration {
	return min(retryablehttp.DefaultBackoff(least, most, attempt, resp), waitAsked)
}

// noURL takes the address out of an error of a request: its query is a signature.
func noURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// readJSON reads the answer to a request.
func readJSON(resp *http.Response, limit int64, v any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return noURL(err)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return &statusError{resp.StatusCode, messageOf(b)}
	case int64(len(b)) > limit:
		return fmt.Errorf("the answer has more than %d bytes", limit)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errors.New("the answer is not the JSON that was expected")
	}
	return nil
}

// statusError is an answer that is none.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("status %d: %s", e.status, e.message), ": ")
}

// peekMessage is the reason in the body of an error, which can still be read afterwards.
func peekMessage(resp *http.Response) string {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPeek))
	if err != nil {
		return ""
	}
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), rest), rest}
	return messageOf(b)
}

// maxPeek bounds the part of an error's body that is looked at, in bytes.
const maxPeek = 64 << 10

// messageOf is the reason in the body of an error: {"msg": ...} of the artifact service, {"message": ...} of others.
func messageOf(body []byte) string {
	var m struct{ Msg, Message string }
	if json.Unmarshal(body, &m) != nil {
		return ""
	}
	text := m.Msg + m.Message
	return text[:min(len(text), 300)]
}
