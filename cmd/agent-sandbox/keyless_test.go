package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/runs"
)

// job is a CI job on a machine without an engine: its runs fail, and their manifests are signed all the same.
type job struct {
	t        *testing.T
	sigstore *runnertest.Sigstore
	github   *runnertest.GitHub
}

const jobToken = "ghs_job"

func newJob(t *testing.T, policy string) *job {
	t.Helper()
	j := &job{t: t, sigstore: runnertest.NewSigstore(t, time.Now), github: runnertest.NewGitHub(t, runnertest.GitHubConfig{})}
	repo := j.github.AddRepository("acme/shop")
	j.github.AddToken(runnertest.Token{Text: jobToken, RepositoryIDs: []int64{repo.ID}, Permissions: map[string]string{"attestations": "write"}})
	j.sigstore.ID.RepositoryID, j.sigstore.ID.OwnerID = strconv.FormatInt(repo.ID, 10), strconv.FormatInt(repo.OwnerID, 10)
	j.sigstore.ID.RunURL = "https://github.com/acme/shop/actions/runs/4242/attempts/1"
	requestURL, requestToken := runnertest.NewOIDC(t).ActionsServer(runnertest.JobClaims(repo))
	dir := t.TempDir()
	for name, value := range map[string]string{
		"HOME": dir, "XDG_STATE_HOME": filepath.Join(dir, "state"), "XDG_CACHE_HOME": filepath.Join(dir, "cache"), "DOCKER_HOST": "unix:///nowhere/docker.sock",
		"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "acme/shop", "GITHUB_REPOSITORY_ID": j.sigstore.ID.RepositoryID, "GITHUB_RUN_ID": "4242",
		"GITHUB_SERVER_URL": "https://github.com", "GITHUB_API_URL": j.github.API(), "ACTIONS_ID_TOKEN_REQUEST_URL": requestURL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": requestToken,
		fulcioVariable: j.sigstore.URL, timestampVariable: j.sigstore.TimestampURL(), attestationsVariable: jobToken, signingKeyVariable: "", rekorVariable: "",
	} {
		t.Setenv(name, value)
	}
	t.Chdir(dir)
	for name, content := range map[string]string{policyFile: "version: 1\n" + policy, "image.txt": ""} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// run is agent-sandbox with these arguments: its exit status, and what it says to people.
func (j *job) run(args ...string) (code int, stderr string) {
	j.t.Helper()
	out, err := os.Create(filepath.Join(j.t.TempDir(), "stderr"))
	if err != nil {
		j.t.Fatal(err)
	}
	defer out.Close()
	code = exitCode(out, run(j.t.Context(), args, nil, out, out))
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		j.t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err != nil {
		j.t.Fatal(err)
	}
	return code, string(text)
}

// last is the record of the newest run, and its manifest's file.
func (j *job) last() (event.Summary, []byte) {
	j.t.Helper()
	store, err := runs.Open(filepath.Join(os.Getenv("XDG_STATE_HOME"), "agent-sandbox", "runs"))
	if err != nil {
		j.t.Fatal(err)
	}
	defer store.Close()
	r, err := store.Resolve("last")
	if err != nil {
		j.t.Fatal(err)
	}
	s, sumErr := r.Summary()
	file, err := os.ReadFile(r.Path(runs.ManifestFile))
	if err := errors.Join(sumErr, err); err != nil {
		j.t.Fatal(err)
	}
	if err := checkManifests(os.Getenv("XDG_STATE_HOME")); err != nil {
		j.t.Error(err)
	}
	return s, file
}

// TestKeyless: a job's run is signed by its identity, and the manifest is where `gh attestation verify` looks.
func TestKeyless(t *testing.T) {
	j := newJob(t, "evidence: {sign: keyless, attest: true}\n")
	code, stderr := j.run("run", "--image", "agent:1", "--", "true")
	if code != exitFailure || !strings.Contains(stderr, "the manifest is stored at https://github.com/acme/shop/attestations/") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	s, file := j.last()
	if s.Manifest.Signed != string(manifest.Keyless) || j.github.Seen("POST", "/repos/acme/shop/attestations") != 1 {
		t.Errorf("recorded as %+v", s.Manifest)
	}
	if err := os.WriteFile("trusted.json", j.sigstore.TrustedRoot(), 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(args ...string) int {
		code, stderr = j.run(append([]string{"manifest", "verify", "last", "--trusted-root", "trusted.json"}, args...)...)
		return code
	}
	id := j.sigstore.ID
	if code := verify("--repository-id", id.RepositoryID, "--owner-id", id.OwnerID); code != 0 || !strings.Contains(stderr, id.RunURL) {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	_, checked := j.run("policy", "check")
	_, digest, _ := strings.Cut(strings.TrimSpace(checked), ": ok, ")
	if code := verify("--owner-id", id.OwnerID, "--policy-digest", digest); code != 0 || !strings.Contains(stderr, digest) {
		t.Errorf("by the digest that policy check prints, %q: exit status %d: %s", checked, code, stderr)
	}
	if code := verify("--owner-id", id.OwnerID+"1"); code != exitError {
		t.Errorf("of another owner: exit status %d: %s", code, stderr)
	}
	log := runnertest.NewRekor(t, time.Now, false)
	for name, content := range map[string][]byte{"trusted.json": j.sigstore.TrustedRoot(log), "logged.json": log.Log(file, "dsse 0.0.1", nil)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code := verify("--owner-id", id.OwnerID, "--require-tlog"); code != exitError || !strings.Contains(stderr, "no word of a log") {
		t.Errorf("a log is required: exit status %d: %s", code, stderr)
	}
	if code, stderr := j.run("manifest", "verify", "logged.json", "--trusted-root", "trusted.json", "--owner-id", id.OwnerID, "--require-tlog"); code != 0 {
		t.Errorf("in a log: exit status %d: %s", code, stderr)
	}
	if strings.Contains(string(file), jobToken) {
		t.Error("the job's token is in the manifest")
	}
}

// TestSigningServiceDown: what was to be signed and is not says why, in the record and by the exit status. With `auto` and a key, the key signs.
func TestSigningServiceDown(t *testing.T) {
	gone := func(j *job) { j.sigstore.Close() }
	noTime := func(j *job) { j.t.Setenv(timestampVariable, j.sigstore.URL+"/nothing") }
	noLog := func(j *job) { j.t.Setenv(rekorVariable, j.sigstore.URL+"/nothing/api/v2/log/entries") }
	logged := func(j *job) { j.t.Setenv(rekorVariable, runnertest.NewRekor(j.t, time.Now, false).Serve()) }
	untimed := func(j *job) { j.t.Setenv(timestampVariable, "") }
	key := func(j *job) {
		j.t.Helper()
		if code, stderr := j.run("manifest", "keygen", "--plain", "key.pem"); code != 0 {
			j.t.Fatal(stderr)
		}
		j.t.Setenv(signingKeyVariable, "key.pem")
	}
	for name, tt := range map[string]struct {
		sign   string
		before []func(*job)
		want   manifest.Mode
		detail string
		fails  bool
	}{
		"everything is there":              {"auto", nil, manifest.Keyless, "", false},
		"no Fulcio":                        {"keyless", []func(*job){gone}, manifest.None, "certificate: ", true},
		"no timestamp authority":           {"keyless", []func(*job){noTime}, manifest.None, "timestamp: ", true},
		"no log":                           {"keyless", []func(*job){noLog}, manifest.Keyless, "log of signatures: ", true},
		"no log, auto and a key":           {"auto", []func(*job){key, noLog}, manifest.Keyless, "log of signatures: ", true},
		"the log says when":                {"keyless", []func(*job){logged, untimed}, manifest.Keyless, "", false},
		"no Fulcio, auto":                  {"auto", []func(*job){gone}, manifest.None, "certificate: ", true},
		"no Fulcio, auto and a key":        {"auto", []func(*job){key, gone}, manifest.Key, "the first choice failed: certificate: ", false},
		"no Fulcio, keyless, and a key":    {"keyless", []func(*job){key, gone}, manifest.None, "certificate: ", true},
		"everything is there, and a key":   {"auto", []func(*job){key}, manifest.Keyless, "", false},
		"the policy wants the key instead": {"key", []func(*job){key}, manifest.Key, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJob(t, "evidence: {sign: "+tt.sign+"}\n")
			for _, f := range tt.before {
				f(j)
			}
			code, stderr := j.run("run", "--image", "agent:1", "--", "true")
			s, _ := j.last()
			if got := s.Manifest; got.Signed != string(tt.want) || !strings.Contains(got.Detail, tt.detail) || tt.detail == "" && got.Detail != "" {
				t.Errorf("recorded as %+v", got)
			}
			if code != exitFailure || strings.Contains(stderr, "sign manifest: ") != tt.fails {
				t.Errorf("exit status %d: %s", code, stderr)
			}
		})
	}
}

// TestRefusalSigned: a run that is refused has a manifest as any other has, signed by the job, whether its policy is none, is too much for
// the ceiling, or asks for what is not to be had.
func TestRefusalSigned(t *testing.T) {
	for name, tt := range map[string]struct {
		policy, ceiling string
		code            int
		reason          string
		signed          manifest.Mode
		attested        int
	}{
		"no policy":               {"nonsense: true\n", "", exitUsage, "nonsense", manifest.Keyless, 0},
		"beyond the ceiling":      {"evidence: {sign: keyless, attest: true}\nenv: [PRIVATE]\n", "evidence: {}\n", exitUsage, "the ceiling does not pass on PRIVATE", manifest.Keyless, 1},
		"not signed, by policy":   {"evidence: {sign: none}\nenv: [PRIVATE]\n", "evidence: {sign: none}\n", exitUsage, "the ceiling does not pass on PRIVATE", manifest.None, 0},
		"no key to sign with":     {"evidence: {sign: key}\n", "", exitFailure, "no key is named", manifest.None, 0},
		"nothing to attest with":  {"evidence: {sign: none, attest: true}\n", "", exitFailure, "would not be signed keyless", manifest.None, 0},
		"an agent without a key":  {"agent: claude\n", "", exitFailure, "ANTHROPIC_API_KEY", manifest.Keyless, 0},
		"a positive control: run": {"evidence: {sign: auto}\n", "", exitFailure, "", manifest.Keyless, 0},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJob(t, tt.policy)
			t.Setenv("ANTHROPIC_API_KEY", "")
			t.Setenv("CLAUDE_CODE_OAUTH_TOKEN", "")
			args := []string{"run", "--image", "agent:1"}
			if tt.ceiling != "" {
				if err := os.WriteFile("ceiling.yaml", []byte("version: 1\n"+tt.ceiling), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--ceiling", "ceiling.yaml")
			}
			if strings.HasPrefix(tt.policy, "agent:") {
				args = append(args, "do it")
			} else {
				args = append(args, "--", "true")
			}
			code, stderr := j.run(args...)
			s, _ := j.last()
			want := event.Refused
			if strings.HasPrefix(name, "a positive control") {
				want = event.Errored // no engine answers
			}
			if code != tt.code || s.Outcome != want || s.ExitCode != tt.code || !strings.Contains(s.Reason, tt.reason) {
				t.Errorf("exit status %d, recorded as %s, %d, %q: %s", code, s.Outcome, s.ExitCode, s.Reason, stderr)
			}
			if s.Manifest.Signed != string(tt.signed) || j.github.Seen("POST", "/repos/acme/shop/attestations") != tt.attested {
				t.Errorf("signed as %+v, attested %d times", s.Manifest, j.github.Seen("POST", "/repos/acme/shop/attestations"))
			}
		})
	}
}

// TestAttestRefused: what can't be stored is refused before the run, and the record of that has a manifest, which is not stored either.
func TestAttestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		policy, token, reason string
		signed                manifest.Mode
	}{
		"without a token": {"evidence: {sign: keyless, attest: true}\n", "", attestationsVariable, manifest.Keyless},
		"unsigned":        {"evidence: {sign: none, attest: true}\n", jobToken, "would not be signed keyless", manifest.None},
	} {
		j := newJob(t, tt.policy)
		t.Setenv(attestationsVariable, tt.token)
		code, stderr := j.run("run", "--image", "agent:1", "--", "true")
		if code != exitFailure || !strings.Contains(stderr, tt.reason) {
			t.Errorf("%s: exit status %d: %s", name, code, stderr)
		}
		s, file := j.last()
		if s.Outcome != event.Refused || s.ExitCode != exitFailure || !strings.Contains(s.Reason, tt.reason) || s.Manifest.Signed != string(tt.signed) {
			t.Errorf("%s: recorded as %s, %d, %q, %+v", name, s.Outcome, s.ExitCode, s.Reason, s.Manifest)
		}
		if o, err := manifest.Open(file); err != nil || o.Mode() != tt.signed || !strings.Contains(string(o.Payload), `"result":"refused"`) {
			t.Errorf("%s: the manifest is signed by %q, %v: %s", name, o.Mode(), err, o.Payload)
		}
		if n := j.github.Seen("POST", "/repos/acme/shop/attestations"); n != 0 {
			t.Errorf("%s: %d were stored", name, n)
		}
	}
}

// TestRekorVariable: an address that no version of a log has is a mistake of the command line's, and so are services without a clock.
func TestRekorVariable(t *testing.T) {
	for name, tt := range map[string]struct{ rekor, timestamp, want string }{
		"no path":            {"https://rekor.example", "-", "by which the version of a log is known"},
		"nobody has a clock": {"https://rekor.example/api/v2/log/entries", "", "neither a timestamp authority nor a log"},
		"no log, no clock":   {"", "", "hint: set " + timestampVariable},
	} {
		j := newJob(t, "evidence: {sign: keyless}\n")
		t.Setenv(rekorVariable, tt.rekor)
		if tt.timestamp == "" {
			t.Setenv(timestampVariable, "")
		}
		if code, stderr := j.run("run", "--image", "agent:1", "--", "true"); code != exitUsage || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit status %d: %s", name, code, stderr)
		}
	}
}
