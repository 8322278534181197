//go:build docker

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
)

// docker runs Docker's own client.
func docker(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// agentProgram builds the program of images that have nothing else.
func agentProgram(t *testing.T) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "agent")
	if err := goBuild(out, "./testdata/agent", "-ldflags=-s -w"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// archive makes a tar of files, which are all executable.
func archive(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// scratchImage is an image with one static program, /agent, and nothing else.
func scratchImage(t *testing.T) string {
	t.Helper()
	name := imageName(t)
	docker(t, archive(t, map[string][]byte{"agent": agentProgram(t)}), "import", "-", name)
	return name
}

// imageName is a name for an image that lives as long as the test.
func imageName(t *testing.T) string {
	sum := sha256.Sum256([]byte(t.Name() + t.TempDir()))
	name := "agent-sandbox-e2e:" + hex.EncodeToString(sum[:6])
	t.Cleanup(func() {
		_ = exec.Command("docker", "rmi", "-f", name).Run() // it may never have been made
	})
	return name
}

// TestRunScratchImage: no shell, no passwd, no /tmp, no C library.
func TestRunScratchImage(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	image := scratchImage(t)
	u.write("given", "from the host", 0o644)
	run := func(args ...string) result {
		return u.run(append([]string{"--image", image, "--", "/agent"}, args...)...)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"id"}, "1000 1000\n"},
		{[]string{"read", "given"}, "from the host"},
		{[]string{"write", "made", "inside"}, ""},
		{[]string{"write", "/tmp/x", "x"}, ""},
		{[]string{"write", "/home/agent/x", "x"}, ""},
		{[]string{"read", "/etc/passwd"}, "agent:x:1000:1000:agent:/home/agent:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\n"},
	} {
		r := run(tt.args...)
		u.wantCode(r, 0)
		if r.stdout != tt.want {
			t.Errorf("/agent %q wrote %q, want %q", tt.args, r.stdout, tt.want)
		}
	}
	u.wantCode(run("exit", "42"), 42)
	u.wantCode(u.run("--image", image, "--", "sh", "-c", "true"), 127)
	u.wantOutcome(event.Failure, 127)
}

// TestRunOwnImage has an image with all that a Dockerfile may say about how it wants to be run. Who the agent is and
// what runs is for the plan to say.
func TestRunOwnImage(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	base, name := scratchImage(t), imageName(t)
	dir := t.TempDir()
	dockerfile := "FROM " + base + `
ENV FROM_IMAGE=yes
COPY kept /data/kept
USER 4711:4711
WORKDIR /elsewhere
VOLUME ["/data", "/var/lib/things"]
EXPOSE 80
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=1s CMD ["/agent", "exit", "1"]
ONBUILD ENV NEVER=seen
ENTRYPOINT ["/agent", "exit", "99"]
CMD ["never"]
`
	for file, content := range map[string]string{"Dockerfile": dockerfile, "kept": "of the image"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	docker(t, nil, "build", "-q", "-t", name, dir)
	run := func(args ...string) result {
		return u.run(append([]string{"--image", name, "--", "/agent"}, args...)...)
	}
	r := run("id")
	u.wantCode(r, 0)
	if r.stdout != "1000 1000\n" {
		t.Errorf("the agent is %q", r.stdout)
	}
	u.wantOutcome(event.Success, 0)
	for _, dir := range []string{"/data", "/var/lib/things", "/workspace"} {
		u.wantCode(run("write", dir+"/made", "inside"), 0)
	}
	u.wantCode(run("exit", "3"), 3)
	if left := docker(t, nil, "volume", "ls", "-q", "--filter", "label=agent-sandbox="+string(u.last().ID)); left != "" {
		t.Errorf("volumes are left: %s", left)
	}
}

// TestRunImageMissing says what to do about it.
func TestRunImageMissing(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := u.run("--image", "agent-sandbox-e2e-no-such-image:1", "--", "true")
	u.wantCode(r, exitFailure)
	for _, must := range []string{"agent-sandbox-e2e-no-such-image:1", "hint: "} {
		if !strings.Contains(r.stderr, must) {
			t.Errorf("stderr has no %q: %s", must, r.stderr)
		}
	}
	u.wantOutcome(event.Errored, exitFailure)
}

// TestRunForeignImage is for another architecture, without an emulator for it.
func TestRunForeignImage(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	arch := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	name := imageName(t)
	docker(t, foreignImage(t, name, arch), "load")
	r := u.run("--image", name, "--", "/agent", "id")
	if r.code == 0 {
		t.Skipf("this engine runs %s programs", arch)
	}
	u.wantCode(r, exitFailure)
	for _, must := range []string{arch, runtime.GOARCH, "hint: "} {
		if !strings.Contains(r.stderr, must) {
			t.Errorf("stderr has no %q: %s", must, r.stderr)
		}
	}
	u.wantOutcome(event.Refused, exitFailure)
}

// foreignImage is an archive as `docker save` writes it (https://github.com/moby/docker-image-spec).
func foreignImage(t *testing.T, name, arch string) []byte {
	t.Helper()
	layer := archive(t, map[string][]byte{"agent": []byte("not for this machine")})
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	return archive(t, map[string][]byte{"layer.tar": layer, "config.json": config, "manifest.json": manifest})
}

// TestRunGuestPruned: somebody removed our volumes between two runs.
func TestRunGuestPruned(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	image := scratchImage(t)
	u.freshCache()
	// Ids that no other test's agent has: the volume is theirs alone.
	if err := os.Chown(u.project, 4242, 4242); err != nil {
		t.Skipf("not root: %v", err)
	}
	u.wantCode(u.run("--image", image, "--", "/agent", "id"), 0)
	var plan struct {
		Container struct{ Guest struct{ Volume string } }
	}
	if err := json.Unmarshal([]byte(u.log("plan.json")), &plan); err != nil {
		t.Fatal(err)
	}
	docker(t, nil, "volume", "rm", plan.Container.Guest.Volume)
	r := u.run("--image", image, "--", "/agent", "id")
	u.wantCode(r, 0)
	if r.stdout != "4242 4242\n" {
		t.Errorf("the agent is %q", r.stdout)
	}
	u.wantOutcome(event.Success, 0)
	docker(t, nil, "volume", "rm", plan.Container.Guest.Volume)
}

// TestRunFirstAtOnce: four first runs of a machine fill the same volume.
func TestRunFirstAtOnce(t *testing.T) {
	t.Parallel()
	image := scratchImage(t)
	u := newUser(t)
	u.freshCache()
	if err := os.Chown(u.project, 4243, 4243); err != nil {
		t.Skipf("not root: %v", err)
	}
	var all []*process
	for range 4 {
		all = append(all, u.start("--image", image, "--", "/agent", "id"))
	}
	for _, p := range all {
		r := p.wait()
		u.wantCode(r, 0)
		if r.stdout != "4243 4243\n" {
			t.Errorf("the agent is %q", r.stdout)
		}
	}
}

// freshCache makes the user one who never ran anything.
func (u *user) freshCache() { u.env = append(u.env, "XDG_CACHE_HOME="+u.t.TempDir()) }
