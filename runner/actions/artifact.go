package actions

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/agent-sandbox/runner/secret"
)

// Artifacts is the service that keeps the files of a workflow run, in version 4 of its API, as actions/toolkit speaks it.
type Artifacts struct {
	URL   string       // ACTIONS_RESULTS_URL; its origin alone counts
	Token secret.Value // ACTIONS_RUNTIME_TOKEN
	// Appends tells that the service stores blocks in the order of their arrival and knows none again, as that of nektos/act does: after
	// a block that failed the artifact is begun anew.
	Appends bool
	HTTP    *http.Client              // nil: one of ours
	Retried func(what string)         // is told of each request that is tried again; nil: nobody is
	Mask    func(sig secret.Value)    // is given what addresses are signed with, before one is used; nil: nobody is
	wait    time.Duration             // before the first retry; 0: waitMin
	block   int64                     // bytes; 0: blockSize
	ids     struct{ run, job string } // of the job, as the service names them
}

// ErrNoArtifacts tells that a job has no service for artifacts; its text says why.
var ErrNoArtifacts = errors.New("no artifact service")

// ErrQuota tells that the owner's storage for artifacts is used up: nothing that we could try again.
var ErrQuota = errors.New("the storage for artifacts is used up, until something is deleted or expires")

// Artifacts is the job's service for artifacts; the error is an ErrNoArtifacts where there is none.
func (j *Job) Artifacts() (*Artifacts, error) {
	switch {
	case !j.Act && isEnterpriseServer(j.ServerURL):
		return nil, fmt.Errorf("%w: GitHub Enterprise Server has none of version 4", ErrNoArtifacts)
	case j.ResultsURL == "" || j.RuntimeToken.IsEmpty():
		why := "the step got no ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN"
		if j.Act {
			why += "; act gives them with --artifact-server-path"
		}
		return nil, fmt.Errorf("%w: %s", ErrNoArtifacts, why)
	}
	a := &Artifacts{URL: j.ResultsURL, Token: j.RuntimeToken, Appends: j.Act}
	return a, a.init()
}

// isEnterpriseServer follows isGhes of actions/toolkit.
func isEnterpriseServer(server string) bool {
	u, err := url.Parse(cmp.Or(server, "https://github.com"))
	if err != nil {
		return true
	}
	host := strings.ToLower(u.Hostname())
	return host != "github.com" && !strings.HasSuffix(host, ".ghe.com") && !strings.HasSuffix(host, ".localhost")
}

// init checks the address, and reads the job's ids from the token, whose signature is the service's to check.
func (a *Artifacts) init() error {
	u, err := url.Parse(a.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("artifact service: ACTIONS_RESULTS_URL is no URL")
	}
	a.URL = u.Scheme + "://" + u.Host
	parts := strings.Split(a.Token.Reveal(), ".")
	var claims struct {
		Scope string `json:"scp"`
	}
	if len(parts) != 3 {
		return errors.New("artifact service: ACTIONS_RUNTIME_TOKEN is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return errors.New("artifact service: ACTIONS_RUNTIME_TOKEN is no JWT")
	}
	for scope := range strings.FieldsSeq(claims.Scope) {
		if f := strings.Split(scope, ":"); f[0] == "Actions.Results" && len(f) == 3 && f[1] != "" && f[2] != "" {
			a.ids.run, a.ids.job = f[1], f[2]
			return nil
		}
	}
	return errors.New("artifact service: ACTIONS_RUNTIME_TOKEN does not name the job")
}

// artifactService is the path of the service's methods (Twirp).
const artifactService = "/twirp/github.actions.results.api.v1.ArtifactService/"

// maxAnswer bounds an answer of the service in bytes.
const maxAnswer = 1 << 20

// call asks one method of the service; the job's ids go with it. Network failures and a server's are tried again.
func (a *Artifacts) call(ctx context.Context, method string, request map[string]any) (answer, error) {
	request["workflow_run_backend_id"], request["workflow_job_run_backend_id"] = a.ids.run, a.ids.job
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, a.URL+artifactService+method, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, noURL(err))
	}
	req.Header.Set("Authorization", "Bearer "+a.Token.Reveal())
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client().Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, noURL(err))
	}
	defer resp.Body.Close()
	got := answer{}
	if err := readJSON(resp, maxAnswer, &got); err != nil {
		if s, ok := errors.AsType[*statusError](err); ok && isQuota(s.message) {
			err = ErrQuota
		}
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	if ok, has := got.field("ok"); has && string(ok) != "true" {
		return nil, fmt.Errorf("%s: the service says that it was not done", method)
	}
	return got, nil
}

func (a *Artifacts) client() *retryablehttp.Client {
	c := newClient(a.HTTP, a.Retried)
	c.RetryWaitMin = cmp.Or(a.wait, c.RetryWaitMin)
	c.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if err == nil && resp.StatusCode >= http.StatusBadRequest && isQuota(peekMessage(resp)) {
			return false, nil
		}
		return checkRetry(ctx, resp, err)
	}
	return c
}

// isQuota knows the message by which the service says that storage is used up, as actions/toolkit does.
func isQuota(message string) bool { return strings.Contains(message, "insufficient usage") }

// answer is an object of the service's. Its keys are in snake case on GitHub, and in camel case with act.
type answer map[string]json.RawMessage

func (a answer) field(snake string) (json.RawMessage, bool) {
	if v, ok := a[snake]; ok {
		return v, true
	}
	words := strings.Split(snake, "_")
	for i, w := range words[1:] {
		words[i+1] = strings.ToUpper(w[:1]) + w[1:]
	}
	v, ok := a[strings.Join(words, "")]
	return v, ok
}

// text is a string, or empty.
func (a answer) text(name string) string {
	raw, _ := a.field(name)
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// number is an int64, which protobuf's JSON writes as a string, and some servers as a number; 0 if there is none.
func (a answer) number(name string) int64 {
	raw, _ := a.field(name)
	n, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
