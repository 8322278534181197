package actions

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

// uploader is the client of a service, and all that it said.
type uploader struct {
	*Artifacts
	mu   sync.Mutex
	said []string
}

func newUploader(t *testing.T, s *runnertest.Artifacts, act bool) *uploader {
	t.Helper()
	job := &Job{Act: act, ServerURL: "https://github.com", ResultsURL: s.URL, RuntimeToken: secret.New(s.Token)}
	a, err := job.Artifacts()
	if err != nil {
		t.Fatal(err)
	}
	u := &uploader{Artifacts: a}
	a.wait, a.block = time.Millisecond, 1<<16
	a.Retried = func(what string) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.said = append(u.said, what)
	}
	return u
}

// testZip packs two files, one of them too random to be compressed: with size bytes it takes several blocks.
func testZip(t *testing.T, size int) *Zip {
	t.Helper()
	dir := t.TempDir()
	big := make([]byte, size)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(big)
	for name, b := range map[string][]byte{"b.log": big, "a.json": []byte("{}\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	z, err := NewZip(dir, []string{"a.json", "absent", "b.log"}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := z.Close(); err != nil {
			t.Error(err)
		}
	})
	return z
}

// wantZip checks what the service has.
func wantZip(t *testing.T, s *runnertest.Artifacts, got Artifact, size int) {
	t.Helper()
	b, ok := s.Zip(got.Name)
	if !ok || int64(len(b)) != got.Size || got.ID <= 0 {
		t.Fatalf("the service has %d bytes of %+v, finished: %v", len(b), got, ok)
	}
	r, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, f := range r.File {
		names = append(names, f.Name)
	}
	if diff := cmp.Diff([]string{"a.json", "b.log"}, names); diff != "" {
		t.Error(diff)
	}
	f, err := r.Open("b.log")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, f); err != nil || n != int64(size) {
		t.Errorf("b.log has %d bytes, want %d: %v", n, size, err)
	}
}

// An artifact arrives whole through whatever a server and a network do wrong for a while.
func TestUploadArtifact(t *testing.T) {
	const blocks = 2<<16 + 4711
	for _, tt := range []struct {
		name   string
		size   int
		faults []runnertest.Fault
		again  bool // it has to be begun anew, under another name on GitHub
	}{
		{name: "small", size: 10},
		{name: "several blocks", size: blocks},
		{name: "server errors", size: 10, faults: []runnertest.Fault{{Path: "/CreateArtifact", Status: 500, Times: 2}, {Path: "/FinalizeArtifact", Status: 503, Times: 4}, {Path: "comp=blocklist", Status: 429, Times: 1}}},
		{name: "block refused", size: blocks, faults: []runnertest.Fault{{Path: "comp=block&", Status: 502, Skip: 1, Times: 1}}},
		{name: "block's answer lost", size: blocks, faults: []runnertest.Fault{{Path: "comp=block&", Drop: true, Skip: 1, Times: 1}}},
		{name: "create's answer lost", size: 10, faults: []runnertest.Fault{{Path: "/CreateArtifact", Drop: true, Times: 1}}, again: true},
	} {
		for _, act := range []bool{false, true} {
			t.Run(tt.name+map[bool]string{true: " act", false: " GitHub"}[act], func(t *testing.T) {
				s := runnertest.NewArtifacts(t, runnertest.ArtifactsConfig{Act: act})
				for _, f := range tt.faults {
					s.Inject(f)
				}
				u := newUploader(t, s, act)
				got, err := u.Upload(t.Context(), "agent-sandbox-x", testZip(t, tt.size), time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC))
				if err != nil {
					t.Fatal(err)
				}
				wantZip(t, s, got, tt.size)
				if want := "agent-sandbox-x" + map[bool]string{true: "-2"}[tt.again && !act]; got.Name != want {
					t.Errorf("the artifact is called %s, want %s", got.Name, want)
				}
				if got := s.Expires(got.Name); got != "2027-01-02T03:04:05Z" {
					t.Errorf("it expires %q", got)
				}
				if said := strings.Join(u.said, "\n"); len(tt.faults) > 0 && said == "" || strings.Contains(said, "sig") {
					t.Errorf("the log of retries is %q", said)
				}
				for _, r := range s.Requests() {
					if strings.HasPrefix(r.Path, "/blob/") && r.Credential != "" {
						t.Error("the blob store got the job's token")
					}
				}
			})
		}
	}
}

