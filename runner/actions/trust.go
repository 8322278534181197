package actions

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // git's own object names
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// PolicyCommit is the commit that the policy has to be read from, since whoever wrote the job's files may not say what they are allowed to
// do; empty for the files themselves. A pull request is governed by its base.
func (j *Job) PolicyCommit() (string, error) {
	p := j.Payload
	commit := ""
	switch {
	case p.PullRequest != nil:
		commit = p.PullRequest.Base.SHA
	case p.MergeGroup != nil:
		commit = p.MergeGroup.BaseSHA
	case p.Issue != nil && p.Issue.PullRequest != nil, p.WorkflowRun != nil:
		commit = j.SHA // of the default branch
	case strings.HasPrefix(j.Event, "pull_request"), j.Event == "merge_group", j.Event == "workflow_run":
		return "", fmt.Errorf("the payload of the event %s does not name the base", j.Event)
	default:
		return "", nil
	}
	if !regexp.MustCompile(`^[0-9a-f]{40}$`).MatchString(commit) {
		return "", fmt.Errorf("the payload of the event %s names no commit as the base: %q", j.Event, commit)
	}
	return commit, nil
}

// Foreign says why the job's files may be somebody's who may not write to the repository; empty if they aren't.
func (j *Job) Foreign() string {
	pr, after := j.Payload.PullRequest, j.Payload.WorkflowRun
	switch {
	case j.Event == "pull_request_target":
		return "the event pull_request_target"
	case after != nil && strings.HasPrefix(after.Event, "pull_request") && (after.HeadRepository == nil || after.HeadRepository.ID != j.Payload.Repository.ID):
		return "what follows a pull request from a fork"
	case pr == nil:
		return ""
	case pr.Head.Repo == nil || pr.Base.Repo == nil || pr.Head.Repo.ID != pr.Base.Repo.ID:
		return "a pull request from a fork"
	}
	return ""
}

// ErrNotInCommit tells that a commit has no such file.
var ErrNotInCommit = errors.New("the commit has no such file")

// maxObject bounds a git object that is read, in bytes.
const maxObject = 16 << 20

// ReadCommitted reads a file as a commit has it, from the object store of the repository at dir. Each object on the way is hashed: whatever
// was done to that store, the file is the one that the commit names. Nothing of the repository's configuration is run.
func ReadCommitted(ctx context.Context, dir, commit, name string) ([]byte, error) {
	o := objects{dir: dir}
	body, err := o.read(ctx, commit, "commit")
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(body, []byte("\n"))
	id, ok := strings.CutPrefix(string(line), "tree ")
	if !ok {
		return nil, fmt.Errorf("commit %s names no tree", commit)
	}
	parts := strings.Split(filepath.ToSlash(name), "/")
	for i, part := range parts {
		tree, err := o.read(ctx, id, "tree")
		if err != nil {
			return nil, err
		}
		mode, entry := findEntry(tree, part)
		last := i == len(parts)-1
		switch {
		case entry == "" || !last && mode != "40000":
			return nil, ErrNotInCommit
		case last && mode != "100644" && mode != "100755":
			return nil, fmt.Errorf("%s in commit %s is no file", name, commit)
		}
		id = entry
	}
	return o.read(ctx, id, "blob")
}

// findEntry looks an entry of a tree up: "<mode> <name>\0<20 bytes>" each.
func findEntry(tree []byte, name string) (mode, id string) {
	for len(tree) > 0 {
		head, rest, ok := bytes.Cut(tree, []byte{0})
		if !ok || len(rest) < sha1.Size {
			return "", ""
		}
		m, n, _ := strings.Cut(string(head), " ")
		if n == name {
			return m, hex.EncodeToString(rest[:sha1.Size])
		}
		tree = rest[sha1.Size:]
	}
	return "", ""
}

// objects reads the object store of a repository.
type objects struct{ dir string }

const objectTimeout = 30 * time.Second

func (o objects) read(ctx context.Context, id, kind string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, objectTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath="+os.DevNull, "cat-file", kind, id)
	cmd.Dir = o.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.DevNull, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1",
		"GIT_ALLOW_PROTOCOL=none", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("read the %s %s: %w", kind, id, err)
	}
	body, err := io.ReadAll(io.LimitReader(out, maxObject+1))
	_, _ = io.Copy(io.Discard, out)
	if err = errors.Join(err, cmd.Wait()); err != nil {
		return nil, fmt.Errorf("the repository does not have the %s %s: %w", kind, id, err)
	}
	h := sha1.New() //nolint:gosec // git's own object names
	fmt.Fprintf(h, "%s %d\x00", kind, len(body))
	h.Write(body)
	if hex.EncodeToString(h.Sum(nil)) != id {
		return nil, fmt.Errorf("the repository's %s %s is another one than it says", kind, id)
	}
	return body, nil
}

// storedCredential matches what actions/checkout, and people, leave in a repository's configuration. A name alone is a part of many addresses of
// ssh, and nothing secret.
var storedCredential = regexp.MustCompile(`(?i)extraheader|https?://[^/\s@]+@|://[^/\s@:]*:[^/\s@]+@`)

// maxGitConfig bounds a repository's configuration in bytes; a longer one is refused unread.
const maxGitConfig = 1 << 20

// CheckCheckout refuses a project in which the configuration of a repository holds a credential, which the agent could read: that of the project,
// of a submodule, or of another checkout that the workflow has beside.
func CheckCheckout(project string) error {
	return fs.WalkDir(os.DirFS(project), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist):
			return nil // what is closed to us is closed to the agent
		case err != nil:
			return fmt.Errorf("look for stored credentials: %w", err)
		case d.Name() == ".git" && d.Type()&fs.ModeSymlink != 0: // it is walked into by no name with .git in it
			return errors.Join(checkGitConfig(project, name+"/config"), checkGitConfig(project, name+"/config.worktree"))
		case (d.Name() == "config" || d.Name() == "config.worktree") && slices.Contains(strings.Split(name, "/"), ".git"):
			return checkGitConfig(project, name)
		}
		return nil
	})
}

// checkGitConfig looks into one file of the project.
func checkGitConfig(project, name string) error {
	file := filepath.Join(project, filepath.FromSlash(name))
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return nil //nolint:nilerr // nothing that can be read, to the agent neither
	}
	f, err := os.Open(file)
	if err != nil {
		return nil //nolint:nilerr // closed to us
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxGitConfig+1))
	switch {
	case err != nil:
		return fmt.Errorf("look for stored credentials: %w", err)
	case len(b) > maxGitConfig:
		return fmt.Errorf("%s is longer than %d bytes, so nobody knows whether a checkout left a credential in it", name, maxGitConfig)
	case storedCredential.Match(b):
		return fmt.Errorf("a checkout left a credential in %s, which the agent would see\n"+
			"hint: add `persist-credentials: false` under `with:` of each actions/checkout", name)
	}
	return nil
}
