package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"
)

// TestStepsMade: whatever a build's output names, only an image that is new and has no name is the build's.
func TestStepsMade(t *testing.T) {
	id := func(n int) string { return fmt.Sprintf("sha256:%012x%052d", n, 0) }
	none := image.Summary{RepoTags: []string{"<none>:<none>"}, RepoDigests: []string{"<none>@<none>"}}
	known := func(n int, tags, digests []string) image.Summary {
		return image.Summary{ID: id(n), RepoTags: tags, RepoDigests: digests}
	}
	now := []image.Summary{
		known(1, none.RepoTags, none.RepoDigests), known(2, none.RepoTags, none.RepoDigests), known(3, nil, nil),
		known(4, []string{"a:1"}, nil), known(5, none.RepoTags, []string{"a@sha256:1"}), known(6, nil, nil),
	}
	s := &steps{before: map[string]bool{id(1): true}}
	short := func(n int) string { return id(n)[7:19] }
	for _, text := range []string{
		" ---> " + short(1) + "\n", " ---> " + short(2) + "\n", " ---> Using cache\n", " ---> Running in " + short(6) + "\n",
		"x ---> " + short(6) + "\n", " ---> " + short(6) + "\nmore\n", " ---> " + short(7) + "\n", " ---> " + strings.ToUpper(short(6)) + "x\n",
	} {
		s.text(text)
	}
	for _, n := range []int{2, 3, 4, 5} {
		s.note(id(n))
	}
	if got, want := s.made(now), []string{id(3), id(2)}; !slices.Equal(got, want) {
		t.Errorf("made = %q, want %q", got, want)
	}
	cached := &steps{}
	cached.note(id(3))
	if got := cached.made(now); len(got) > 0 {
		t.Errorf("with the cache, made = %q, want nothing", got)
	}
	for n := range maxStepImages + 10 {
		s.note(fmt.Sprintf("%012x", n))
	}
	if len(s.ids) != maxStepImages {
		t.Errorf("%d images are noted, want %d", len(s.ids), maxStepImages)
	}
}
