//go:build docker

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// strangerTimeout bounds what README has a stranger do; an image is built on the way.
const strangerTimeout = 8 * time.Minute

// readmeBlock is the commands of the one block in README that has these words, as they are there.
func readmeBlock(t *testing.T, words string) string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	for i, block := range strings.Split(string(b), "\n```") {
		if i%2 == 0 || !strings.Contains(block, words) {
			continue
		}
		if found != "" {
			t.Fatalf("README has two blocks with %q", words)
		}
		_, found, _ = strings.Cut(block, "\n") // after the language
	}
	if found == "" {
		t.Fatalf("README has no block with %q", words)
	}
	return found
}

// stranger is somebody who has a clone of the repository, built, and act, which has been told once what image stands for GitHub's runner.
type stranger struct {
	t   *testing.T
	dir string // of the clone and the project
	env []string
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	if _, err := actionImage(); err != nil { // act finds the layers of the same build
		t.Fatal(err)
	}
	act, err := actProgram()
	if err != nil {
		t.Fatal(err)
	}
	u := newUser(t)
	s := &stranger{t: t, dir: filepath.Dir(u.project)}
	if out, err := script("action-image", "--tree", filepath.Join(s.dir, "agent-sandbox")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	writeFile(t, filepath.Join(s.dir, ".config", "act", "actrc"), "-P ubuntu-24.04=agent-sandbox-base:trixie\n--pull=false\n--rm\n")
	s.env = append(u.env, "PATH="+strings.Join([]string{filepath.Dir(u.program), filepath.Dir(act), os.Getenv("PATH")}, ":"), "XDG_CONFIG_HOME="+filepath.Join(s.dir, ".config"),
		"GIT_AUTHOR_NAME=s", "GIT_AUTHOR_EMAIL=s@example.org", "GIT_COMMITTER_NAME=s", "GIT_COMMITTER_EMAIL=s@example.org")
	return s
}

// does runs commands in one shell, as they stand in README.
func (s *stranger) does(commands string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), strangerTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	cmd.Dir, cmd.Env, cmd.WaitDelay = s.dir, s.env, 5*time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v\n%s\n%s", err, commands, out)
	}
	return string(out)
}

// TestStranger follows README from nothing to a workflow that passes. act builds the action from the Dockerfile of the clone, in which only the
// defaults of the arguments are this machine's (.github/scripts/action-image), and runs what comes of it.
func TestStranger(t *testing.T) {
	if os.Getenv("DOCKER_HOST") != "" {
		t.Skip("what the Dockerfile is built on is in the machine's own engine alone")
	}
	commands := readmeBlock(t, "act workflow_dispatch")
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"nothing": {nil, []string{"Agents work in agent-sandbox"}}, // git log -1 shows the commit
		// The image is the one that the tests of the network have, so that none is built.
		"Node": {
			map[string]string{
				"package.json": `{"name": "greet", "version": "1.0.0", "scripts": {"test": "node --test"}}`, ".devcontainer.json": `{"image": "` + peersImage() + `"}`,
				"greet.test.js": "require('node:test')('greets', () => console.log('hello from the test'));\n",
			},
			[]string{"hello from the test", "# pass 1"},
		},
		// An image with Go in it is built, by init, and found by the workflow through the lock.
		"Go": {
			map[string]string{
				"go.mod": "module example.org/greet\n\ngo 1.24\n", "greet_test.go": "package greet\n\nimport \"testing\"\n\nfunc TestGreet(*testing.T) {}\n",
			},
			[]string{"ok  \texample.org/greet"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStranger(t)
			for file, text := range tt.files {
				writeFile(t, filepath.Join(s.dir, "my-project", file), text)
			}
			log := s.does(commands)
			wantLog(t, log, append(tt.want, "docker build -t act-org-agent-sandbox-v1-dockeraction", "::set-output:: outcome=success", "Job succeeded")...)
		})
	}
}
