//go:build docker

package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/runs"
)

// signingKey makes a key: its private half as PEM, and a file with the other.
func signingKey(t *testing.T) (private, publicFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicFile = filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(publicFile, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600); err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), publicFile
}

// fetchSteps asks the artifact service for what it has, as a later step or another job would, and leaves the zip of each artifact in the workspace.
const fetchSteps = `      - run: |
          set -euo pipefail
          ids=$(cut -d. -f2 <<<"$ACTIONS_RUNTIME_TOKEN" | tr _- /+ | base64 -d 2>/dev/null | grep -o 'Actions.Results:[^"]*')
          ask() {
            curl -sSf -H "Authorization: Bearer $ACTIONS_RUNTIME_TOKEN" -H 'Content-Type: application/json' -d "$2" \
              "${ACTIONS_RESULTS_URL%/}/twirp/github.actions.results.api.v1.ArtifactService/$1"
          }
          request=$(jq -nc --arg ids "$ids" '$ids / ":" | {workflow_run_backend_id: .[1], workflow_job_run_backend_id: .[2]}')
          for name in $(ask ListArtifacts "$request" | jq -r '.artifacts[].name'); do
            url=$(ask GetSignedArtifactURL "$(jq -c --arg name "$name" '.name = $name' <<<"$request")" | jq -r .signedUrl)
            curl -sSf -o "fetched-$name.zip" "$url"
          done
`

// unzip puts the files of an artifact into a directory.
func unzip(t *testing.T, file string) (dir string, names []string) {
	t.Helper()
	r, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dir = t.TempDir()
	for _, f := range r.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(f.Name)), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, f.Name)
	}
	return dir, names
}

