package runner

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/org/agent-sandbox/runner/event"
)

// Bounds of what is read to tell a dirty project from another.
const (
	maxDirtyFiles = 10_000
	maxDirtyBytes = 256 << 20
	sourceTimeout = 20 * time.Second
)

// look begins to look at what the record says of the source and of this program. Where the agent can't change the project that begins
// when the agent does, so that nobody waits for the agent longer; the end of the run waits for it.
func (r *run) look(ctx context.Context) {
	r.lookOnce.Do(func() {
		ctx := context.WithoutCancel(ctx)
		r.looked.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
			defer cancel()
			h := r.head
			if h == (head{}) { // the run did not get that far
				h = readHead(ctx, r.cfg.Project)
			}
			r.rec.Emit(sourceState(ctx, r.cfg.Project, h))
		})
		r.looked.Go(func() { r.rec.Emit(identifyRunner()) })
	})
}

// identifyRunner is the digest of this program.
func identifyRunner() event.RunnerIdentified {
	name := "/proc/self/exe" // also when the file was replaced meanwhile
	if runtime.GOOS != "linux" {
		var err error
		if name, err = os.Executable(); err != nil {
			return event.RunnerIdentified{Detail: err.Error()}
		}
	}
	sum, err := fileDigest(name)
	if err != nil {
		return event.RunnerIdentified{Detail: err.Error()}
	}
	return event.RunnerIdentified{SHA256: sum}
}

// SourceState asks git about the project. Only a project that the agent can't have changed is asked about: its configuration may name
// programs to be run.
func SourceState(ctx context.Context, project string) event.SourceState {
	return sourceState(ctx, project, readHead(ctx, project))
}

func sourceState(ctx context.Context, project string, h head) event.SourceState {
	s := event.SourceState{Repositories: []event.SourceRepository{}}
	if remote, ok := sourceRepository(askGit(ctx, project, "config", "--get", "remote.origin.url")); ok {
		s.Repositories = append(s.Repositories, remote)
	}
	if h.commit == "" {
		return s
	}
	s.Commit, s.Ref = h.commit, h.ref
	d, err := dirtyState(ctx, project)
	if err != nil {
		s.Detail = err.Error()
		return s
	}
	dirty := d.files > 0
	s.Dirty, s.DirtyFiles = &dirty, d.files
	if dirty {
		s.DirtySHA256 = hex.EncodeToString(d.sum.Sum(nil))
	}
	return s
}

// sourceRepository takes user, password and query off a remote's address. A path of this machine is nobody's business.
func sourceRepository(remote string) (event.SourceRepository, bool) {
	host, path := "", ""
	if u, err := url.Parse(remote); err == nil && u.Host != "" {
		u.User, u.RawQuery, u.Fragment = nil, "", ""
		remote, host, path = u.String(), u.Host, u.Path
	} else if before, after, ok := strings.Cut(remote, ":"); ok && !strings.HasPrefix(after, "//") && !strings.ContainsAny(before, `/\\`) && len(before) > 1 {
		_, host, ok = strings.Cut(before, "@") // git's short form, user@host:path
		if !ok {
			host = before
		}
		path, remote = after, host+":"+after
	}
	if host == "" {
		return event.SourceRepository{}, false
	}
	name := strings.TrimSuffix(strings.Trim(path, "/"), ".git")
	if strings.Count(name, "/") != 1 {
		name = ""
	}
	return event.SourceRepository{Name: name, URL: remote}, true
}

// dirty is what differs from the commit.
type dirty struct {
	files int
	left  int64 // bytes that may still be read
	sum   hash.Hash
}

// dirtyState lists what differs from the commit, and takes the digests of its contents.
func dirtyState(ctx context.Context, project string) (dirty, error) {
	d := dirty{left: maxDirtyBytes, sum: sha256.New()}
	cmd := exec.CommandContext(ctx, "git", "-C", project, "-c", "core.fsmonitor=false", "-c", "core.hooksPath="+os.DevNull,
		"status", "--porcelain=v2", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=all", "--", ".")
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		return d, fmt.Errorf("git status: %w", cmp.Or(ctx.Err(), err))
	}
	root, err := os.OpenRoot(project)
	if err != nil {
		return d, err
	}
	defer root.Close()
	top := "" // paths are relative to the repository
	if len(out) > 0 {
		top = askGit(ctx, project, "rev-parse", "--show-prefix")
	}
	for line := range bytes.SplitSeq(bytes.TrimSuffix(out, []byte{0}), []byte{0}) {
		if len(line) == 0 {
			continue
		}
		if d.files++; d.files > maxDirtyFiles {
			return d, fmt.Errorf("more than %d files differ from the commit", maxDirtyFiles)
		}
		if err := d.add(root, string(line), top); err != nil {
			return d, err
		}
	}
	return d, nil
}

// add takes a line of git's list, and the file that it names.
func (d *dirty) add(root *os.Root, line, top string) error {
	const fields = 8 // before the path of a changed file (git-status(1), porcelain format version 2)
	name := strings.TrimPrefix(line, "? ")
	if name == line {
		parts := strings.SplitN(line, " ", fields+1)
		if line[0] == 'u' {
			parts = strings.SplitN(line, " ", fields+3)
		}
		name = parts[len(parts)-1]
	}
	content, err := d.digest(root, filepath.FromSlash(strings.TrimPrefix(name, top)))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.sum, "%s\x00%s\x00", line, content)
	return err
}

// digest is that of a file's contents, a link's target, or empty for what is not there.
func (d *dirty) digest(root *os.Root, name string) (string, error) {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case info.Mode()&fs.ModeSymlink != 0:
		return root.Readlink(name)
	case !info.Mode().IsRegular():
		return info.Mode().Type().String(), nil
	}
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, d.left+1))
	if d.left -= n; d.left < 0 {
		return "", fmt.Errorf("the files that differ from the commit have more than %d bytes", maxDirtyBytes)
	}
	return hex.EncodeToString(sum.Sum(nil)), err
}
