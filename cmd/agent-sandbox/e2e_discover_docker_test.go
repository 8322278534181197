//go:build docker

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// toolsImage is the test image with tools that have a configuration of their own.
func toolsImage(t *testing.T) string {
	t.Helper()
	name, dir := imageName(t), t.TempDir()
	for file, content := range map[string]string{
		"npm":          "#!/bin/sh\necho '{\"registry\":\"https://u:hunter2@npm.example/\",\"@acme:registry\":\"https://acme.example/\"}'\n",
		"go":           "#!/bin/sh\necho https://goproxy.example,direct\necho sum.example\nip -o addr >&2\n",
		"ours.sources": "Types: deb\nURIs: http://mirror.example/os\nSuites: x\nComponents: main\n",
		"more.list":    "deb mirror+file:/etc/apt/mirrors.txt x main\n",
		"sources.list": "# of the base image: not ours\n",
		"mirrors.txt":  "https://second.example/os\n",
		"pip.conf":     "[global]\nindex-url = https://u:hunter2@pip.example/simple\n",
		"Dockerfile": "FROM " + testImage() + `
COPY npm go /usr/local/bin/
COPY ours.sources more.list /etc/apt/sources.list.d/
COPY mirrors.txt sources.list /etc/apt/
COPY pip.conf /etc/pip.conf
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	docker(t, nil, "build", "-q", "-t", name, dir)
	return name
}

// TestDiscoverInImage asks a real image, in a real container.
func TestDiscoverInImage(t *testing.T) {
	t.Parallel()
	u, image := newUser(t), toolsImage(t)
	hosts := func(bundle string, want ...string) {
		t.Helper()
		r := u.finish(u.command("policy", "bundles", bundle, "--json", "--image", image))
		u.wantCode(r, 0)
		var out struct {
			Found []struct {
				Host   string
				Port   int
				Source string
			}
		}
		if err := json.Unmarshal([]byte(r.stdout), &out); err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, f := range out.Found {
			got = append(got, f.Host+" "+f.Source)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q", bundle, got, want)
		}
		if strings.Contains(r.stdout+r.stderr, "hunter2") {
			t.Errorf("%s: a password is shown: %s%s", bundle, r.stdout, r.stderr)
		}
	}
	hosts("npm", "acme.example image: npm config list", "npm.example image: npm config list")
	hosts("go", "goproxy.example image: go env GOPROXY", "sum.example image: go env GOSUMDB")
	hosts("debian", "mirror.example image: /etc/apt/sources.list.d/ours.sources:2", "second.example image: /etc/apt/mirrors.txt:1")
	hosts("pypi", "pip.example image: /etc/pip.conf:2")
	u.write(".npmrc", "registry=https://mirror.example/\n", 0o644)
	hosts("npm", "acme.example image: npm config list", "mirror.example project: .npmrc:1")
}
