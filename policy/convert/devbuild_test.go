package convert

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDevBuild(t *testing.T) {
	for _, tt := range []struct {
		text string
		want DevBuild
	}{
		{`{"image": "debian:13"}`, DevBuild{Image: "debian:13"}},
		{`{"dockerFile": "D", "context": ".."}`, DevBuild{Dockerfile: "D", Context: ".."}},
		{
			"{ // comments\n\"build\": {\"dockerfile\": \"D\", \"target\": \"dev\", \"args\": {\"A\": \"b\"}, \"cacheFrom\": \"x\"}, \"features\": {}, \"mounts\": []}",
			DevBuild{Dockerfile: "D", Target: "dev", Args: map[string]string{"A": "b"}},
		},
	} {
		got, err := ParseDevBuild([]byte(tt.text))
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("ParseDevBuild(%s): %v (-want +got)\n%s", tt.text, err, diff)
		}
	}
}

// TestParseDevBuildRefused: what would make the image another one is said, never left out.
func TestParseDevBuildRefused(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`{"image": "debian:13", "features": {"ghcr.io/devcontainers/features/go:1": {}}}`, "features"},
		{`{"dockerComposeFile": "compose.yaml", "service": "app"}`, "dockerComposeFile"},
		{`{"build": {"dockerfile": "D", "options": ["--network=host"]}}`, "build.options"},
		{`{"build": {"dockerfile": "D", "args": {"A": "${localEnv:A}"}}}`, "depends on the machine"},
		{`{"build": {"dockerfile": "D", "args": {"A": 1}}}`, "build.args"},
		{`{"build": {"dockerfile": "/etc/D"}}`, "relative"},
		{`{"build": {"context": ".."}}`, "build.dockerfile is missing"},
		{`{"image": "${localEnv:IMAGE}"}`, "depends on the machine"},
		{`{"name": "x"}`, "neither"},
		{`[]`, "not JSON"},
	} {
		if got, err := ParseDevBuild([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseDevBuild(%s) = %+v, %v; want an error with %q", tt.text, got, err, tt.want)
		}
	}
}
