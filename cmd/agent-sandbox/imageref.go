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
	c := choice{reference: f.image, lock: runner.ImageLock{File: displayPath(file), Name: lockKey(p), Override: f.image != "", Required: ci || f.locked}}
	if f.image != "" {
		return c, nil
	}
	locks, err := readLock(file)
	if err != nil {
		return c, err
	}
	if p.Image.Build != "" {
		return c, c.chooseBuild(p, project, locks)
	}
	c.reference = lockKey(p)
	if e, ok := locks.Images[c.reference]; ok {
		c.lock.Digests = e.Digests()
	}
	return c, nil
}

// lockKey is what the lock calls the image of a policy.
func lockKey(p *policy.Policy) string {
	switch {
	case p.Image.Build != "":
		return image.BuildKey(p.Image.Build, p.Image.Target)
	case p.Image.Reference != "":
		return p.Image.Reference
	default:
		return defaultImage
	}
}

func (c *choice) chooseBuild(p *policy.Policy, project string, locks *image.Lock) error {
	c.lock.Build, c.lock.Name = true, p.Image.Build
	e, locked := locks.Images[lockKey(p)]
	src := sourceOf(p, filepath.Join(project, filepath.FromSlash(p.Image.Build)), project)
	src.Target = p.Image.Target
	if locked {
		src.Args = e.Build.Args
	}
	in, err := image.ReadInputs(src)
	if err != nil {
		return err
	}
	defer in.Close()
	c.reference, c.source = image.Tag(in.Digest()), &src
	if locked {
		c.lock.Digests = e.Digests()
		if changed := e.ChangedInputs(in); len(changed) > 0 {
			c.lock.Stale = fmt.Sprintf("%s does not hold any more for %s: %s", c.lock.File, p.Image.Build, strings.Join(changed, "; "))
		}
	}
	return nil
}

// sourceOf says what is built from a Dockerfile of the project. What the policy hides from agents does not get into the
// image that they see.
func sourceOf(p *policy.Policy, file, project string) image.Source {
	hidden := policy.NewPatternSet(p.Workspace.Hide)
	prefix, err := filepath.Rel(project, filepath.Dir(file))
	outside := err != nil || strings.HasPrefix(prefix, "..")
	return image.Source{File: file, Hidden: func(name string, dir bool) bool {
		if !outside {
			name = filepath.ToSlash(filepath.Join(prefix, filepath.FromSlash(name)))
		}
		return hidden.Match(name, dir)
	}}
}

// imageOf is the image that a run of this policy would use.
func imageOf(f runFlags, p *policy.Policy, project string) (string, error) {
	c, err := choose(f, p, project, false)
	return c.reference, err
}

// buildIfMissing builds the image of a policy that has one built, unless the engine has it for the present inputs. Where
// only the locked image may run nothing is built: what the run says is then what has to be done.
func (a *app) buildIfMissing(ctx context.Context, cfg engine.Config, c choice, f runFlags) (err error) {
	if c.source == nil || c.lock.Required || f.dryRun {
		return nil
	}
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
	in, err := image.ReadInputs(*c.source)
	if err != nil {
		return err
	}
	defer in.Close()
	fmt.Fprintf(a.stderr, "agent-sandbox: building the image of %s\n", displayPath(c.source.File))
	_, err = b.Build(ctx, in)
	progress.end(err)
	return err
}
