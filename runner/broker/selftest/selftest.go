// Package selftest attacks a token broker from outside and says of each attack whether it was refused. It is read-only: every token that it shows is
// either forged or, where a job's identity is at hand, asks for a repository that does not exist, so that even a broker that falls for it issues nothing. What
// takes the issuer's own key, such as a token that has expired, it can't try, and says so.
package selftest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/org/agent-sandbox/runner/secret"
)

// nowhere is a repository that no App is installed for.
const nowhere = "agent-sandbox-selftest/no-such-repository"

const (
	maxAnswer = 64 << 10
	maxKeys   = 1 << 20
)

// Config says which broker, and what its tokens look like.
type Config struct {
	// URL is the broker's, without /sts/exchange.
	URL *url.URL
	// Audience is what the broker wants as aud.
	Audience string
	// Issuer is one that the broker trusts, and JWKS where its keys are.
	Issuer, JWKS string
	// Client makes the requests. It has to follow no redirects.
	Client *http.Client
	// Identity gives a job's token of the issuer for an audience. Without it the attacks that need one are skipped.
	Identity func(ctx context.Context, audience string) (secret.Value, error)
}

// Verdict is what came of a step.
type Verdict string

// The zero Verdict is none of these.
const (
	OK      Verdict = "ok"      // a control that passed, or an attack that was refused
	Broken  Verdict = "BROKEN"  // a control that failed, or an attack that got past its check
	Unclear Verdict = "unclear" // the broker answered neither way
	Skipped Verdict = "skipped"
)

// Result is one control or attack.
type Result struct {
	Name    string  `json:"name"`
	Control bool    `json:"control,omitempty"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail,omitempty"`
}

// Passed tells whether every control passed and every attack that could be tried was refused.
func Passed(results []Result) bool {
	tried := 0
	for _, r := range results {
		switch r.Verdict {
		case OK:
			tried++
		case Skipped:
		default:
			return false
		}
	}
	return tried > 0
}

// prober has what the steps share.
type prober struct {
	Config
	public   *rsa.PublicKey // of the issuer
	kid      string
	stranger *rsa.PrivateKey
}

// Run makes all steps, the controls before and after the attacks. An error means that it could not begin.
func Run(ctx context.Context, cfg Config) ([]Result, error) {
	p := &prober{Config: cfg}
	var err error
	if p.stranger, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	if err := p.fetchKey(ctx); err != nil {
		return nil, fmt.Errorf("the issuer's keys: %w", err)
	}
	results := p.controls(ctx)
	for _, a := range append(p.forgeries(), p.misuses()...) {
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
		results = append(results, a.run(ctx))
	}
	results = append(results, p.refusal(ctx, "a plain refusal, after the attacks"))
	for _, name := range []string{"aud as a list", "expired", "future iat", "fork", "pull_request_target", "renamed repository", "permissions beyond the ceiling"} {
		results = append(results, Result{Name: name, Verdict: Skipped, Detail: "takes the issuer's key, or a repository that trusts the broker: the broker's own tests have it"})
	}
	return results, nil
}

// fetchKey takes an RSA key of the issuer: the one that its tokens are verified with.
func (p *prober) fetchKey(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.JWKS, nil)
	if err != nil {
		return err
	}
	res, err := p.Client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", p.JWKS, res.Status)
	}
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(io.LimitReader(res.Body, maxKeys)).Decode(&set); err != nil {
		return fmt.Errorf("%s: %w", p.JWKS, err)
	}
	for _, k := range set.Keys {
		if public, ok := k.Key.(*rsa.PublicKey); ok {
			p.public, p.kid = public, k.KeyID
		}
	}
	if p.public == nil {
		return fmt.Errorf("%s has no RSA key", p.JWKS)
	}
	return nil
}

// reply is what the broker said.
type reply struct {
	status  int
	code    int // -1 if it was not of the exchange's form
	message string
}

func (r reply) String() string {
	if r.code < 0 {
		return fmt.Sprintf("status %d, not in the form of an exchange", r.status)
	}
	return fmt.Sprintf("status %d, code %d: %.200s", r.status, r.code, r.message)
}

