//go:build docker

package main

import (
	"cmp"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScriptsOnEngine uses the program as people do, with the engine that DOCKER_HOST names.
func TestScriptsOnEngine(t *testing.T) {
	p := scriptParams("testdata/script/docker", cmp.Or(os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock"))
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		e.Setenv("IMAGE", testImage())
		return setup(e)
	}
	testscript.Run(t, p)
}
