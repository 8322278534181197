package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

// TestAttestations: what GitHub stores is the bundle, found by the digest of the patch, and verifies as before.
func TestAttestations(t *testing.T) {
	g := runnertest.NewGitHub(t, runnertest.GitHubConfig{})
	repo := g.AddRepository("acme/shop")
	for text, permissions := range map[string]map[string]string{
		"ghs_may": {"attestations": "write"}, "ghs_reads": {"attestations": "read"}, "ghs_other": {"contents": "write"},
	} {
		g.AddToken(runnertest.Token{Text: text, RepositoryIDs: []int64{repo.ID}, Permissions: permissions})
	}
	a := newAuthorities(t)
	statement, files := recorded(t, testRun)
	file := signed(t, keyless(a), statement)
	store := Attestations{API: g.API(), Server: "https://github.example", Repository: "acme/shop", Token: secret.New("ghs_may")}
	page, err := store.Store(t.Context(), file)
	if err != nil || !strings.HasPrefix(page, "https://github.example/acme/shop/attestations/") {
		t.Fatalf("%q, %v", page, err)
	}
	for _, name := range []string{"changes.patch", "events.jsonl"} {
		if got := storedBundle(t, g, digest(files[name].Data)); !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(file)) {
			t.Errorf("of %s it has %s", name, got)
		}
	}
	accept := Acceptance{Repository: a.ID.RepositoryID, Trusted: a.trusted(t), Files: files}
	if r := Verify(storedBundle(t, g, digest(files["changes.patch"].Data)), accept); !r.OK() {
		t.Errorf("what is stored does not verify: %+v", r.Verdicts)
	}

	signer, _ := newKeySigner(t, "ed25519", nil)
	if _, err := store.Store(t.Context(), signed(t, signer, statement)); !errors.Is(err, ErrNotKeyless) {
		t.Errorf("signed with a key: %v", err)
	}
	for _, token := range []string{"ghs_reads", "ghs_other", "ghs_unknown"} {
		store.Token = secret.New(token)
		if _, err := store.Store(t.Context(), file); err == nil || !strings.Contains(err.Error(), "hint: the token has to be of a job") || strings.Contains(err.Error(), token) {
			t.Errorf("with %s: %v", token, err)
		}
	}
}

// TestAttestationsAgain: a failure for a moment is not the end.
func TestAttestationsAgain(t *testing.T) {
	g := runnertest.NewGitHub(t, runnertest.GitHubConfig{})
	g.AddRepository("acme/shop")
	g.AddToken(runnertest.Token{Text: "ghs_may", Permissions: map[string]string{"attestations": "write"}})
	g.Inject(runnertest.Fault{Method: "POST", Status: http.StatusBadGateway, Times: 2})
	statement, _ := recorded(t, testRun)
	store := Attestations{API: g.API(), Repository: "acme/shop", Token: secret.New("ghs_may")}
	if _, err := store.Store(t.Context(), signed(t, keyless(newAuthorities(t)), statement)); err != nil {
		t.Error(err)
	}
}

// storedBundle is what the fake has for a digest.
func storedBundle(t *testing.T, g *runnertest.GitHub, sum string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/repos/acme/shop/attestations/sha256:%s", g.API(), sum), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer ghs_may")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Attestations []struct {
			Bundle json.RawMessage `json:"bundle"`
		} `json:"attestations"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || len(answer.Attestations) != 1 {
		t.Fatalf("%d attestations, %v", len(answer.Attestations), err)
	}
	return answer.Attestations[0].Bundle
}