// Whatever a server may not be forgiven ends the upload, at once, and no error has an address in it.
func TestUploadArtifactFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault runnertest.Fault
		spoil func(z *Zip)
		want  string
		calls int // of CreateArtifact
	}{
		{"quota", runnertest.Fault{Path: "/CreateArtifact", Status: http.StatusForbidden}, nil, "used up", 1},
		{"down", runnertest.Fault{Path: "/CreateArtifact", Status: 500}, nil, "status 500", tries},
		{"refused", runnertest.Fault{Path: "comp=blocklist", Status: 404}, nil, "status 404", 1},
		{"another hash", runnertest.Fault{Path: "none"}, func(z *Zip) { z.SHA256 = strings.Repeat("0", 64) }, "hash", 1},
		{"never an answer", runnertest.Fault{Path: "comp=block&", Drop: true}, nil, "a block did not arrive", 1},
	} {
		s := runnertest.NewArtifacts(t, runnertest.ArtifactsConfig{})
		s.Inject(tt.fault)
		u := newUploader(t, s, false)
		z := testZip(t, 10)
		if tt.spoil != nil {
			tt.spoil(z)
		}
		_, err := u.Upload(t.Context(), "x", z, time.Time{})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "sig=") {
			t.Errorf("%s: %v, want %q in it", tt.name, err, tt.want)
		}
		if errors.Is(err, ErrQuota) != (tt.name == "quota") {
			t.Errorf("%s: is it the quota: %v", tt.name, err)
		}
		created := 0
		for _, r := range s.Requests() {
			if strings.HasSuffix(r.Path, "/CreateArtifact") {
				created++
			}
		}
		if created != tt.calls {
			t.Errorf("%s: created %d times, want %d", tt.name, created, tt.calls)
		}
	}
}

// The fake refuses what act does, so that nothing slips into the requests that only GitHub would ignore.
func TestArtifactServiceRefusesUnknownFields(t *testing.T) {
	s := runnertest.NewArtifacts(t, runnertest.ArtifactsConfig{Act: true})
	u := newUploader(t, s, true)
	if _, err := u.call(t.Context(), "CreateArtifact", map[string]any{"name": "x", "version": 4, "mime_type": "application/zip"}); err == nil {
		t.Error("an unknown field was taken")
	}
}

// What an upload's address is signed with is masked before it is used, as it is written and as it is read.
func TestUploadArtifactMasks(t *testing.T) {
	s := runnertest.NewArtifacts(t, runnertest.ArtifactsConfig{})
	u := newUploader(t, s, false)
	var masked []string
	u.Mask = func(v secret.Value) { masked = append(masked, v.Reveal()) }
	if _, err := u.Upload(t.Context(), "x", testZip(t, 10), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if len(masked) != 2 || masked[0] != strings.ReplaceAll(masked[1], "=", "%3D") || len(masked[1]) < 32 {
		t.Errorf("masked: %q", masked)
	}
	used := slices.ContainsFunc(s.Requests(), func(r runnertest.Request) bool { return strings.Contains(r.Path, masked[0]) })
	if !used {
		t.Error("that was not the signature at all")
	}
}

func TestZipIsReproducible(t *testing.T) {
	if a, b := testZip(t, 4711), testZip(t, 4711); a.SHA256 != b.SHA256 || a.Size != b.Size {
		t.Errorf("the same files give %+v and %+v", a, b)
	}
}

func TestArtifactsOfJob(t *testing.T) {
	token := runnertest.NewArtifacts(t, runnertest.ArtifactsConfig{}).Token
	parts := strings.Split(token, ".")
	job := func(server, url, token string) *Job {
		return &Job{ServerURL: server, ResultsURL: url, RuntimeToken: secret.New(token)}
	}
	for _, tt := range []struct {
		job  *Job
		none bool
		want string
	}{
		{job("https://github.com", "https://results.example/path", token), false, ""},
		{job("https://acme.ghe.com", "https://results.example/", token), false, ""},
		{job("https://github.example.org", "https://results.example/", token), true, "Enterprise Server"},
		{job("https://github.com.example.org", "https://results.example/", token), true, "Enterprise Server"},
		{job("https://github.com", "", token), true, "no ACTIONS_RESULTS_URL"},
		{job("https://github.com", "https://results.example/", ""), true, "ACTIONS_RUNTIME_TOKEN"},
		{job("https://github.com", "ftp://results.example/", token), false, "no URL"},
		{job("https://github.com", "https://results.example/", "ghs_x"), false, "no JWT"},
		{job("https://github.com", "https://results.example/", parts[0]+".e30."+parts[2]), false, "does not name the job"},
	} {
		a, err := tt.job.Artifacts()
		switch {
		case (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrNoArtifacts) != tt.none:
			t.Errorf("%s at %s: %v, want %q", tt.job.ResultsURL, tt.job.ServerURL, err, tt.want)
		case err == nil && a.URL != "https://results.example":
			t.Errorf("the origin is %s", a.URL)
		}
	}
}

func TestCheckArtifactName(t *testing.T) {
	for name, ok := range map[string]bool{"agent-sandbox-test-1": true, "": false, "a/b": false, "a\nb": false, `a"b`: false, "a:b": false, strings.Repeat("x", 300): false} {
		if err := checkArtifactName(name); (err == nil) != ok {
			t.Errorf("checkArtifactName(%q) = %v", name, err)
		}
	}
}
