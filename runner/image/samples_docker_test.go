//go:build docker

package image

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/org/agent-sandbox/runner/engine"
)

// copyOf is another checkout of a sample.
func copyOf(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "testdata", "samples", name))); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "Dockerfile")
}

// TestSamples builds a project's own Dockerfile from two checkouts, verifies it, and shows what was altered behind the lock's back.
func TestSamples(t *testing.T) {
	b := newBuilder(t)
	for _, tt := range []struct {
		name, file, pkg string
		args            map[string]string
	}{
		{"node", "/app/node_modules/greet/index.js", "greet", map[string]string{"BASE": testImage()}},
		{"go", "/usr/local/bin/greet", "example.org/greet", map[string]string{"BASE": testImage(), "GO": goImage()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := b.Engine.Image(t.Context(), tt.args["GO"]); tt.args["GO"] != "" && errors.Is(err, engine.ErrNoImage) {
				t.Skipf("the engine has no image with Go, %s; AGENT_SANDBOX_TEST_GO_IMAGE names another", tt.args["GO"])
			}
			var first *Result
			for range 2 {
				in, err := ReadInputs(Source{File: copyOf(t, tt.name), Args: tt.args})
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				r, err := b.Build(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				if first != nil {
					if r.Digest != first.Digest {
						t.Errorf("built twice: %s and %s", first.Digest, r.Digest)
					}
					wantCulprit(t, b, in, r, tt.file)
					continue
				}
				first = r
				removeLater(t, b, r.Name)
			}
			if !slices.ContainsFunc(first.SBOM.Components, func(c Component) bool { return c.Name == tt.pkg }) {
				t.Errorf("the list of packages lacks %s", tt.pkg)
			}
		})
	}
}

func goImage() string {
	if name := os.Getenv("AGENT_SANDBOX_TEST_GO_IMAGE"); name != "" {
		return name
	}
	return "golang:1.26-trixie"
}

// wantCulprit verifies an image of which one file was altered.
func wantCulprit(t *testing.T, b *Builder, in *Inputs, r *Result, file string) {
	t.Helper()
	e := Entry{Digest: r.Digest, ID: r.ID, From: FromBuild, Build: RecipeOf(in, r)}
	defer alter(t, b, r.Name, "at=$(stat -c %Y "+file+") && chmod 711 "+file+" && echo altered >>"+file+" && touch -d @$at "+file)()
	v, err := b.Verify(t.Context(), in, e)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(v.Differences, func(d Difference) bool { return d.Path == file })
	if v.OK() || v.Built != r.Digest || at < 0 || !slices.Contains(v.Differences[at].Why, ReasonContent) || !slices.Contains(v.Differences[at].Why, ReasonMode) {
		t.Errorf("Verify of an altered image tells %+v, want the content and mode of %s", v, file)
	}
}
