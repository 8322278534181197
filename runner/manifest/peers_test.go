//go:build peers

package manifest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

// peer is a program of sigstore's: .github/scripts/verifiers builds them, and runs these tests.
func peer(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(os.Getenv("AGENT_SANDBOX_VERIFIERS"), name)
}

// TestPeerCosignKey: cosign verifies what we sign with a key, and refuses it for another key and another file.
// It hashes with SHA-256 for every key, and so knows our signatures with P-384 not at all.
func TestPeerCosignKey(t *testing.T) {
	statement, files := recorded(t, testRun)
	for _, algorithm := range []string{"ecdsa-p256", "ed25519"} {
		dir := t.TempDir()
		signer, public := newKeySigner(t, algorithm, nil)
		_, other := newKeySigner(t, algorithm, nil)
		write(t, dir, "manifest.json", signed(t, signer, statement))
		write(t, dir, "changes.patch", files["changes.patch"].Data)
		write(t, dir, "swapped.patch", []byte("another patch"))
		write(t, dir, "key.pub", publicPEM(t, public))
		write(t, dir, "other.pub", publicPEM(t, other))
		check := func(key, patch string, want bool) {
			t.Helper()
			cosign(t, dir, want, "--key", key, "--insecure-ignore-tlog", "--bundle", "manifest.json", "--type", PredicateType, patch)
		}
		check("key.pub", "changes.patch", true)
		check("other.pub", "changes.patch", false)
		check("key.pub", "swapped.patch", false)
	}
}

// peersOfJob are the services that sign together, and a job that signs with them.
type peersOfJob struct {
	signer  *KeylessSigner
	issuer  string
	repo    *runnertest.Repository
	subject string
	trusted []byte
}

func startPeers(t *testing.T) peersOfJob {
	t.Helper()
	issuer := runnertest.NewOIDC(t)
	repo := runnertest.NewGitHub(t, runnertest.GitHubConfig{}).AddRepository("acme/shop")
	certificates, signatures := startCertificateLog(t), startRekor(t)
	fulcio, authority := startFulcio(t, issuer.URL, certificates.URL), startAuthority(t)
	return peersOfJob{
		signer: &KeylessSigner{
			Instance: Instance{fulcio, &TimestampAuthority{URL: authority + "/api/v1/timestamp"}, newRekor(t, signatures.address)},
			Token: func(_ context.Context, audience string) (secret.Value, error) {
				claims := runnertest.JobClaims(repo)
				claims["aud"] = audience
				return secret.New(issuer.Mint(claims)), nil
			},
		},
		issuer: issuer.URL, repo: repo, subject: "https://github.com/acme/shop/.github/workflows/ci.yml@refs/heads/main",
		trusted: trustOf(t, fulcio, authority, certificates, signatures),
	}
}

// TestPeersKeyless: a real Fulcio certifies a job of our issuer, a real authority dates the signature, a real Rekor takes it in, and cosign,
// gh, sigstore-go and we ourselves verify all of it. None of them is told to overlook anything.
func TestPeersKeyless(t *testing.T) {
	p := startPeers(t)
	// The authorities know the present alone, and a manifest is not older than its run.
	statement, files := recorded(t, testRun)
	file, other := signed(t, p.signer, statement), signed(t, p.signer, statement)
	root, err := ParseTrustedRoot(p.trusted)
	if err != nil {
		t.Fatal(err)
	}
	accept := Acceptance{Identity: p.subject, Issuer: p.issuer, Repository: fmt.Sprint(p.repo.ID), Owner: fmt.Sprint(p.repo.OwnerID), Trusted: root, RequireLog: true, Files: files}
	r := Verify(file, accept)
	if !r.OK() || r.State(AxisTime) != Passed || r.State(AxisLog) != Passed {
		t.Errorf("ours: %+v", r.Verdicts)
	}
	job := Job{RepositoryID: fmt.Sprint(p.repo.ID), OwnerID: fmt.Sprint(p.repo.OwnerID), WorkflowSHA: strings.Repeat("0123456789", 4), RunURL: "https://github.com/acme/shop/actions/runs/4242/attempts/1"}
	if r.Job == nil || *r.Job != job {
		t.Errorf("Fulcio says of the job %+v, want %+v", r.Job, job)
	}
	for what, other := range map[string]Acceptance{
		"repository": {Repository: "1", Issuer: p.issuer, Trusted: root}, "owner": {Owner: "1", Issuer: p.issuer, Trusted: root},
	} {
		if r := Verify(file, other); r.State(AxisIdentity) != Failed {
			t.Errorf("ours, of another %s: %+v", what, r.Verdicts)
		}
	}
	patch, swapped := files["changes.patch"].Data, []byte("another patch")
	p.verify(t, "as it is", file, p.subject, patch, true)
	p.verify(t, "another subject", file, p.subject+"x", patch, false)
	p.verify(t, "another patch", file, p.subject, swapped, false)
	for what, edit := range entryEdits(t, other) {
		tampered := editBundle(t, file, edit.do)
		if r := Verify(tampered, accept); r.OK() {
			t.Errorf("ours, %s: taken", what)
		}
		if !edit.unread {
			p.verify(t, what, tampered, p.subject, patch, false)
		}
	}
}

