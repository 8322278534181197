package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/image"
)

// rules are the files by which the run is judged: policy, empty for the project's own, and ceiling, empty for none. Those of a pull request come
// from its base, as copies, the lock beside the policy: whoever wrote the pull request has no say in what it may do.
func (s *step) rules(ctx context.Context, project string) (policy, ceiling string, err error) {
	commit, err := s.job.PolicyCommit()
	if err != nil {
		return "", "", fmt.Errorf("the policy of a pull request is that of its base: %w", err)
	}
	if commit == "" {
		return s.under(s.in.Policy), s.under(s.in.Ceiling), nil
	}
	base := baseCommit{top: s.checkoutOf(project), commit: commit}
	s.log.Printf("the policy is that of the base, commit %s", commit)
	if policy, err = s.basePolicy(ctx, base, project); err != nil {
		return "", "", err
	}
	ceiling, err = s.baseCeiling(ctx, base)
	return policy, ceiling, err
}

// basePolicy copies policy and lock.
func (s *step) basePolicy(ctx context.Context, base baseCommit, project string) (string, error) {
	file := cmp.Or(s.under(s.in.Policy), filepath.Join(project, policyFile))
	src, err := base.read(ctx, file)
	switch {
	case errors.Is(err, errElsewhere):
		return file, nil
	case errors.Is(err, actions.ErrNotInCommit) && s.in.Policy == "":
		src = []byte("version: 1\n") // the base has none: the default
	case err != nil:
		return "", fmt.Errorf("the policy of a pull request is that of its base: %w", err)
	}
	lock, err := base.read(ctx, filepath.Join(filepath.Dir(file), image.LockFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(s.temp, image.LockFile), lock, 0o600)
	}
	if err != nil && !errors.Is(err, actions.ErrNotInCommit) {
		return "", fmt.Errorf("the lock of a pull request is that of its base: %w", err)
	}
	copied := filepath.Join(s.temp, policyFile)
	return copied, os.WriteFile(copied, src, 0o600)
}

// baseCeiling copies the ceiling, also one that the job's environment names.
func (s *step) baseCeiling(ctx context.Context, base baseCommit) (string, error) {
	file := s.under(s.in.Ceiling)
	if name := s.app.env(ceilingVariable); file == "" && name != "" {
		file = name
		if !filepath.IsAbs(name) {
			file = s.under(name)
		}
	}
	if file == "" {
		return "", nil
	}
	src, err := base.read(ctx, file)
	if errors.Is(err, errElsewhere) {
		return file, nil
	}
	if err != nil {
		return "", fmt.Errorf("the ceiling of a pull request is that of its base: %w", err)
	}
	copied := filepath.Join(s.temp, "ceiling.yaml")
	return copied, os.WriteFile(copied, src, 0o600)
}

// checkoutOf is the repository that has dir, in the workspace; dir itself if none has.
func (s *step) checkoutOf(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		if exists(filepath.Join(at, ".git")) {
			return at
		}
		if at == s.job.Workspace || at == filepath.Dir(at) {
			return dir
		}
	}
}

// baseCommit is what a pull request is to be merged into.
type baseCommit struct {
	top    string // of the checkout
	commit string
}

// errElsewhere tells that a file is not of the repository that the pull request is for: the workflow put it there.
var errElsewhere = errors.New("the file is not one of the repository's")

// read returns a file of the checkout as the base has it. Of a file that the base has nothing else is taken, whatever the pull request put in its
// place.
func (b baseCommit) read(ctx context.Context, file string) ([]byte, error) {
	rel, err := filepath.Rel(b.top, file)
	if err != nil {
		return nil, err
	}
	if !filepath.IsLocal(rel) {
		return nil, errElsewhere
	}
	src, err := actions.ReadCommitted(ctx, b.top, b.commit, filepath.ToSlash(rel))
	switch {
	case errors.Is(err, actions.ErrNotInCommit) && b.inAnother(file):
		return nil, errElsewhere
	case errors.Is(err, actions.ErrNotInCommit):
		return nil, fmt.Errorf("%s, commit %s: %w\nhint: merge the file first, or have the workflow check out a repository of its own for it", rel, b.commit, err)
	case err != nil:
		return nil, fmt.Errorf("%w\nhint: the checkout must have that commit: set `fetch-depth: 0` under `with:` of actions/checkout", err)
	}
	return src, nil
}

// inAnother tells whether a file below the checkout is of another one, which the workflow has made there. A submodule, whose .git is a
// file, is none: the pull request says which commit of which repository it is.
func (b baseCommit) inAnother(file string) bool {
	for at := filepath.Dir(file); at != b.top && at != filepath.Dir(at); at = filepath.Dir(at) {
		if st, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			return st.IsDir()
		}
	}
	return false
}
