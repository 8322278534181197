package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/image"
)

// TestWish: what a policy's image means, and what the lock calls it.
func TestWish(t *testing.T) {
	project := t.TempDir()
	for name, text := range map[string]string{
		"Dockerfile": "FROM a:1 AS dev\nFROM a:2\n", "dev/Containerfile": "ARG V\nFROM b:$V AS one\nCOPY x /x\n", "x": "of the context",
		"dev/devcontainer.json": "// comment\n{\"build\": {\"dockerfile\": \"Containerfile\", \"context\": \"..\", \"target\": \"one\", \"args\": {\"V\": \"7\"},},}",
		"named.json":            `{"image": "c:1"}`,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(project, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(project, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		policy, key string
		bases       []string // empty: it is not built
		files       int      // of the context
	}{
		{"", defaultImage, nil, 0},
		{"image: debian:13\nagent: claude\n", "debian:13", nil, 0},
		{"agent: claude\n", "from:" + defaultImage + "+claude", []string{defaultImage}, 0},
		{"agent: shell\n", defaultImage, nil, 0},
		{"image: {agents: [opencode, claude]}\n", "from:" + defaultImage + "+claude+opencode", []string{defaultImage}, 0},
		{"image: {from: \"d:1\", agents: [codex]}\n", "from:d:1+codex", []string{"d:1"}, 0},
		{"image: {build: Dockerfile}\nagent: claude\n", "build:Dockerfile", []string{"a:1", "a:2"}, 0},
		{"image: {build: Dockerfile, target: dev, agents: [codex]}\n", "build:Dockerfile#dev+codex", []string{"a:1"}, 0},
		{"image: {build: dev/devcontainer.json}\n", "build:dev/devcontainer.json", []string{"b:7"}, 1},
		{"image: {build: named.json}\n", "build:named.json", []string{"c:1"}, 0},
	} {
		p, err := policy.Load("policy.yaml", []byte("version: 1\n"+tt.policy))
		if err != nil {
			t.Fatal(err)
		}
		w := wishOf(p)
		if got := w.key(project); got != tt.key || w.isBuilt() != (len(tt.bases) > 0) {
			t.Errorf("%q: the lock calls it %q, built %v; want %q", tt.policy, got, w.isBuilt(), tt.key)
		}
		if !w.isBuilt() {
			continue
		}
		src, err := w.source(p, project, &image.Lock{})
		if err != nil {
			t.Fatal(err)
		}
		in, err := image.ReadInputs(src)
		if err != nil {
			t.Fatal(err)
		}
		bases, err := in.Dockerfile.Bases(in.Args)
		if err != nil || !slices.Equal(bases, tt.bases) || len(in.Files) != tt.files {
			t.Errorf("%q: it stands on %q with %d files, %v; want %q and %d", tt.policy, bases, len(in.Files), err, tt.bases, tt.files)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
	of := wish{base: defaultImage, agents: []string{"claude"}}
	if got, err := of.with(imageFlags{agents: []string{"codex", "claude"}}); err != nil || got.key(project) != "from:"+defaultImage+"+claude+codex" {
		t.Errorf("--agent codex: %+v, %v", got, err)
	}
	if got, err := of.with(imageFlags{file: filepath.Join(project, "Dockerfile"), agents: []string{"codex"}}); err != nil || got.key(project) != "build:Dockerfile+codex" {
		t.Errorf("--file: %+v, %v; want the flags' agents alone", got, err)
	}
	for _, f := range []imageFlags{{}, {target: "dev"}} {
		if _, err := (wish{base: defaultImage}).with(f); err == nil || !strings.Contains(err.Error(), "hint: ") {
			t.Errorf("%+v of a policy that builds nothing: %v, want an error with the mend", f, err)
		}
	}
}
