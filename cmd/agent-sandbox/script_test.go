package main

import (
	"errors"
	"flag"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runnertest"
)

var update = flag.Bool("update", false, "rewrite what the scripts compare with")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"agent-sandbox": main, "gh": ghMain})
}

// TestScripts uses the program as people do, without an engine.
func TestScripts(t *testing.T) {
	testscript.Run(t, scriptParams("testdata/script", "unix:///nowhere/docker.sock"))
}

// scriptParams are those of the scripts in dir. Each script is a user of its own.
func scriptParams(dir, engine string) testscript.Params {
	return testscript.Params{
		Dir:           dir,
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			for name, value := range map[string]string{
				"DOCKER_HOST":     engine,
				"HOME":            filepath.Join(e.WorkDir, "home"),
				"XDG_STATE_HOME":  filepath.Join(e.WorkDir, "state"),
				"XDG_CACHE_HOME":  filepath.Join(e.WorkDir, "cache"),
				"XDG_CONFIG_HOME": filepath.Join(e.WorkDir, "config"),
				"TZ":              "UTC",
				// The caller's repository and identity must not show through.
				"GIT_CONFIG_GLOBAL": filepath.Join(e.WorkDir, "gitconfig"),
				"GIT_CONFIG_SYSTEM": filepath.Join(e.WorkDir, "gitconfig-system"),
			} {
				e.Setenv(name, value)
			}
			e.Defer(func() {
				if err := checkManifests(filepath.Join(e.WorkDir, "state")); err != nil {
					e.T().Fatal(err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     scriptExits,
			"mkrun":     scriptMakeRun,
			"mkrefused": scriptMakeRefused,
			"damage":    scriptDamage,
		},
	}
}

// manifestSchema is the published schema.
var manifestSchema = sync.OnceValues(func() (*runnertest.Schema, error) { return runnertest.NewSchema(manifest.Schema()) })

// checkManifests holds every manifest that the runs of a test left against the schema.
func checkManifests(state string) error {
	schema, err := manifestSchema()
	if err == nil {
		_, err = schema.Manifests(state)
	}
	return err
}

// scriptExits is "exits STATUS COMMAND...": the exact status counts, not only whether it is zero.
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v: %v", args[1:], err)
	}
	if got != want {
		ts.Fatalf("%v: exit status %d, want %d", args[1:], got, want)
	}
}
