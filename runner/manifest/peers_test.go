//go:build peers

package manifest

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestPeersKeyless: a real Fulcio certifies a job of our issuer, a real authority dates the signature, and cosign, sigstore-go and
// we ourselves verify it.
func TestPeersKeyless(t *testing.T) {
	issuer := runnertest.NewOIDC(t)
	repo := runnertest.NewGitHub(t, runnertest.GitHubConfig{}).AddRepository("acme/shop")
	fulcio, authority := startFulcio(t, issuer.URL), startAuthority(t)
	s := &KeylessSigner{
		Instance: Instance{Fulcio: fulcio, Time: &TimestampAuthority{URL: authority + "/api/v1/timestamp"}},
		Token: func(_ context.Context, audience string) (secret.Value, error) {
			claims := runnertest.JobClaims(repo)
			claims["aud"] = audience
			return secret.New(issuer.Mint(claims)), nil
		},
	}
	// The authorities know the present alone, and a manifest is not older than its run.
	statement, files := recorded(t, testRun)
	file := signed(t, s, statement)
	trusted := trustOf(t, fulcio, authority)
	subject := "https://github.com/acme/shop/.github/workflows/ci.yml@refs/heads/main"

	root, err := ParseTrustedRoot(trusted)
	if err != nil {
		t.Fatal(err)
	}
	accept := Acceptance{Identity: subject, Issuer: issuer.URL, Repository: fmt.Sprint(repo.ID), Owner: fmt.Sprint(repo.OwnerID), Trusted: root, Files: files}
	r := Verify(file, accept)
	if !r.OK() || r.State(AxisTime) != Passed {
		t.Errorf("ours: %+v", r.Verdicts)
	}
	job := Job{RepositoryID: fmt.Sprint(repo.ID), OwnerID: fmt.Sprint(repo.OwnerID), WorkflowSHA: strings.Repeat("0123456789", 4), RunURL: "https://github.com/acme/shop/actions/runs/4242/attempts/1"}
	if r.Job == nil || *r.Job != job {
		t.Errorf("Fulcio says of the job %+v, want %+v", r.Job, job)
	}
	for what, other := range map[string]Acceptance{
		"repository": {Repository: "1", Issuer: issuer.URL, Trusted: root}, "owner": {Owner: "1", Issuer: issuer.URL, Trusted: root},
	} {
		if r := Verify(file, other); r.State(AxisIdentity) != Failed {
			t.Errorf("ours, of another %s: %+v", what, r.Verdicts)
		}
	}
	dir := t.TempDir()
	write(t, dir, "manifest.json", file)
	write(t, dir, "trusted_root.json", trusted)
	write(t, dir, "changes.patch", files["changes.patch"].Data)
	write(t, dir, "swapped.patch", []byte("another patch"))
	check := func(subject, patch string, want bool) {
		t.Helper()
		cosign(t, dir, want, "--certificate-identity", subject, "--certificate-oidc-issuer", issuer.URL, "--trusted-root", "trusted_root.json",
			"--use-signed-timestamps", "--insecure-ignore-tlog", "--insecure-ignore-sct", "--bundle", "manifest.json", "--type", PredicateType, patch)
	}
	check(subject, "changes.patch", true)
	check(subject+"x", "changes.patch", false)
	check(subject, "swapped.patch", false)
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

func startFulcio(t *testing.T, issuer string) string {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	config, err := json.Marshal(map[string]any{"OIDCIssuers": map[string]any{
		issuer: map[string]string{"IssuerURL": issuer, "ClientID": Audience, "Type": "github-workflow"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "config.json", config)
	start(t, "fulcio", "serve", "--host", "127.0.0.1", "--port", port, "--grpc-host", "127.0.0.1", "--grpc-port", freePort(t),
		"--metrics-port", freePort(t), "--ca", "ephemeralca", "--ct-log-url", "", "--config-path", filepath.Join(dir, "config.json"),
		"--legacy-unix-domain-socket", filepath.Join(dir, "grpc.sock"))
	base := "http://127.0.0.1:" + port
	await(t, base+"/api/v2/trustBundle")
	return base
}

func startAuthority(t *testing.T) string {
	t.Helper()
	port := freePort(t)
	start(t, "timestamp-server", "serve", "--host", "127.0.0.1", "--port", port, "--timestamp-signer", "memory", "--disable-ntp-monitoring")
	base := "http://127.0.0.1:" + port
	await(t, base+"/api/v1/timestamp/certchain")
	return base
}

func start(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, peer(t, name), args...)
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, out.String())
		}
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// await gives the first good answer of a server that is starting.
func await(t *testing.T, url string) []byte {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 600 {
		if resp, err := http.Get(url); err == nil { //nolint:noctx // a server on loopback
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil && resp.StatusCode == http.StatusOK {
				return body
			}
		}
		<-tick.C
	}
	t.Fatalf("nobody answers at %s", url)
	return nil
}

// trustOf asks the servers for the certificates that a verifier has to trust.
func trustOf(t *testing.T, fulcio, authority string) []byte {
	t.Helper()
	var bundle struct {
		Chains []struct {
			Certificates []string `json:"certificates"`
		} `json:"chains"`
	}
	if err := json.Unmarshal(await(t, fulcio+"/api/v2/trustBundle"), &bundle); err != nil {
		t.Fatal(err)
	}
	entry := func(pems string) (out trustedAuthority) {
		out.ValidFor.Start, out.ValidFor.End = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(9, 0, 0)
		for block, rest := pem.Decode([]byte(pems)); block != nil; block, rest = pem.Decode(rest) {
			out.CertChain.Certificates = append(out.CertChain.Certificates, RawCertificate{block.Bytes})
		}
		return out
	}
	file, err := json.Marshal(map[string]any{
		"mediaType":              "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"certificateAuthorities": []trustedAuthority{entry(strings.Join(bundle.Chains[0].Certificates, "\n"))},
		"timestampAuthorities":   []trustedAuthority{entry(string(await(t, authority+"/api/v1/timestamp/certchain")))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return file
}
