package runner

import (
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/engine"
)

func TestImageLockNames(t *testing.T) {
	a, b, c := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64), "sha256:"+strings.Repeat("c", 64)
	lock := ImageLock{Digests: []string{a, b}}
	for _, tt := range []struct {
		name string
		lock ImageLock
		img  engine.Image
		want bool
	}{
		{"by id", lock, engine.Image{ID: b}, true},
		{"by the digest of a manifest", lock, engine.Image{ID: c, Digests: []string{"example.org/x@" + a}}, true},
		{"another", lock, engine.Image{ID: c, Digests: []string{"example.org/x@" + c}}, false},
		{"a part of a digest", lock, engine.Image{ID: a[:70]}, false},
		{"no entry", ImageLock{}, engine.Image{ID: a}, false},
		{"no entry, no id", ImageLock{}, engine.Image{}, false},
	} {
		if got := tt.lock.names(tt.img); got != tt.want {
			t.Errorf("%s: names = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestImageLockReferences(t *testing.T) {
	lock := ImageLock{Digests: []string{"sha256:aa"}}
	for name, want := range map[string][]string{
		"agent:1":                   {"agent@sha256:aa", "sha256:aa"},
		"example.org:5000/agent":    {"example.org:5000/agent@sha256:aa", "sha256:aa"},
		"example.org:5000/agent:1":  {"example.org:5000/agent@sha256:aa", "sha256:aa"},
		"127.0.0.1:1/team/agent:v1": {"127.0.0.1:1/team/agent@sha256:aa", "sha256:aa"},
	} {
		if got := lock.references(name); !slices.Equal(got, want) {
			t.Errorf("references(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestPinned(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for reference, want := range map[string]bool{
		digest: true, "agent@" + digest: true, "example.org:5000/agent:1@" + digest: true,
		digest[:20]: false, "agent@" + digest[:20]: false, "agent:1": false, "agent": false, "": false, "@" + digest: false,
		"agent:" + digest: false, "sha256:" + strings.Repeat("g", 64): false, digest + "0": false, strings.ToUpper(digest): false,
	} {
		if got := pinned(reference); got != want {
			t.Errorf("pinned(%q) = %v, want %v", reference, got, want)
		}
	}
}
