package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/image"
)

// choice is the image that a run uses, and what the lock file says of it.
type choice struct {
	reference string
	lock      runner.ImageLock
	source    *image.Source // of an image that is built; nil for others
	recipe    *image.Recipe // of the locked one; nil without
}

// lockFileFor is the lock file beside the policy.
func lockFileFor(policyName, project string) string {
	if policyName == "" {
		return filepath.Join(project, image.LockFile)
	}
	return filepath.Join(filepath.Dir(policyName), image.LockFile)
}

// readLock reads a lock file; one that is not there is empty.
func readLock(name string) (*image.Lock, error) {
	l, err := image.ReadLock(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &image.Lock{Version: image.LockVersion, Images: map[string]image.Entry{}}, nil
	}
	var wrong *image.LockError
	if errors.As(err, &wrong) {
		wrong.File = displayPath(wrong.File)
		return nil, &statusError{exitUsage, wrong}
	}
	return l, err
}

// choose finds the image that a run of this policy uses: what --image names, else the policy's image, else the
// program's default.
func choose(f runFlags, p *policy.Policy, project string, ci bool) (choice, error) {
	file := lockFileFor(f.policy, project)
	w := wishOf(p)
	c := choice{reference: f.image, lock: runner.ImageLock{File: displayPath(file), Name: w.String(), Override: f.image != "", Required: ci || f.locked}}
	if f.image != "" {
		return c, nil
	}
	if p.Image.IsZero() && w.isBuilt() {
		c.lock.Agent = f.agent
	}
	locks, err := readLock(file)
	if err != nil {
		return c, err
	}
	if w.isBuilt() {
		return c, c.chooseBuild(w, p, project, locks)
	}
	c.reference = w.key(project)
	if e, ok := locks.Images[c.reference]; ok {
		c.lock.Digests = e.Digests()
	}
	return c, nil
}

func (c *choice) chooseBuild(w wish, p *policy.Policy, project string, locks *image.Lock) error {
	c.lock.Build = true
	src, err := w.source(p, project, locks)
	if err != nil {
		return err
	}
	in, err := image.ReadInputs(src)
	if err != nil {
		return err
	}
	defer in.Close()
	c.reference, c.source = image.Tag(in.Digest()), &src
	if e, locked := locks.Images[w.key(project)]; locked {
		c.lock.Digests, c.recipe = e.Digests(), e.Build
		if changed := e.ChangedInputs(in); len(changed) > 0 {
			c.lock.Stale = fmt.Sprintf("%s does not hold any more for %s: %s", c.lock.File, w, strings.Join(changed, "; "))
		}
	}
	return nil
}

// imageOf is the image that a run of this policy would use.
func imageOf(f runFlags, p *policy.Policy, project string) (string, error) {
	c, err := choose(f, p, project, false)
	return c.reference, err
}

// buildIfMissing gives what builds the image of a policy that has one built, unless the engine has it for the present inputs; nil if there is
// nothing to build. Where only the locked image may run it is built from the lock's inputs alone, as a fresh machine of CI has to: whether the
// result is the locked one is then for the run to say.
func (a *app) buildIfMissing(cfg engine.Config, c choice, f runFlags) func(context.Context) error {
	if c.source == nil || c.lock.Required && (c.lock.Stale != "" || len(c.lock.Digests) == 0) {
		return nil
	}
	return func(ctx context.Context) error {
		err := a.build(ctx, cfg, c, f)
		if s, ok := errors.AsType[*statusError](err); ok {
			return s.err // it is a run that fails, and has a status of its own
		}
		return err
	}
}

func (a *app) build(ctx context.Context, cfg engine.Config, c choice, f runFlags) (err error) {
	e, err := engine.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if _, err := e.Image(ctx, c.reference); !errors.Is(err, engine.ErrNoImage) {
		return err
	}
	b, progress, err := a.builder(ctx, e, cfg.CacheDir, imageFlags{caFiles: f.caFiles, verbose: f.verbose})
	if err != nil {
		return err
	}
	if c.lock.Stale == "" && c.recipe != nil {
		b = b.As(c.recipe)
	}
	in, err := image.ReadInputs(*c.source)
	if err != nil {
		return err
	}
	defer in.Close()
	fmt.Fprintf(a.stderr, "agent-sandbox: building the image of %s\n", c.lock.Name)
	_, err = b.Build(ctx, in)
	progress.end(err)
	return err
}
