package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/runner/secret"
)

// Attestations is GitHub's store of attestations of one repository, where `gh attestation verify` looks for them
// (https://docs.github.com/en/rest/repos/attestations). Whoever may write to it may delete from it too: it is no archive.
type Attestations struct {
	API        string       // base URL of the REST API, such as https://api.github.com
	Server     string       // of the pages, such as https://github.com
	Repository string       // owner/name
	Token      secret.Value // the job's, with the permission `attestations: write`
	HTTP       *http.Client // nil: one of ours
}

// ErrNotKeyless is a manifest that GitHub does not take: it knows no keys.
var ErrNotKeyless = errors.New("only a manifest that is signed keyless can be stored with GitHub's attestations")

// Store puts a manifest's file there, and returns the address of its page.
func (a *Attestations) Store(ctx context.Context, file []byte) (string, error) {
	o, err := Open(file)
	if err != nil {
		return "", err
	}
	if o.Mode() != Keyless {
		return "", ErrNotKeyless
	}
	owner, name, ok := strings.Cut(a.Repository, "/")
	if !ok {
		return "", fmt.Errorf("store attestation: %q is not the name of a repository", a.Repository)
	}
	body, err := json.Marshal(map[string]json.RawMessage{"bundle": file})
	if err != nil {
		return "", err
	}
	answer, err := post(ctx, a.HTTP, fmt.Sprintf("%s/repos/%s/%s/attestations", strings.TrimSuffix(a.API, "/"), url.PathEscape(owner), url.PathEscape(name)), http.Header{
		"Accept": {"application/vnd.github+json"}, "Authorization": {"Bearer " + a.Token.Reveal()}, "Content-Type": {"application/json"},
		"X-Github-Api-Version": {"2022-11-28"},
	}, body)
	if status, refused := errors.AsType[*statusError](err); refused && status.code >= http.StatusBadRequest && status.code < http.StatusInternalServerError {
		return "", fmt.Errorf("store attestation: %w\nhint: the token has to be of a job with `permissions: {attestations: write}`", err)
	}
	if err != nil {
		return "", fmt.Errorf("store attestation: %w", err)
	}
	var stored struct {
		ID int64 `json:"id"`
	}
	if err := json.Unmarshal(answer, &stored); err != nil || stored.ID == 0 {
		return "", fmt.Errorf("store attestation: %s did not say that it has it", hostOf(a.API))
	}
	return strings.TrimSuffix(a.Server, "/") + "/" + a.Repository + "/attestations/" + strconv.FormatInt(stored.ID, 10), nil
}
