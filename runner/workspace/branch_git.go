package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// gitCmd runs git so that nothing of a repository's or a user's configuration starts a program: no hooks, no
// fsmonitor, no filters, no helpers, no transport but local files, and nothing inherited that begins with GIT_.
type gitCmd struct {
	path  string // of the program
	home  string // a private directory with nothing in it but our own configuration
	dir   string // working directory
	repo  string // --git-dir; "" lets git find it from dir
	extra []string
	as    *IDs // run as this user; nil for ourselves
	asks  bool // read the user's own configuration: for questions about it alone
}

const (
	maxGitOutput = 256 << 20
	maxGitErrors = 8 << 10
	gitTimeout   = 10 * time.Minute
)

// ErrNoGit is in the error of CommitToBranch and FetchCommits when there is no git on the host.
var ErrNoGit = errors.New("git is not installed\nhint: install git, or use `agent-sandbox apply` without --branch")

// newGitCmd prepares git with home as its private directory, which exists.
func newGitCmd(home string) (*gitCmd, error) {
	path, err := exec.LookPath("git")
	if err != nil {
		return nil, ErrNoGit
	}
	// "*": whoever asks for a branch in this repository trusts it as far as we use it.
	config := "[safe]\n\tdirectory = *\n"
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	return &gitCmd{path: path, home: home, dir: home}, nil
}

// hardening are settings that win over every configuration file.
func hardening() []string {
	settings := []string{
		"core.hooksPath=" + os.DevNull, "core.fsmonitor=false", "core.untrackedCache=false", "core.sshCommand=false", "core.askPass=false", "core.pager=cat",
		"core.attributesFile=" + os.DevNull, "core.logAllRefUpdates=true", "core.splitIndex=false", "index.sparse=false", "credential.helper=",
		"protocol.allow=never", "protocol.file.allow=always", "protocol.ext.allow=never", "fetch.fsckObjects=true", "transfer.fsckObjects=true",
		"fetch.recurseSubmodules=false", "submodule.recurse=false", "fetch.writeCommitGraph=false", "gc.auto=0", "maintenance.auto=false",
		"commit.gpgSign=false", "i18n.commitEncoding=UTF-8",
	}
	var args []string
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	return args
}

func (g *gitCmd) environ() []string {
	env := []string{
		"GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=file", "LC_ALL=C",
	}
	// What programs need to start at all, here and on Windows.
	pass := []string{"PATH", "SystemRoot", "TMPDIR", "TEMP", "TMP", "PATHEXT", "COMSPEC"}
	if g.asks {
		pass = append(pass, "HOME", "XDG_CONFIG_HOME", "USERPROFILE")
	} else {
		env = append(env, "HOME="+g.home, "XDG_CONFIG_HOME="+g.home, "GIT_CONFIG_GLOBAL="+filepath.Join(g.home, ".gitconfig"), "GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1")
	}
	for _, name := range pass {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, g.extra...)
}

// with returns a copy that has more environment variables.
func (g *gitCmd) with(env ...string) *gitCmd {
	c := *g
	c.extra = append(slices.Clone(g.extra), env...)
	return &c
}

// in returns a copy that works on another repository.
func (g *gitCmd) in(dir, repo string) *gitCmd {
	c := *g
	c.dir, c.repo = dir, repo
	return &c
}

// gitError is a git command that failed.
type gitError struct {
	args   []string
	status int
	stderr string
}

func (e *gitError) Error() string {
	return fmt.Sprintf("git %s: exit status %d: %s", e.args[0], e.status, printable(strings.ReplaceAll(strings.TrimSpace(e.stderr), "\n", "; ")))
}

// run gives what git prints, at most maxGitOutput bytes. A failing command returns a *gitError.
func (g *gitCmd) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	var out bytes.Buffer
	err := g.pipe(ctx, stdin, &limitWriter{w: &out, left: maxGitOutput}, args...)
	return out.String(), err
}

// line is run for a command that prints one line.
func (g *gitCmd) line(ctx context.Context, args ...string) (string, error) {
	out, err := g.run(ctx, nil, args...)
	return strings.TrimSuffix(out, "\n"), err
}

func (g *gitCmd) pipe(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	all := hardening()
	if g.repo != "" {
		all = append(all, "--git-dir="+g.repo)
	}
	stderr := &tailWriter{max: maxGitErrors}
	cmd := exec.CommandContext(ctx, g.path, append(all, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdin = g.dir, g.environ(), stdin
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = 5 * time.Second
	if g.as != nil {
		runAs(cmd, *g.as)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return &gitError{args: args, status: exit.ExitCode(), stderr: string(stderr.buf)}
	}
	if err != nil {
		return fmt.Errorf("git %s: %w", args[0], errors.Join(err, ctx.Err()))
	}
	return nil
}

// isExit reports whether git ended with this status.
func isExit(err error, status int) bool {
	var e *gitError
	return errors.As(err, &e) && e.status == status
}

// limitWriter fails after so many bytes.
type limitWriter struct {
	w    io.Writer
	left int
}

func (l *limitWriter) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("more than %d bytes of output", maxGitOutput)
	}
	return l.w.Write(p)
}

// tailWriter keeps the last bytes.
type tailWriter struct {
	buf []byte
	max int
}

func (t *tailWriter) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}
