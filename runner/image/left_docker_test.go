//go:build docker

package image

import (
	"context"
	"crypto/rand"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/engine"
)

// dockerCLI asks the engine for what the package itself has no need of.
func dockerCLI(t *testing.T, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %q: %v\n%s", args, err, out)
	}
	return strings.Fields(string(out))
}

// allImages are the ids of all that the engine has, those between the steps of a build included.
func allImages(t *testing.T) []string {
	t.Helper()
	return dockerCLI(t, "image", "ls", "--all", "--quiet", "--no-trunc")
}

// wantNothingLeft compares the engine's images with those of before. Others may build at the same time: what counts is what came of an
// instruction with mark in it.
func wantNothingLeft(t *testing.T, before []string, mark string) {
	t.Helper()
	now := allImages(t)
	for _, id := range now {
		if !slices.Contains(before, id) && strings.Contains(strings.Join(dockerCLI(t, "image", "history", "--no-trunc", id), " "), mark) {
			t.Errorf("the build left %s: %q", id, dockerCLI(t, "image", "history", id))
		}
	}
	if base := dockerCLI(t, "image", "inspect", "--format", "{{.Id}}", testImage())[0]; !slices.Contains(before, base) {
		t.Errorf("%s is another image than before", testImage())
	}
}

// stages is a Dockerfile of which the result needs a stage that needs another, and a stage without instructions; end is how it goes on.
func stages(base, mark, end string) string {
	return "FROM " + base + " AS one\nENV MARK=" + mark + "\nCOPY given /one\nFROM " + testImage() + " AS bare\nFROM one AS three\nCOPY given /three\n" +
		"FROM " + base + "\nENV MARK=" + mark + "\nCOPY --from=three /one /three /\n" + end + "\n"
}

// TestBuildLeavesNothing: of a build without the cache no stage stays in the engine, and of one that fails or is given up no step does.
func TestBuildLeavesNothing(t *testing.T) {
	for _, builder := range []string{"classic", "buildkit"} {
		b := newBuilder(t)
		b.BuildKit = builder == "buildkit"
		t.Run(builder, func(t *testing.T) {
			verifyLeavesNothing(t, b)
			failureLeavesNothing(t, b)
			cancelLeavesNothing(t, b)
		})
	}
}

func staged(t *testing.T, base, mark, end string) *Inputs {
	t.Helper()
	p := newProject(t, stages(base, mark, end))
	p.write("given", "")
	return p.inputs()
}

func verifyLeavesNothing(t *testing.T, b *Builder) {
	t.Helper()
	mark, before := rand.Text(), allImages(t)
	in := staged(t, noBase, mark, "LABEL of=four")
	r, err := b.Build(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	v, err := b.Verify(t.Context(), in, Entry{Digest: r.Digest, ID: r.ID, From: FromBuild, Build: RecipeOf(in, r)})
	if err != nil || !v.OK() {
		t.Errorf("Verify = %+v, %v", v, err)
	}
	if err := b.Engine.RemoveImage(t.Context(), r.Name, true); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, before, mark)
}

func failureLeavesNothing(t *testing.T, b *Builder) {
	t.Helper()
	mark, before := rand.Text(), allImages(t)
	if _, err := b.Build(t.Context(), staged(t, noBase, mark, "LABEL of=four\nCOPY --from=three /missing /")); !errors.Is(err, engine.ErrBuild) {
		t.Errorf("the build did not fail by itself: %v", err)
	}
	wantNothingLeft(t, before, mark)
}

func cancelLeavesNothing(t *testing.T, b *Builder) {
	t.Helper()
	mark, before := rand.Text(), allImages(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	given := *b
	given.Line = func(s string) {
		if s == "now "+mark {
			cancel()
		}
	}
	if _, err := given.Build(ctx, staged(t, testImage(), mark, "RUN echo now $MARK; sleep 1000")); ctx.Err() == nil {
		t.Errorf("the build ended by itself: %v", err)
	}
	wantNothingLeft(t, before, mark)
}

// TestBuildKeepsBase: an image without a name that a build stands on stays, as does every image that a command of the build names as if it were
// the build's own. A policy can give an image by its id alone.
func TestBuildKeepsBase(t *testing.T) {
	b, mark := newBuilder(t), rand.Text()
	p := newProject(t, "")
	text := "FROM " + testImage() + "\nENV MARK=" + mark + "\n"
	base, err := b.Engine.Build(t.Context(), engine.Build{Context: onlyDockerfile(t, text), Dockerfile: "Dockerfile", NoCache: true}, b.Line)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Engine.RemoveMade(t.Context(), base.Made); err != nil {
			t.Error(err)
		}
	}()
	p.write("Dockerfile", "FROM "+base.ID+"\nLABEL of=two\nRUN printf ' ---> %.12s\\n' "+strings.TrimPrefix(base.ID, "sha256:")+"; exit 7\n")
	said := false
	b.Line = func(s string) { said = said || s == " ---> "+base.ID[7:19] }
	if _, err := b.Build(t.Context(), p.inputs()); !errors.Is(err, engine.ErrBuild) || !said {
		t.Errorf("the build did not fail by itself: %v, or did not name %s", err, base.ID)
	}
	if _, err := b.Engine.Image(t.Context(), base.ID); err != nil {
		t.Errorf("the build took its base away: %v", err)
	}
}
