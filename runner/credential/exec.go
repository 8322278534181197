package credential

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/org/agent-sandbox/runner/secret"
)

const (
	// execTimeout bounds a command. A password manager may ask its owner.
	execTimeout = 60 * time.Second
	// maxStderr is how much of a command's complaint is kept, in bytes.
	maxStderr = 1 << 10
)

// command takes a secret from the standard output of a program, such as `gh auth token` or `op read`. No shell is involved.
func (cfg Config) command(ctx context.Context, line string) (secret.Value, error) {
	argv, err := splitCommand(line)
	if err != nil {
		return secret.Value{}, err
	}
	value, err := cfg.Output(ctx, argv, nil)
	if err == nil && value.IsEmpty() {
		err = refuse("run it yourself", "the command %s printed nothing", argv[0])
	}
	return value, err
}

// Output runs a program and returns what it prints, which may be a secret, without the line break at its end. It has this process'
// environment and more. Its directory is not the project: a tool reads settings where it is started, and those of a project may be anybody's.
func (cfg Config) Output(ctx context.Context, argv, more []string) (secret.Value, error) {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return secret.Value{}, refuse("install it, or write its whole path", "the command %q can't be started: %v", argv[0], errors.Unwrap(err))
	}
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	stdout, stderr := &clipped{limit: maxFile}, &clipped{limit: maxStderr}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Dir, cmd.Stdout, cmd.Stderr = cfg.home(), stdout, stderr
	cmd.Env = append(cmd.Environ(), more...)
	cmd.WaitDelay = 2 * time.Second // a child of its may hold the pipes
	ownGroup(cmd)
	err = cmd.Run()
	text := strings.TrimRight(stdout.String(), "\r\n")
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return secret.Value{}, refuse("run it yourself to see what it waits for", "the command %s took longer than %s", argv[0], execTimeout)
	case ctx.Err() != nil:
		return secret.Value{}, context.Cause(ctx)
	case err != nil:
		return secret.Value{}, refuse("run it yourself", "the command %s failed: %v%s", argv[0], err, complaint(stderr, text))
	case stdout.over:
		return secret.Value{}, refuse("", "the command %s printed more than %d bytes", argv[0], maxFile)
	}
	return secret.New(text), nil
}

// home is a directory that is the caller's, or else everybody's.
func (cfg Config) home() string {
	if home, ok := cfg.LookupEnv("HOME"); ok {
		return home
	}
	return os.TempDir()
}

// complaint is what a program said on stderr, without the secret that it may have repeated there.
func complaint(stderr *clipped, text string) string {
	said := strings.TrimSpace(stderr.String())
	for _, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); len(line) >= 4 {
			said = strings.ReplaceAll(said, line, secret.Value{}.String())
		}
	}
	if said == "" {
		return ""
	}
	return ": " + strconv.QuoteToASCII(said)
}

// clipped keeps the first bytes written to it, and notes that there were more.
type clipped struct {
	limit int
	over  bool
	kept  bytes.Buffer // not embedded: its ReadFrom would get past the limit
}

func (c *clipped) String() string { return c.kept.String() }

func (c *clipped) Write(p []byte) (int, error) {
	room := c.limit - c.kept.Len()
	c.over = c.over || len(p) > room
	c.kept.Write(p[:min(len(p), room)])
	return len(p), nil
}

// splitCommand takes a command line apart as a shell would, as far as quotes and backslashes go. What else a shell has a meaning
// for is refused, since it would not be given it.
func splitCommand(line string) ([]string, error) {
	var argv []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			inWord, escaped = true, true
		case c == quote:
			quote = 0
		case quote != 0:
			if quote == '"' && (c == '$' || c == '`') {
				return nil, noShell(c)
			}
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t' || c == '\n':
			if inWord {
				argv = append(argv, word.String())
				word.Reset()
			}
			inWord = false
		case strings.ContainsRune("|&;<>()$`*?[]#~!{}", c):
			return nil, noShell(c)
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, refuse("", "the command ends within quotes")
	}
	if inWord {
		argv = append(argv, word.String())
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, refuse("", "the command is empty")
	}
	return argv, nil
}

func noShell(c rune) error {
	return refuse("put it into single quotes, or all of it into a script", "the command is not given to a shell, so %q would mean itself", c)
}
