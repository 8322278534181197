//go:build docker

package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/engine"
)

// testImage is the base of the tests' images.
func testImage() string {
	for _, name := range []string{"AGENT_SANDBOX_TEST_IMAGE", "IMAGE"} {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return "agent-sandbox:dev"
}

// messy leaves what builds leave: caches, times, logs, ids, bytecode, accounts.
func messy() string {
	return "FROM " + testImage() + `
USER root
RUN mkdir -p /opt/tool /var/cache/apt /root/.npm/_logs /var/log/tool && \
    date +%s%N > /var/log/tool/log && date +%s%N > /root/.npm/_logs/now && date +%s%N > /var/cache/apt/pkgcache.bin && \
    cat /proc/sys/kernel/random/uuid > /etc/machine-id && date +%s%N > /tmp/junk && \
    echo 'print("hello")' > /opt/tool/main.py && python3 -m compileall -q /opt/tool && \
    useradd --create-home builder && ln /opt/tool/main.py /opt/tool/other.py && ln -s main.py /opt/tool/link && \
    rm /usr/bin/less && chmod 700 /opt/tool
WORKDIR /made/here
COPY given /made/given
RUN touch /made/given/file && ldconfig
ENV MESSY=yes
USER agent
`
}

type project struct {
	t   *testing.T
	dir string
}

func newProject(t *testing.T, dockerfile string) project {
	p := project{t, t.TempDir()}
	p.write("Dockerfile", dockerfile)
	return p
}

func (p project) write(name, text string) {
	p.t.Helper()
	name = filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p project) inputs() *Inputs {
	p.t.Helper()
	in, err := ReadInputs(Source{File: filepath.Join(p.dir, "Dockerfile")})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = in.Close() })
	return in
}

func newBuilder(t *testing.T) *Builder {
	t.Helper()
	e, err := engine.Connect(t.Context(), engine.Config{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return &Builder{Engine: e, Dir: t.TempDir(), NoCache: true, Offline: true, Line: func(s string) { t.Log(s) }}
}

// removeLater removes an image when the test is over, by when its context is cancelled.
func removeLater(t *testing.T, b *Builder, name string) {
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		if err := b.Engine.RemoveImage(ctx, name, true); err != nil {
			t.Error(err)
		}
	})
}

// TestBuildTwice builds from two checkouts of the same files, with both of the engine's builders.
func TestBuildTwice(t *testing.T) {
	b := newBuilder(t)
	digests := map[string]string{}
	for _, tt := range []struct {
		name     string
		buildKit bool
	}{{"classic", false}, {"classic again", false}, {"buildkit", true}} {
		p := newProject(t, messy())
		p.write("given/file", "same")
		b.BuildKit = tt.buildKit
		r, err := b.Build(t.Context(), p.inputs())
		if err != nil {
			t.Fatal(err)
		}
		removeLater(t, b, r.Name)
		t.Logf("%s: %+v %v", tt.name, r.Digest, len(r.SBOM.Components))
		digests[r.Digest] = tt.name
	}
	if len(digests) != 1 {
		t.Errorf("digests differ: %v", digests)
	}
}

// alter puts another image behind a name, and returns what takes it back.
func alter(t *testing.T, b *Builder, name, command string) (restore func()) {
	t.Helper()
	was, err := b.Engine.Image(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	archive := onlyDockerfile(t, "FROM "+name+"\nUSER root\nRUN "+command+"\n")
	built, err := b.Engine.Build(t.Context(), engine.Build{Context: archive, Dockerfile: "Dockerfile", Offline: true, NoCache: true}, b.Line)
	if err == nil {
		err = b.Engine.Tag(t.Context(), built.ID, name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		err := errors.Join(b.Engine.Tag(t.Context(), was.ID, name), b.Engine.RemoveMade(t.Context(), built.Made))
		if err != nil {
			t.Error(err)
		}
	}
}

// onlyDockerfile is the context of a build that copies nothing.
func onlyDockerfile(t *testing.T, text string) io.Reader {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err := errors.Join(w.WriteHeader(&tar.Header{Name: "Dockerfile", Size: int64(len(text)), Mode: 0o644}), second(w.Write([]byte(text))), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	return &archive
}

func second(_ int, err error) error { return err }

// TestVerify alters an image behind the lock's back.
func TestVerify(t *testing.T) {
	b := newBuilder(t)
	p := newProject(t, "FROM "+testImage()+"\nCOPY given /given\nRUN echo of the build > /tmp/x\n")
	for _, name := range []string{"content", "mode", "time", "owner", "gone", "same"} {
		p.write("given/"+name, "same")
	}
	in := p.inputs()
	r, err := b.Build(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	removeLater(t, b, r.Name)
	e := Entry{Digest: r.Digest, ID: r.ID, From: FromBuild, Build: RecipeOf(in, r)}
	v, err := b.Verify(t.Context(), in, e)
	if err != nil || !v.OK() {
		t.Fatalf("Verify of what was built = %+v, %v", v, err)
	}
	defer alter(t, b, r.Name, `cd /given; at=$(stat -c %Y same); echo diff > content; chmod 600 mode; touch -d @7 time; \
    chown 7:8 owner; rm gone; echo new > new; touch -d @$at content mode owner`)()
	if v, err = b.Verify(t.Context(), in, e); err != nil {
		t.Fatal(err)
	}
	if v.OK() || v.Built != r.Digest {
		t.Errorf("Verify of an altered image = OK %v, built %s; want a difference and %s", v.OK(), v.Built, r.Digest)
	}
	got := map[string][]Reason{}
	for _, d := range v.Differences {
		if strings.HasPrefix(d.Path, "/given/") {
			got[strings.TrimPrefix(d.Path, "/given/")] = d.Why
		}
	}
	want := map[string][]Reason{
		"content": {ReasonContent}, "mode": {ReasonMode}, "time": {ReasonTime}, "owner": {ReasonOwner}, "gone": {ReasonAdded}, "new": {ReasonRemoved},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
}
