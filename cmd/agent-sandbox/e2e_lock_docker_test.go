//go:build docker

package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/image"
)

// sandbox is agent-sandbox with these arguments and nothing added, with CI set or not.
func (u *user) sandbox(ci bool, args ...string) result {
	u.t.Helper()
	part := u.in(u.t)
	if ci {
		part.env = append(append([]string{}, u.env...), "CI=true")
	}
	cmd := part.command("version")
	cmd.Args = append(cmd.Args[:1], args...)
	return u.finish(cmd)
}

// wantRefused checks that a run was refused with these words, and recorded so.
func (u *user) wantRefused(r result, words ...string) {
	u.t.Helper()
	u.wantCode(r, exitFailure)
	for _, must := range append(words, "hint: ") {
		if !strings.Contains(r.stderr, must) {
			u.t.Errorf("stderr has no %q: %s", must, r.stderr)
		}
	}
	u.wantOutcome(event.Refused, exitFailure)
}

func (u *user) wantImage(locked, override bool) {
	u.t.Helper()
	s := u.wantOutcome(event.Success, 0)
	if s.Plan == nil || s.Plan.Image.Locked != locked || s.Plan.Image.Override != override {
		u.t.Errorf("recorded as %+v, want locked %v, override %v", s.Plan, locked, override)
	}
}

// TestLockReference: a tag is locked, moved behind our back, and the lock altered.
func TestLockReference(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	name, other := imageName(t), scratchImage(t)
	docker(t, nil, "tag", testImage(), name)
	u.policy("image: " + name + "\n")
	u.wantRefused(u.sandbox(true, "run", "--", "true"), "no entry for "+name, "image lock")
	u.wantRefused(u.sandbox(false, "run", "--locked", "--", "true"), "no entry for "+name)
	u.wantCode(u.sandbox(false, "run", "--", "true"), 0)
	u.wantImage(false, false)

	u.wantCode(u.sandbox(false, "image", "lock"), 0)
	u.wantCode(u.sandbox(true, "run", "--", "true"), 0)
	u.wantImage(true, false)
	r := u.sandbox(false, "image", "lock")
	u.wantCode(r, 0)
	if !strings.Contains(r.stdout, "up to date") {
		t.Errorf("locking twice says %q", r.stdout)
	}
	u.wantCode(u.sandbox(false, "image", "verify"), 0)

	docker(t, nil, "tag", other, name)
	u.wantRefused(u.sandbox(true, "run", "--", "true"), "is not the image that .agent-sandbox.lock names")
	u.wantCode(u.sandbox(false, "image", "verify"), 1)
	u.wantCode(u.sandbox(false, "run", "--", "true"), 0) // the locked one, which has such a program
	u.wantImage(true, false)
	u.wantCode(u.sandbox(true, "run", "--image", other, "--", "/agent", "id"), 0)
	u.wantImage(false, true)

	docker(t, nil, "tag", testImage(), name)
	lock := filepath.Join(u.project, image.LockFile)
	b, err := os.ReadFile(lock)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := image.ParseLock(lock, b)
	if err != nil {
		t.Fatal(err)
	}
	altered := string(b)
	for _, digest := range locked.Images[name].Digests() {
		digit := "0"
		if strings.HasSuffix(digest, digit) {
			digit = "1"
		}
		altered = strings.ReplaceAll(altered, digest, digest[:len(digest)-1]+digit)
	}
	u.write(image.LockFile, altered, 0o644)
	u.wantRefused(u.sandbox(true, "run", "--", "true"), "is not the image that .agent-sandbox.lock names")
	u.write(image.LockFile, "{}", 0o644)
	u.wantCode(u.sandbox(false, "run", "--", "true"), exitUsage)
	u.wantCode(u.sandbox(false, "image", "lock"), 0)
	u.wantCode(u.sandbox(true, "run", "--", "true"), 0)
}

// TestLockBuild: the image of a Dockerfile is built by run, locked, refused in CI once an input changed, and verified.
func TestLockBuild(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.env = append(u.env, "DOCKER_BUILDKIT=1") // the classic builder's cache is images without a name, which would stay
	u.write("Dockerfile", "FROM "+testImage()+"\nCOPY given /given\n", 0o644)
	u.write("given", "of "+t.TempDir(), 0o644) // an image of this test's own
	u.policy("image: {build: Dockerfile}\n")
	u.wantRefused(u.sandbox(true, "run", "--", "true"), "no entry for Dockerfile")
	u.wantCode(u.sandbox(false, "run", "--", "cmp", "given", "/given"), 0)
	u.wantImage(false, false)
	u.wantCode(u.sandbox(false, "image", "lock", "--offline"), 0)
	locks, err := image.ReadLock(filepath.Join(u.project, image.LockFile))
	if err != nil {
		t.Fatal(err)
	}
	e := locks.Images["build:Dockerfile"]
	t.Cleanup(func() { docker(t, nil, "rmi", "-f", image.Tag(e.Build.Inputs)) })
	u.wantCode(u.sandbox(true, "run", "--", "cmp", "given", "/given"), 0)
	u.wantImage(true, false)
	u.wantCode(u.sandbox(false, "image", "verify", "--offline"), 0)

	u.write("given", "altered", 0o644)
	u.wantRefused(u.sandbox(true, "run", "--", "true"), "changed after the lock", "image lock")
	r := u.sandbox(false, "image", "verify", "--json", "--offline")
	u.wantCode(r, 1)
	var v image.Verification
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Differences) != 1 || v.Differences[0].Path != "/given" || v.Differences[0].Why[0] != image.ReasonContent {
		t.Errorf("verify tells %+v, want the content of /given", v.Differences)
	}
	u.write("given", "of the lock", 0o644)
	u.write("Dockerfile", "FROM "+testImage()+"\nCOPY given /given\nENV NEW=1\n", 0o644)
	u.wantRefused(u.sandbox(true, "run", "--", "true"), "the Dockerfile was edited after the lock")
}