// entryEdit changes one thing of the only entry of a bundle. Sigstore-go makes the entry of the second version anew from the rest of the
// bundle, and takes its tree from the checkpoint: what else says the same goes unread there.
type entryEdit struct {
	do     func(map[string]any)
	unread bool
}

// entryEdits has other, a bundle of the same signer, the same statement and the same log.
func entryEdits(t *testing.T, other []byte) map[string]entryEdit {
	t.Helper()
	type object = map[string]any
	entry := func(m object) object { return m["tlogEntries"].([]any)[0].(object) }
	proof := func(m object) object { return entry(m)["inclusionProof"].(object) }
	flip := func(in object, key string) {
		raw, err := base64.StdEncoding.DecodeString(in[key].(string))
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		in[key] = base64.StdEncoding.EncodeToString(raw)
	}
	var theirs struct {
		Material object `json:"verificationMaterial"`
	}
	if err := json.Unmarshal(other, &theirs); err != nil {
		t.Fatal(err)
	}
	checkpoint := func(m object) object { return proof(m)["checkpoint"].(object) }
	return map[string]entryEdit{
		"no entry":      {func(m object) { delete(m, "tlogEntries") }, false},
		"another entry": {func(m object) { m["tlogEntries"] = theirs.Material["tlogEntries"] }, false},
		"another log":   {func(m object) { flip(entry(m)["logId"].(object), "keyId") }, false},
		"another index": {func(m object) { entry(m)["logIndex"] = "5" }, false},
		"another kind":  {func(m object) { entry(m)["kindVersion"] = object{"kind": "dsse", "version": "0.0.2"} }, true},
		"another body":  {func(m object) { flip(entry(m), "canonicalizedBody") }, true},
		"another root":  {func(m object) { flip(proof(m), "rootHash") }, true},
		"another place": {func(m object) { proof(m)["logIndex"] = "5" }, true},
		"another size":  {func(m object) { proof(m)["treeSize"] = "77" }, true},
		"another path":  {func(m object) { proof(m)["hashes"] = []any{base64.StdEncoding.EncodeToString(make([]byte, 32))} }, false},
		"another tree":  {func(m object) { proof(m)["checkpoint"] = checkpoint(theirs.Material) }, false},
		"unsigned tree": {func(m object) {
			text := checkpoint(m)["envelope"].(string)
			proof(m)["checkpoint"] = object{"envelope": text[:strings.Index(text, "\n\n")+2]}
		}, false},
		"no time": {func(m object) { delete(m, "timestampVerificationData") }, false},
	}
}

// verify asks the programs of others, each by itself.
func (p *peersOfJob) verify(t *testing.T, what string, file []byte, subject string, patch []byte, want bool) {
	t.Helper()
	for _, program := range []string{"reference", "cosign", "gh"} {
		if out, err := (question{file, p.trusted, subject, p.issuer, patch}).of(t, program); (err == nil) != want {
			t.Errorf("%s, %s, want %t: %v\n%s", program, what, want, err, out)
		}
	}
}

func cosign(t *testing.T, dir string, want bool, args ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), peer(t, "cosign"), append([]string{"verify-blob-attestation"}, args...)...)
	c.Dir, c.Env = dir, []string{"HOME=" + dir}
	if out, err := c.CombinedOutput(); (err == nil) != want {
		t.Errorf("cosign %s, want %t: %v\n%s", strings.Join(args, " "), want, err, out)
	}
}

func write(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}
