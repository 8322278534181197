package engine

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
)

// Built is what a build left in the engine.
type Built struct {
	ID string // of the result; empty if the build failed
	// Made are the images without a name that the build made, the latest first; one that failed half-way may have made some
	// too. It is empty for a build with the classic builder's cache, since they are that cache.
	Made []string
}

// removeTimeout bounds the removal of what a build made.
const removeTimeout = time.Minute

// maxStepImages bounds the images that are noted of one build.
const maxStepImages = 10_000

// stepImage is how the classic builder reports the image that a step ended with.
var stepImage = regexp.MustCompile(`^ ---> ([0-9a-f]{12,64})\n$`)

// steps notes the images that a build's report names: the classic builder makes one at every step, and none of them goes
// by itself, not even those of a stage that the result has no part in. A command of the build can print what looks like
// such a line; so nothing that is named here counts unless the engine did not have it before and it has no name.
type steps struct {
	before map[string]bool // nil: nothing is noted
	ids    []string
}

// note takes an id, which may be a short one.
func (s *steps) note(id string) {
	if id = strings.TrimPrefix(id, "sha256:"); s.before != nil && len(s.ids) < maxStepImages && !slices.Contains(s.ids, id) {
		s.ids = append(s.ids, id)
	}
}

func (s *steps) text(text string) {
	if m := stepImage.FindStringSubmatch(text); m != nil {
		s.note(m[1])
	}
}

// made picks those of the noted images that the build made, the latest first, out of all that the engine has now.
func (s *steps) made(now []image.Summary) []string {
	var made []string
	for _, id := range slices.Backward(s.ids) {
		for _, i := range now {
			if strings.HasPrefix(i.ID, "sha256:"+id) && !s.before[i.ID] && !named(i) && !slices.Contains(made, i.ID) {
				made = append(made, i.ID)
			}
		}
	}
	return made
}

// named tells whether an image has a tag or is known to a registry. Engines up to 20.10 say <none> for neither.
func named(i image.Summary) bool {
	return slices.ContainsFunc(slices.Concat(i.RepoTags, i.RepoDigests), func(name string) bool { return !strings.HasPrefix(name, "<none>") })
}

// images lists all that the engine has, those between two steps of a build included.
func (e *Engine) images(ctx context.Context) ([]image.Summary, error) {
	all, err := e.api.ImageList(ctx, image.ListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	return all, nil
}

// steps begins to note what a build makes.
func (e *Engine) steps(ctx context.Context) (*steps, error) {
	all, err := e.images(ctx)
	if err != nil {
		return nil, err
	}
	s := &steps{before: map[string]bool{}}
	for _, i := range all {
		s.before[i.ID] = true
	}
	return s, nil
}

// madeBy is what a build has made that is over or was given up.
func (e *Engine) madeBy(ctx context.Context, s *steps) ([]string, error) {
	if len(s.ids) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	now, err := e.images(ctx)
	return s.made(now), err
}

// RemoveMade removes what a build made, in the order of [Built]: never an image that something else was built on in the
// meantime, nor what the build started from. It does its work even if ctx is done.
func (e *Engine) RemoveMade(ctx context.Context, made []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	var errs []error
	for _, id := range made {
		// Without pruning: an image that the build started from may have no name, and would go too.
		_, err := e.api.ImageRemove(ctx, id, image.RemoveOptions{})
		if isConflict(err) {
			if err = e.unused(ctx, id); err == nil {
				err = e.RemoveImage(ctx, id, false)
			}
		}
		if err != nil && !IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove what the build made: %w", err))
		}
	}
	return errors.Join(errs...)
}

// unused returns when no container has an image: the engine takes a moment to end the step of a build that was given up.
func (e *Engine) unused(ctx context.Context, id string) error {
	list, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("ancestor", id))})
	for _, c := range list {
		err = errors.Join(err, (&Container{engine: e, ID: c.ID}).gone(ctx))
	}
	return err
}
