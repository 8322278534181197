package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func hexDigest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func someLock() *Lock {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	return &Lock{Version: 1, Images: map[string]Entry{
		"example.org/agent:1": {Digest: hexDigest("a"), ID: hexDigest("b"), Platform: "linux/amd64", From: FromRegistry, Resolved: at},
		"build:Dockerfile": {
			Digest: hexDigest("c"), ID: hexDigest("d"), Platform: "linux/arm64", From: FromBuild, Resolved: at, SBOM: hexDigest("e"),
			Agents: map[string]string{"claude": "2.0.1"},
			Build: &Recipe{
				Dockerfile: hexDigest("1"), Context: hexDigest("2"), Inputs: hexDigest("3"), Epoch: 1754697600,
				Args: map[string]string{"A": "<b>"}, Agents: map[string]AgentLock{"claude": {"2.0.1", hexDigest("5")}}, Bases: []Base{{"debian:13", hexDigest("4")}},
			},
		},
	}}
}

func TestLockRoundTrip(t *testing.T) {
	name := filepath.Join(t.TempDir(), LockFile)
	want := someLock()
	if err := want.WriteFile(name); err != nil {
		t.Fatal(err)
	}
	got, err := ReadLock(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the lock that was written and read (-want +got):\n%s", diff)
	}
	if string(got.JSON()) != string(want.JSON()) {
		t.Error("the same lock has two texts")
	}
	left, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the lock there is %v, %v", left, err)
	}
}

// TestLockTampered alters the text of a lock. What is overlooked in it would not be enforced.
func TestLockTampered(t *testing.T) {
	text := string(someLock().JSON())
	for _, tt := range []struct{ name, old, new, want string }{
		{"a digit", strings.Repeat("a", 64), strings.Repeat("a", 63) + "g", "digest: \"sha256:a"},
		{"shorter", strings.Repeat("c", 64), strings.Repeat("c", 63), "digest: "},
		{"another hash", hexDigest("a"), "md5:" + strings.Repeat("a", 32), "digest: "},
		{"unknown key", `"platform"`, `"plattform"`, "unknown field"},
		{"twice", `"version": 1,`, "\"version\": 1,\n  \"version\": 1,", "there twice"},
		{"version", `"version": 1`, `"version": 2`, "version 2"},
		{"type", `"version": 1`, `"version": "1"`, "cannot unmarshal"},
		{"platform", "linux/amd64", "windows/amd64", "platform: "},
		{"an agent's version", `"version": "2.0.1"`, `"version": "2.0.2"`, "agents.claude: "},
		{"an agent's lock file", hexDigest("5"), "5", "build.agents.claude.lock: "},
		{"build without a recipe", "build:Dockerfile", "Dockerfile", "build: "},
		{"cut off", "}\n", "", "unexpected EOF"},
		{"more after it", "\n}\n", "\n}\n{}\n", "follows the end"},
		{"empty", text, "", "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			altered := strings.Replace(text, tt.old, tt.new, 1)
			if tt.name == "cut off" || tt.name == "more after it" {
				altered = text[:strings.LastIndex(text, tt.old)] + tt.new
			}
			_, err := ParseLock("the.lock", []byte(altered))
			var wrong *LockError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("ParseLock = %v, want a LockError with %q", err, tt.want)
			}
			for _, must := range []string{"the.lock:", "hint: "} {
				if !strings.Contains(err.Error(), must) {
					t.Errorf("%q has no %q", err, must)
				}
			}
		})
	}
	if _, err := ParseLock("the.lock", []byte(strings.Repeat("[", 100))); err == nil {
		t.Error("a deep nest is taken")
	}
	if _, err := ParseLock("the.lock", make([]byte, MaxLock+1)); err == nil {
		t.Error("a huge file is taken")
	}
}

func TestLockErrorPlace(t *testing.T) {
	text := "{\n  \"version\": 1,\n  \"images\": {},\n  \"other\": 1\n}\n"
	_, err := ParseLock("the.lock", []byte(text))
	if err == nil || !strings.HasPrefix(err.Error(), "the.lock:4:3:") {
		t.Errorf("ParseLock = %v, want the place of the key", err)
	}
}
