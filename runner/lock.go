package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/runner/engine"
)

// ImageLock is what a project's lock file says of the image of a run.
type ImageLock struct {
	File string // path of the lock file, for messages
	Name string // what the policy calls the image, for messages
	// Digests are what an engine may call the locked image: its manifest's digest and its id. Empty: the lock has no entry.
	Digests []string
	// Build: the image is one that is built from the project.
	Build bool
	// Agent is the one that the caller named, of an image that has it for that alone; empty: the policy names it.
	Agent string
	// Stale says why the entry does not hold any more, such as that the Dockerfile was edited; empty if it does.
	Stale string
	// Required: nothing else than the locked image may run.
	Required bool
	// Override: the user named the image for this run alone. The lock has no say in it.
	Override bool
}

// LockPlan is the lock's part of a plan.
type LockPlan struct {
	File     string `json:"file,omitempty"`
	Locked   bool   `json:"locked"`
	Override bool   `json:"override"`
	Required bool   `json:"required"`
}

// findImage finds the run's image, through the lock.
func (r *run) findImage(ctx context.Context) (err error) {
	lock := r.cfg.Lock
	r.locked = false
	r.image, err = r.engine.Image(ctx, r.cfg.Image)
	if err != nil && !errors.Is(err, engine.ErrNoImage) {
		return err
	}
	missing := err
	switch {
	case lock.Override:
		return missing
	case lock.Required && lock.Stale != "":
		return &RefusedError{lock.Stale, "`agent-sandbox image lock` builds and locks it anew; commit " + lock.File}
	case lock.Required && len(lock.Digests) == 0 && !pinned(r.cfg.Image):
		return &RefusedError{fmt.Sprintf("%s has no entry for %s", lock.File, lock.Name), lock.entryHint()}
	case missing == nil && (pinned(r.cfg.Image) || lock.names(r.image)):
		r.locked = lock.Stale == ""
		return nil
	case missing == nil && lock.Required:
		return &RefusedError{
			fmt.Sprintf("%s is not the image that %s names: it is %s, the lock has %s", lock.Name, lock.File, r.image.ID, lock.Digests[0]),
			r.lockHint(),
		}
	}
	return r.findLocked(ctx, missing)
}

// findLocked looks for the locked image by its digests, where its name leads to none or to another.
func (r *run) findLocked(ctx context.Context, missing error) error {
	lock := r.cfg.Lock
	if lock.Stale == "" {
		for _, name := range lock.references(r.cfg.Image) {
			img, err := r.engine.Image(ctx, name)
			if errors.Is(err, engine.ErrNoImage) {
				continue
			}
			if err != nil {
				return err
			}
			r.image, r.locked = img, true
			r.image.Reference = r.cfg.Image
			return nil
		}
	}
	switch {
	case missing != nil && (lock.Build || len(lock.Digests) > 0):
		return fmt.Errorf("%w\nhint: %s", missing, r.lockHint())
	case missing == nil && len(lock.Digests) > 0:
		why := fmt.Sprintf("%s is not the image that %s names", lock.Name, lock.File)
		if lock.Stale != "" {
			why = lock.Stale
		}
		r.lower("image", why, r.lockHint())
	}
	return missing
}

func (l ImageLock) entryHint() string {
	if l.Agent != "" {
		return fmt.Sprintf("say `agent: %s` in the policy, then `agent-sandbox image lock` writes one; commit both files", l.Agent)
	}
	return "`agent-sandbox image lock` writes one; commit the file"
}

func (r *run) lockHint() string {
	if r.cfg.Lock.Build {
		return "`agent-sandbox image build` builds it; if it is not the locked one then, `agent-sandbox image verify` tells why"
	}
	return fmt.Sprintf("`docker pull %s` gets the locked one; `agent-sandbox image lock` accepts the present one", r.cfg.Lock.references(r.cfg.Image)[0])
}

// pinned tells whether a reference can mean one image alone. A shortened id can come to mean another one.
func pinned(reference string) bool {
	name, digest, ok := strings.Cut(reference, "@")
	if !ok {
		name, digest = "an id alone", reference
	}
	hex, ok := strings.CutPrefix(digest, "sha256:")
	return ok && name != "" && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// names tells whether the lock's entry is this image.
func (l ImageLock) names(img engine.Image) bool {
	if slices.Contains(l.Digests, img.ID) {
		return true
	}
	for _, d := range img.Digests {
		if _, digest, ok := strings.Cut(d, "@"); ok && slices.Contains(l.Digests, digest) {
			return true
		}
	}
	return false
}

// references are what an engine may find the locked image by.
func (l ImageLock) references(name string) []string {
	repository := name
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		repository = name[:at]
	}
	var all []string
	for _, d := range l.Digests {
		if !pinned(name) {
			all = append(all, repository+"@"+d)
		}
		all = append(all, d)
	}
	return all
}
