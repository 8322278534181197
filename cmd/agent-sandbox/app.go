package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/term"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/runs"
)

// app is what the commands share: the process' streams and environment. Nothing below cmd reads either.
type app struct {
	stdin, stdout, stderr *os.File
	lookupEnv             func(string) (string, bool)
}

func (a *app) env(name string) string {
	v, _ := a.lookupEnv(name)
	return v
}

// dir is an XDG base directory (XDG Base Directory Specification), or its default below the home directory.
func (a *app) dir(variable string, fallback ...string) (string, error) {
	if d := a.env(variable); filepath.IsAbs(d) {
		return filepath.Join(d, "agent-sandbox"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("neither %s nor a home directory is set: %w\nhint: set HOME; or XDG_STATE_HOME and XDG_CACHE_HOME, to directories of yours", variable, err)
	}
	return filepath.Join(append(append([]string{home}, fallback...), "agent-sandbox")...), nil
}

// store opens the runs' directory.
func (a *app) store() (*runs.Store, error) {
	state, err := a.dir("XDG_STATE_HOME", ".local", "state")
	if err != nil {
		return nil, err
	}
	return runs.Open(filepath.Join(state, "runs"))
}

// engineConfig names the engine as the docker command would choose it: DOCKER_HOST, else the current context.
func (a *app) engineConfig() (engine.Config, error) {
	cache, err := a.dir("XDG_CACHE_HOME", ".cache")
	if err != nil {
		return engine.Config{}, err
	}
	cfg := engine.Config{CacheDir: cache}
	if a.env("DOCKER_HOST") == "" {
		cfg.Host, err = a.contextHost()
	}
	return cfg, err
}

// contextHost is the address of docker's current context, empty for the default one. Docker keeps a context's
// description under the SHA-256 of its name.
func (a *app) contextHost() (string, error) {
	dir := a.env("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", nil //nolint:nilerr // no home, no contexts
		}
		dir = filepath.Join(home, ".docker")
	}
	name := a.env("DOCKER_CONTEXT")
	if name == "" {
		var config struct {
			CurrentContext string `json:"currentContext"`
		}
		_ = readJSON(filepath.Join(dir, "config.json"), &config)
		name = config.CurrentContext
	}
	if name == "" || name == "default" {
		return "", nil
	}
	sum := sha256.Sum256([]byte(name))
	var meta struct {
		Endpoints map[string]struct {
			Host string `json:"Host"`
		} `json:"Endpoints"`
	}
	_ = readJSON(filepath.Join(dir, "contexts", "meta", hex.EncodeToString(sum[:]), "meta.json"), &meta)
	if host := meta.Endpoints["docker"].Host; host != "" {
		return host, nil
	}
	return "", fmt.Errorf("docker's context %q is not there, or names no engine\nhint: `docker context ls` lists them; DOCKER_CONTEXT=default is this machine's own", name)
}

// maxEngineConfig bounds the files of docker's configuration: one with many registries and helpers has some kilobytes.
const maxEngineConfig = 1 << 20

func readJSON(name string, v any) error {
	b, err := readLimited(name, maxEngineConfig)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// policy loads the policy that governs a run in project: the named file, the project's own, or the default.
func (a *app) policy(file, project string) (*policy.Policy, error) {
	if file == "" {
		file = filepath.Join(project, policyFile)
		if !exists(file) {
			return policy.Default(), misnamed(project)
		}
	}
	src, err := readLimited(file, policy.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage("--policy: %w", err)
	}
	if err != nil {
		return nil, err
	}
	return policy.Load(displayPath(file), src)
}

// misnamed refuses a policy under a name that nobody reads: whoever wrote it believes that it holds.
func misnamed(project string) error {
	wrong := strings.TrimSuffix(policyFile, ".yaml") + ".yml"
	if !exists(filepath.Join(project, wrong)) {
		return nil
	}
	return usage("%s is not read: the policy's name is %s\nhint: mv %[1]s %[2]s", displayPath(filepath.Join(project, wrong)), displayPath(filepath.Join(project, policyFile)))
}

// displayPath is relative to the current directory if that is shorter.
func displayPath(name string) string {
	here, err := os.Getwd()
	if err != nil {
		return name
	}
	if rel, err := filepath.Rel(here, name); err == nil && len(rel) < len(name) {
		return rel
	}
	return name
}

// isTerminal tells whether f is a terminal that can be used for more than plain text.
func (a *app) isTerminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && (runtime.GOOS == "windows" || a.env("TERM") != "dumb")
}

// onScreen tells whether f is any terminal: what comes from an agent must be safe to show there.
func (a *app) onScreen(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// color tells whether f may be coloured (no-color.org).
func (a *app) color(f *os.File) bool {
	_, no := a.lookupEnv("NO_COLOR")
	return a.isTerminal(f) && !no
}
