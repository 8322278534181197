package rotate

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/crypto/nacl/box"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/secret"
)

// gitHubStore is an Actions secret (https://docs.github.com/en/rest/actions/secrets). GitHub never gives it back; that it was replaced is
// seen by its date.
type gitHubStore struct {
	client  *retryablehttp.Client
	base    string // URL of the secrets that it is among
	name    string
	token   secret.Value
	ofOwner bool // of an organisation
}

func (cfg Config) openGitHub(ctx context.Context, s policy.KeyStore) (store, error) {
	repository := s.Repository
	if repository == "self" {
		if repository = cfg.Sources.Self; repository == "" {
			return nil, mend("write owner/name", "`self` stands for the project's repository, and the project has no remote on GitHub")
		}
	}
	api := strings.TrimSuffix(cmp.Or(cfg.Sources.GitHubAPI, credential.DefaultGitHubAPI), "/")
	base := api + "/repos/" + repository + "/actions/secrets"
	switch {
	case s.Organization != "":
		base = api + "/orgs/" + s.Organization + "/actions/secrets"
	case s.Environment != "":
		base = api + "/repos/" + repository + "/environments/" + url.PathEscape(s.Environment) + "/secrets"
	}
	token, err := cfg.storeToken(ctx, s, "GH_TOKEN", "GITHUB_TOKEN")
	if err != nil {
		return nil, err
	}
	return gitHubStore{cfg.Sources.Retrying(), base, s.GitHub, token, s.Organization != ""}, nil
}

// secretState is what GitHub tells of a secret.
type secretState struct {
	UpdatedAt  time.Time `json:"updated_at"`
	Visibility string    `json:"visibility"`
}

func (s gitHubStore) written(ctx context.Context) (time.Time, error) {
	state, err := s.state(ctx)
	return state.UpdatedAt, err
}

func (s gitHubStore) state(ctx context.Context) (secretState, error) {
	var state secretState
	_, err := s.call(ctx, http.MethodGet, "/"+s.name, nil, &state)
	switch status := statusOf(err); {
	case status == http.StatusNotFound:
		err = mend("make it, with the present key; or the token can't see it", "GitHub has no such secret")
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		err = mend("it takes the permission secrets (environments, organization_secrets), which the GITHUB_TOKEN of a workflow can't have", "the token may not ask for secrets")
	}
	return state, err
}

// secretUpdate is the body of the request that replaces a secret.
type secretUpdate struct {
	EncryptedValue string  `json:"encrypted_value"`
	KeyID          string  `json:"key_id"`
	Visibility     string  `json:"visibility,omitempty"`
	Repositories   []int64 `json:"selected_repository_ids,omitempty"`
}

func (s gitHubStore) put(ctx context.Context, v secret.Value) (bool, error) {
	before, err := s.state(ctx)
	if err != nil {
		return false, &untouchedError{err}
	}
	update, err := s.seal(ctx, v)
	if err == nil && s.ofOwner {
		update.Visibility = before.Visibility
		update.Repositories, err = s.selected(ctx, before.Visibility)
	}
	if err != nil {
		return false, &untouchedError{err}
	}
	at, err := s.call(ctx, http.MethodPut, "/"+s.name, update, nil)
	if refused(err) {
		return false, &untouchedError{err}
	}
	if err != nil {
		return false, err
	}
	after, err := s.state(ctx)
	if err != nil {
		return false, err
	}
	// GitHub's dates are whole seconds, so a second change in one of them moves nothing.
	if !after.UpdatedAt.After(before.UpdatedAt) && after.UpdatedAt.Before(at.Truncate(time.Second)) {
		return false, errors.New("GitHub said that the secret is replaced, and its date has not moved")
	}
	return true, nil
}

// seal encrypts a value for the secret's place alone (libsodium's crypto_box_seal).
func (s gitHubStore) seal(ctx context.Context, v secret.Value) (secretUpdate, error) {
	var key struct {
		ID  string `json:"key_id"`
		Key []byte `json:"key"`
	}
	if _, err := s.call(ctx, http.MethodGet, "/public-key", nil, &key); err != nil {
		return secretUpdate{}, err
	}
	if len(key.Key) != 32 || key.ID == "" {
		return secretUpdate{}, errors.New("GitHub's public key is none")
	}
	sealed, err := box.SealAnonymous(nil, []byte(v.Reveal()), (*[32]byte)(key.Key), rand.Reader)
	return secretUpdate{EncryptedValue: base64.StdEncoding.EncodeToString(sealed), KeyID: key.ID}, err
}

// selected are the repositories that a secret of an organisation is for. A request that leaves them out takes it from them.
func (s gitHubStore) selected(ctx context.Context, visibility string) ([]int64, error) {
	if visibility != "selected" {
		return nil, nil
	}
	var ids []int64
	for page := 1; ; page++ {
		var list struct {
			Total        int `json:"total_count"`
			Repositories []struct {
				ID int64 `json:"id"`
			} `json:"repositories"`
		}
		if _, err := s.call(ctx, http.MethodGet, fmt.Sprintf("/%s/repositories?per_page=100&page=%d", s.name, page), nil, &list); err != nil {
			return nil, err
		}
		for _, r := range list.Repositories {
			ids = append(ids, r.ID)
		}
		switch {
		case len(ids) >= list.Total:
			return ids, nil
		case len(list.Repositories) == 0 || page == 100:
			return nil, errors.New("GitHub does not tell all repositories that the secret is for")
		}
	}
}

// call asks GitHub, and returns the time by its clock.
func (s gitHubStore) call(ctx context.Context, method, path string, body, out any) (time.Time, error) {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return time.Time{}, err
		}
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, method, s.base+path, payload)
	if err != nil {
		return time.Time{}, err
	}
	req.Header.Set("Authorization", "Bearer "+s.token.Reveal())
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	return exchange(s.client, req, out)
}

// exchange sends a request that can be sent twice, and reads the JSON of the answer into out unless that is nil. It returns the time by
// the server's clock.
func exchange(client *retryablehttp.Client, req *retryablehttp.Request, out any) (time.Time, error) {
	resp, err := client.Do(req)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, credential.WithoutURL(err))
	}
	defer resp.Body.Close()
	at, _ := http.ParseTime(resp.Header.Get("Date"))
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return at, err
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		var m struct{ Message string }
		_ = json.Unmarshal(b, &m) // a message is a courtesy
		return at, &answerError{resp.StatusCode, m.Message[:min(len(m.Message), 200)]}
	case out == nil:
		return at, nil
	}
	if json.Unmarshal(b, out) != nil {
		return at, errors.New("the answer is not the JSON that was expected")
	}
	return at, nil
}