// exchange asks with these Authorization headers, for a repository that there is not.
func (p *prober) exchange(ctx context.Context, query url.Values, authorization ...string) (reply, error) {
	u := p.URL.JoinPath("sts", "exchange")
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return reply{}, err
	}
	req.Header["Authorization"] = authorization
	res, err := p.Client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return reply{}, err
	}
	var v struct {
		Code    *int   `json:"code"`
		Message string `json:"message"`
	}
	r := reply{status: res.StatusCode, code: -1}
	if json.Unmarshal(body, &v) == nil && v.Code != nil {
		r.code, r.message = *v.Code, v.Message
	}
	return r, nil
}

func plain() url.Values { return url.Values{"scope": {nowhere}, "identity": {"selftest"}} }

// get is the status of one of the broker's other pages.
func (p *prober) get(ctx context.Context, path string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL.JoinPath(path).String(), nil)
	if err != nil {
		return 0, err
	}
	res, err := p.Client.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// controls are the steps that a broker in good order passes. A broker that refuses everything does not pass the one with a job's identity.
func (p *prober) controls(ctx context.Context) []Result {
	var all []Result
	for _, path := range []string{"healthz", "readyz"} {
		r := Result{Name: path, Control: true, Verdict: OK}
		if status, err := p.get(ctx, path); err != nil || status != http.StatusOK {
			r.Verdict, r.Detail = Broken, fmt.Sprintf("status %d, %v", status, err)
		}
		all = append(all, r)
	}
	all = append(all, p.refusal(ctx, "a plain refusal"))
	r := Result{Name: "a job's own token is verified", Control: true, Verdict: Skipped, Detail: noIdentity}
	if p.Identity != nil {
		rep, err := p.withIdentity(ctx, plain())
		switch {
		case err != nil:
			r.Verdict, r.Detail = Unclear, err.Error()
		case rep.status == http.StatusNotFound || rep.status == http.StatusForbidden: // there is no such repository
			r.Verdict, r.Detail = OK, ""
		default:
			r.Verdict, r.Detail = Broken, rep.String()
		}
	}
	return append(all, r)
}

// refusal is what an exchange without a token has to come to: in the form that clients read, and not from something in front of the broker.
func (p *prober) refusal(ctx context.Context, name string) Result {
	rep, err := p.exchange(ctx, plain())
	return judged(Result{Name: name, Control: true}, rep, err)
}

// judged: only 401 in the form of an exchange is a refusal of a token. Any other answer of the exchange came from behind that check.
func judged(r Result, rep reply, err error) Result {
	switch {
	case err != nil:
		r.Verdict, r.Detail = Unclear, err.Error()
	case rep.status == http.StatusUnauthorized && rep.code == 16:
		r.Verdict = OK
	case rep.status == http.StatusTooManyRequests:
		r.Verdict, r.Detail = Unclear, "the broker holds this client off: try again in a minute"
	case r.Control || rep.code >= 0 && rep.status < 500 || rep.status == http.StatusOK:
		r.Verdict, r.Detail = Broken, rep.String()
	default:
		r.Verdict, r.Detail = Unclear, rep.String()
	}
	return r
}

const noIdentity = "needs a job's identity: run it in a job with `permissions: {id-token: write}`"

func (p *prober) identity(ctx context.Context, audience string) (string, error) {
	v, err := p.Identity(ctx, audience)
	if err == nil && strings.Count(v.Reveal(), ".") != 2 {
		err = errors.New("the job's identity is not a JWT")
	}
	return v.Reveal(), err
}

func (p *prober) withIdentity(ctx context.Context, query url.Values) (reply, error) {
	token, err := p.identity(ctx, p.Audience)
	if err != nil {
		return reply{}, err
	}
	return p.exchange(ctx, query, "Bearer "+token)
}

// claims are as right as those of a job can be.
func (p *prober) claims() map[string]any {
	now := time.Now()
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return map[string]any{
		"iss": p.Issuer, "aud": p.Audience, "sub": "repo:" + nowhere + ":ref:refs/heads/main", "jti": "selftest-" + hex.EncodeToString(id),
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(), "event_name": "push", "ref": "refs/heads/main",
		"repository": nowhere, "repository_id": "1", "repository_owner": "agent-sandbox-selftest", "repository_owner_id": "1", "run_id": "1", "run_attempt": "1",
	}
}
