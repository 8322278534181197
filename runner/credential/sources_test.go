package credential

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// value resolves one credential and gives its secret.
func value(ctx context.Context, t *testing.T, from string, change func(*Config)) (string, error) {
	t.Helper()
	p, cfg := load(t, "credentials:\n  anthropic: {from: '"+strings.ReplaceAll(from, "'", "''")+"'}\n", nil)
	home := t.TempDir()
	cfg.LookupEnv = func(string) (string, bool) { return home, true }
	if change != nil {
		change(&cfg)
	}
	set, err := Resolve(ctx, p.Credentials, cfg)
	if err != nil {
		return "", err
	}
	v, err := set.Grants[0].Value(ctx)
	return v.Reveal(), err
}

func secretFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFile(t *testing.T) {
	name := secretFile(t, modelKey+"\n", 0o600)
	for from, change := range map[string]func(*Config){
		"file:" + filepath.ToSlash(name): nil,
		"file:~/key":                     func(c *Config) { c.LookupEnv = func(string) (string, bool) { return filepath.Dir(name), true } },
		"file:./key":                     func(c *Config) { c.Dir = filepath.Dir(name) },
		"file:/" + "/" + strings.TrimPrefix(filepath.ToSlash(name), "/"): func(c *Config) { c.Visible = func(string) bool { return false } },
	} {
		if got, err := value(t.Context(), t, from, change); got != modelKey || err != nil {
			t.Errorf("%s: %v", from, err)
		}
	}
}

func TestFileRefuses(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes of files are not Windows'")
	}
	good := secretFile(t, modelKey, 0o600)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		file, want string
		visible    func(string) bool
	}{
		"none":               {file: good + "x", want: "does not exist"},
		"a directory":        {file: filepath.Dir(good), want: "is no ordinary file"},
		"an empty one":       {file: secretFile(t, "\n", 0o600), want: "is empty"},
		"a large one":        {file: secretFile(t, strings.Repeat("x", maxFile+1), 0o600), want: "has more than"},
		"for everybody":      {file: secretFile(t, modelKey, 0o604), want: "chmod go-rwx"},
		"everybody's":        {file: secretFile(t, modelKey, 0o602), want: "chmod go-rwx"},
		"the agent's":        {file: good, want: "the agent can read the file", visible: func(p string) bool { return p == good }},
		"a link to such":     {file: link, want: "the agent can read the file", visible: func(p string) bool { return p == good }},
		"one that is hidden": {file: good, visible: func(string) bool { return false }},
	} {
		_, err := value(t.Context(), t, "file:"+tt.file, func(c *Config) { c.Visible = tt.visible })
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), modelKey) {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}

// script is a program that does this.
func script(t *testing.T, text string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the programs are scripts of a shell")
	}
	name := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestExec(t *testing.T) {
	tool := script(t, `[ "$1 $2" = "a b c" ] && [ "$(pwd)" != / ] && echo `+modelKey)
	if got, err := value(t.Context(), t, `exec:`+tool+` 'a b' "c"`, nil); got != modelKey || err != nil {
		t.Errorf("%v", err)
	}
	never := filepath.Join(t.TempDir(), "started")
	if _, err := value(t.Context(), t, `exec:`+script(t, "touch "+never), func(c *Config) { c.Dry = true }); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(never); err == nil {
		t.Error("a dry run has started the command")
	}
}

func TestExecRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ line, want string }{
		"no program":        {"/no/such/tool", `the command "/no/such/tool" can't be started`},
		"a failure":         {script(t, "echo "+modelKey+"; echo key "+modelKey+" expired >&2; exit 3"), `exit status 3: "key [redacted] expired"`},
		"nothing":           {script(t, "exit 0"), "printed nothing"},
		"too much":          {script(t, "head -c 100000 /dev/zero | tr '\\0' x"), "printed more than"},
		"a pipe":            {"tool | cat", "not given to a shell"},
		"a variable":        {`tool "$HOME"`, "not given to a shell"},
		"an open quote":     {"tool 'x", "ends within quotes"},
		"quotes of nothing": {"''", "the command is empty"},
	} {
		_, err := value(t.Context(), t, "exec:"+tt.line, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), modelKey) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestExecCancelled: what the command has started ends with it.
func TestExecCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pid")
	tool := script(t, "sleep 600 & echo $! > "+pipe+".new; mv "+pipe+".new "+pipe+"; wait")
	done := make(chan error, 1)
	go func() { _, err := value(ctx, t, "exec:"+tool, nil); done <- err }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := os.Stat(pipe); err == nil {
			break
		}
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a cancelled command gave a secret")
	}
}

func TestSplitCommand(t *testing.T) {
	for line, want := range map[string][]string{
		"gh auth token":            {"gh", "auth", "token"},
		`  op read 'op://a b/c'  `: {"op", "read", "op://a b/c"},
		`a "b\"c" d\ e ''`:         {"a", `b"c`, "d e", ""},
		`a'b'"c" '$(x)|;'`:         {"abc", "$(x)|;"},
	} {
		if got, err := splitCommand(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("splitCommand(%q) = %q, %v; want %q", line, got, err, want)
		}
	}
}
