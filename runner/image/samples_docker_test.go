//go:build docker

package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/org/agent-sandbox/runner/engine"
)

// sampleInputs are those of another checkout of a sample.
func sampleInputs(t *testing.T, name string, args map[string]string) *Inputs {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "testdata", "samples", name))); err != nil {
		t.Fatal(err)
	}
	in, err := ReadInputs(Source{File: filepath.Join(dir, "Dockerfile"), Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	return in
}

// TestSamples builds a project's own Dockerfile, alters the image behind the lock's back, and has another checkout verified: without the
// cache it is built to the same digest, and what was altered is told.
func TestSamples(t *testing.T) {
	b := newBuilder(t)
	for _, tt := range []struct {
		name, file, pkg string
		args            func(t *testing.T) map[string]string
	}{
		{"node", "/app/node_modules/greet/index.js", "greet", func(*testing.T) map[string]string {
			return map[string]string{"BASE": testImage()}
		}},
		{"go", "/usr/local/bin/greet", "example.org/greet", func(t *testing.T) map[string]string {
			return map[string]string{"BASE": testImage(), "GO": goImage(t, b)}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args(t)
			in := sampleInputs(t, tt.name, args)
			r, err := b.Build(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			removeLater(t, b, r.Name)
			if !slices.ContainsFunc(r.SBOM.Components, func(c Component) bool { return c.Name == tt.pkg }) {
				t.Errorf("the list of packages lacks %s", tt.pkg)
			}
			e := Entry{Digest: r.Digest, ID: r.ID, From: FromBuild, Build: RecipeOf(in, r)}
			wantCulprit(t, b, sampleInputs(t, tt.name, args), e, tt.file)
		})
	}
}

// wantCulprit verifies an image of which one file was altered.
func wantCulprit(t *testing.T, b *Builder, in *Inputs, e Entry, file string) {
	t.Helper()
	defer alter(t, b, Tag(e.Build.Inputs), "at=$(stat -c %Y "+file+") && chmod 711 "+file+" && echo altered >>"+file+" && touch -d @$at "+file)()
	v, err := b.Verify(t.Context(), in, e)
	if err != nil {
		t.Fatal(err)
	}
	if v.Built != e.Digest || len(v.Inputs) > 0 {
		t.Errorf("built twice: %s and %s, %q", e.Digest, v.Built, v.Inputs)
	}
	at := slices.IndexFunc(v.Differences, func(d Difference) bool { return d.Path == file })
	if v.OK() || at < 0 || !slices.Equal(v.Differences[at].Why, []Reason{ReasonContent, ReasonMode}) {
		t.Errorf("Verify of an altered image tells %+v, want the content and mode of %s", v, file)
	}
}

// goImage is an image with the Go that runs this test, where the official one has it: what it takes to build a program without imports.
func goImage(t *testing.T, b *Builder) string {
	t.Helper()
	root := goOutput(t, "env", "GOROOT")[0]
	files := goFiles(t, root)
	r, w := io.Pipe()
	var sending errgroup.Group
	sending.Go(func() error { return w.CloseWithError(writeGo(w, root, files)) })
	built, err := b.Engine.Build(t.Context(), engine.Build{Context: r, Dockerfile: "Dockerfile", Offline: true}, b.Line)
	_ = r.Close()
	if err := errors.Join(err, sending.Wait()); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("agent-sandbox-test-go:%d", os.Getpid())
	if err := b.Engine.Tag(t.Context(), built.ID, name); err != nil {
		t.Fatal(err)
	}
	removeLater(t, b, name)
	return name
}

// goOutput is what the go command prints, line by line.
func goOutput(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// goFiles are paths relative to root: the command, the compiler, the linker, the assembler, and the runtime with all that it stands on.
func goFiles(t *testing.T, root string) []string {
	t.Helper()
	tools := "pkg/tool/linux_" + runtime.GOARCH + "/"
	files := []string{"VERSION", "go.env", "bin/go", "src/go.mod", tools + "asm", tools + "compile", tools + "link"}
	dirs := []string{"pkg/include", "src/runtime/cgo"} // headers
	for _, dir := range goOutput(t, "list", "-deps", "-f", "{{.Dir}}", "runtime") {
		dirs = append(dirs, strings.TrimPrefix(dir, root+"/"))
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Type().IsRegular() && !strings.HasSuffix(e.Name(), "_test.go") {
				files = append(files, path.Join(dir, e.Name()))
			}
		}
	}
	return files
}

// writeGo writes the context of an image with these files.
func writeGo(w io.Writer, root string, files []string) error {
	t := tar.NewWriter(w)
	dockerfile := "FROM " + testImage() + "\nUSER root\nCOPY go /usr/local/go\nENV PATH=/usr/local/go/bin:$PATH HOME=/root GOTOOLCHAIN=local\n"
	err := t.WriteHeader(&tar.Header{Name: "Dockerfile", Size: int64(len(dockerfile)), Mode: 0o644})
	if err == nil {
		_, err = io.WriteString(t, dockerfile)
	}
	for _, name := range files {
		if err == nil {
			err = addFile(t, filepath.Join(root, filepath.FromSlash(name)), path.Join("go", name))
		}
	}
	return errors.Join(err, t.Close())
}

func addFile(t *tar.Writer, from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: to, Size: int64(len(b)), Mode: int64(st.Mode().Perm())}); err != nil {
		return err
	}
	_, err = t.Write(b)
	return err
}