// TestBuildFails shows what led to it, and builds nothing.
func TestBuildFails(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("Dockerfile", "FROM "+testImage()+"\nRUN echo the reason; exit 7\n", 0o644)
	r := u.sandbox(false, "image", "build", "--file", "Dockerfile", "--offline")
	u.wantCode(r, exitError)
	for _, must := range []string{"the reason", "the build failed"} {
		if !strings.Contains(r.stderr, must) {
			t.Errorf("stderr has no %q: %s", must, r.stderr)
		}
	}
	if r.stdout != "" {
		t.Errorf("stdout: %s", r.stdout)
	}
	u.policy("image: {build: Dockerfile}\n")
	r = u.sandbox(false, "run", "--", "true")
	u.wantCode(r, exitFailure)
	if s := u.wantOutcome(event.Errored, exitFailure); !strings.Contains(s.Reason, "the build failed") || !strings.Contains(r.stderr, "the reason") {
		t.Errorf("recorded: %q\nstderr: %s", s.Reason, r.stderr)
	}
}

// TestBuildInterrupted: a run ends with its record also while its image is being built.
func TestBuildInterrupted(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("Dockerfile", "FROM "+testImage()+"\nRUN echo "+marker("build")+"; sleep 1000\n", 0o644)
	u.policy("image: {build: Dockerfile}\n")
	p := u.prepare()
	p.cmd.Args = append(p.cmd.Args[:1], "run", "--", "true")
	p.begin()
	u.waitFor("run.started")
	p.signal(syscall.SIGINT)
	u.wantCode(p.wait(), 128+int(syscall.SIGINT))
	u.wantOutcome(event.Cancelled, 128+int(syscall.SIGINT))
}

// TestBuildCAFile: the certificates are there for the build's commands, and not in the image.
func TestBuildCAFile(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	server := httptest.NewTLSServer(nil)
	t.Cleanup(server.Close)
	ca := certificatePEM(server.Certificate())
	u.write("ca.pem", string(ca), 0o644)
	const check = `RUN test -n "$SSL_CERT_FILE" && grep -q "BEGIN CERTIFICATE" "$SSL_CERT_FILE"`
	u.write("Dockerfile", "FROM "+testImage()+"\n"+check+" && echo made > /home/agent/made\n", 0o644)
	build := func(args ...string) result {
		return u.sandbox(false, append([]string{"image", "build", "--file", "Dockerfile", "--offline", "--no-cache"}, args...)...)
	}
	u.wantCode(build(), exitError) // the control: without it there is nothing to trust
	r := build("--ca-file", "ca.pem")
	u.wantCode(r, 0)
	name, _, _ := strings.Cut(r.stdout, " ")
	t.Cleanup(func() { docker(t, nil, "rmi", "-f", name) })
	u.wantCode(u.sandbox(false, "run", "--image", name, "--", "sh", "-c", "! test -e /.agent-sandbox-build && ! env | grep SSL_CERT_FILE=/.agent"), 0)

	u.write("Dockerfile", "FROM "+testImage()+"\nUSER root\n"+check+" && cp $SSL_CERT_FILE /opt/kept\n", 0o644)
	r = build("--ca-file", "ca.pem")
	u.wantCode(r, exitError)
	if !strings.Contains(r.stderr, "/opt/kept") {
		t.Errorf("stderr does not name the copy: %s", r.stderr)
	}
}

// TestLockRegistry pulls by a tag of a registry, which then moves.
func TestLockRegistry(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	server := httptest.NewServer(registry.New())
	t.Cleanup(server.Close)
	name := strings.TrimPrefix(server.URL, "http://") + "/team/agent:1"
	docker(t, nil, "tag", testImage(), name)
	t.Cleanup(func() { docker(t, nil, "rmi", "-f", name) })
	if _, err := u.engine.Image(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if !canPush(t, name) {
		t.Skip("this engine does not reach our loopback")
	}
	docker(t, nil, "rmi", name)
	u.policy("image: " + name + "\n")
	u.wantCode(u.sandbox(false, "image", "lock"), 0)
	locks, err := image.ReadLock(filepath.Join(u.project, image.LockFile))
	if err != nil {
		t.Fatal(err)
	}
	e := locks.Images[name]
	repository, _, _ := strings.Cut(name, "/agent:")
	t.Cleanup(func() { docker(t, nil, "rmi", "-f", repository+"/agent@"+e.Digest) })
	if e.From != image.FromRegistry {
		t.Errorf("the entry is %+v, want one of a registry", e)
	}
	u.wantCode(u.sandbox(true, "run", "--", "true"), 0)
	u.wantImage(true, false)

	docker(t, nil, "tag", scratchImage(t), name)
	if !canPush(t, name) {
		t.Fatal("the second push failed")
	}
	u.wantRefused(u.sandbox(true, "run", "--", "true"), "is not the image", "docker pull", "@"+e.Digest)
	r := u.sandbox(false, "image", "lock", "--pull")
	u.wantCode(r, 0)
	if !strings.Contains(r.stdout, "-      \"digest\": \""+e.Digest) {
		t.Errorf("what changed is not shown: %s", r.stdout)
	}
}

func canPush(t *testing.T, name string) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", "push", "-q", name).CombinedOutput()
	t.Logf("docker push: %s %v", out, err)
	return err == nil
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