// The record of a run is an artifact of the workflow run, by which anybody who trusts the key can tell what happened; without a key it says
// that nobody signed.
func TestActionUploadsEvidence(t *testing.T) {
	private, public := signingKey(t)
	step := func(id, env string) string {
		return `      - uses: ./.action
        id: ` + id + `
        env: {` + env + `}
        with: {image: "` + testImage() + `", command: "echo new >file.txt; echo secret=${AGENT_SANDBOX_SIGNING_KEY-unset}", retention-days: 3}
`
	}
	w := newWorkflow(t, step("signed", `AGENT_SANDBOX_SIGNING_KEY: "${{ secrets.SIGNING_KEY }}"`)+step("unsigned", "")+`      - run: |
          echo "signed=${{ steps.signed.outputs.artifact-name }}= id=${{ steps.signed.outputs.artifact-id }}= url=${{ steps.signed.outputs.artifact-url }}= digest=${{ steps.signed.outputs.manifest-digest }}="
          echo "unsigned=${{ steps.unsigned.outputs.artifact-name }}="
`+fetchSteps, nil)
	t.Setenv("SIGNING_KEY", private)
	store := t.TempDir()
	log, ok := w.act(
		"push", "--bind", "-s", "SIGNING_KEY", "--artifact-server-path", store, "--artifact-server-addr", "127.0.0.1",
		"--artifact-server-port", freePorts(t, "artifacts")["artifacts"], "-P", "ubuntu-latest="+testImage(), "--container-options", "--user 0")
	if !ok {
		t.Fatalf("the job failed\n%s", log)
	}
	if m := regexp.MustCompile(`signed=(agent-sandbox-test-1-\S+)= id=([1-9][0-9]*)= url== digest=sha256:[0-9a-f]{64}=`).FindStringSubmatch(log); m == nil {
		t.Errorf("a later step does not see the artifact\n%s", log)
	}
	u := newUser(t)
	for _, id := range []string{"signed", "unsigned"} {
		m := regexp.MustCompile(`\b` + id + `=(agent-sandbox-\S+?)=`).FindStringSubmatch(log)
		if m == nil {
			t.Fatalf("no artifact of the step %s\n%s", id, log)
		}
		stored, err := os.ReadFile(filepath.Join(store, "1", m[1], m[1]+".zip"))
		if err != nil {
			t.Fatal(err)
		}
		fetched := filepath.Join(w.dir, "fetched-"+m[1]+".zip")
		if b, err := os.ReadFile(fetched); err != nil || !bytes.Equal(b, stored) {
			t.Errorf("the service gives another zip than it has: %v", err)
		}
		dir, names := unzip(t, fetched)
		for _, want := range []string{runs.ManifestFile, runs.PatchFile, runs.EventsFile, runs.StdoutFile, runs.PlanFile} {
			if !strings.Contains(strings.Join(names, " ")+" ", want+" ") {
				t.Errorf("%s lacks %s: %q", m[1], want, names)
			}
		}
		r := u.finish(u.command("manifest", "verify", filepath.Join(dir, runs.ManifestFile), "--key", public))
		if (r.code == 0) != (id == "signed") {
			t.Errorf("the manifest of the step %s: exit status %d\n%s%s", id, r.code, r.stdout, r.stderr)
		}
		if id == "unsigned" && !strings.Contains(r.stdout+r.stderr, "nobody") {
			t.Errorf("of the manifest that nobody signed it says\n%s%s", r.stdout, r.stderr)
		}
		// One byte of the patch more, and it is no longer what was signed.
		patch := filepath.Join(dir, runs.PatchFile)
		b, err := os.ReadFile(patch)
		if err == nil {
			err = os.WriteFile(patch, append(b, '\n'), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := u.finish(u.command("manifest", "verify", filepath.Join(dir, runs.ManifestFile), "--key", public)); r.code == 0 {
			t.Errorf("with another patch it verifies\n%s", r.stdout)
		}
	}
	if strings.Contains(log, "sig=") {
		t.Errorf("an address with its signature is in the log\n%s", log)
	}
}

// Without the service nothing fails, unless that was asked for, and the log says where the files are.
func TestActionWithoutArtifactService(t *testing.T) {
	w := newWorkflow(t, `      - uses: ./.action
        with: {image: "`+testImage()+`", command: "true"}
      - uses: ./.action
        with: {image: "`+testImage()+`", command: "true", upload: always}
`, nil)
	log, ok := w.act("push")
	if ok {
		t.Errorf("upload: always did not fail\n%s", log)
	}
	wantLog(t, log, "the run's files are in .agent-sandbox-runs/", "--artifact-server-path", "upload: always: no artifact service")
}

// A step that is killed leaves nothing behind but the record: what comes after the job revokes its token, removes its container, and uploads
// a manifest that says what happened.
func TestActionKilled(t *testing.T) {
	gh := runnertest.NewGitHub(t, runnertest.GitHubConfig{})
	app := gh.AddApp(map[string]string{"contents": "write", "metadata": "read"})
	gh.Install(app, "acme", gh.AddRepository("acme/shop"))
	w := newWorkflow(t, `      - uses: ./.action
        env: {APP_KEY: "${{ secrets.APP_KEY }}"}
        with: {image: "`+testImage()+`", command: "echo is-ready; sleep 1000"}
`, map[string]string{policyFile: fmt.Sprintf("version: 1\ncredentials:\n  github: {from: \"github-app:%d\", key: \"env:APP_KEY\", repositories: [acme/shop], permissions: {contents: write}}\n", app.ID)})
	t.Setenv("APP_KEY", string(app.PEM()))
	image, err := actionImage()
	if err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	cmd := w.actCommand("push", "-s", "APP_KEY", "--env", "GITHUB_API_URL="+gh.API(), "--artifact-server-path", store, "--artifact-server-addr", "127.0.0.1",
		"--artifact-server-port", freePorts(t, "artifacts")["artifacts"])
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	killed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&log, lines.Text())
		if !killed && strings.HasSuffix(lines.Text(), "is-ready") {
			killed = true
			if live := gh.Live(); len(live) != 1 {
				t.Errorf("%d tokens live during the run", len(live))
			}
			id := defaultEngine(t, "ps", "--quiet", "--filter", "ancestor="+image, "--filter", "name="+w.name)
			defaultEngine(t, "kill", id)
		}
	}
	if err := cmd.Wait(); err == nil || !killed {
		t.Errorf("act: %v, killed: %v\n%s", err, killed, log.String())
	}
	m := killedRun.FindStringSubmatch(log.String())
	if m == nil || len(gh.Live()) != 0 {
		t.Fatalf("%d tokens live\n%s", len(gh.Live()), log.String())
	}
	wantLog(t, log.String(), "revoked 1 token that the step left")
	u := newUser(t)
	u.wantNothingLeft(m[1])
	zips, err := filepath.Glob(filepath.Join(store, "1", "agent-sandbox-test-1-"+m[1], "*.zip"))
	if err != nil || len(zips) != 1 {
		t.Fatalf("the artifacts are %q, %v\n%s", zips, err, log.String())
	}
	dir, _ := unzip(t, zips[0])
	u.wantInterrupted(dir, m[1])
	for _, tok := range gh.Tokens() {
		if strings.Contains(log.String(), tok.Text) {
			t.Error("a token is in the log")
		}
	}
}
