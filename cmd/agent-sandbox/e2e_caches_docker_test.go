//go:build docker

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/manifest"
)

// fillCaches leaves a file in every cache, and beside what cargo downloads one that must not stay.
const fillCaches = `set -e; umask 077
for dir in "$npm_config_cache" "$PIP_CACHE_DIR" "$CARGO_HOME/registry"; do echo left >"$dir/kept"; done
mkdir "$GOCACHE" "$GOMODCACHE"; echo left >"$GOCACHE/kept"; echo left >"$GOMODCACHE/kept"; echo bad >"$CARGO_HOME/config.toml"`

// readCaches fails unless they are all there as they were left.
const readCaches = `set -e; ! test -e "$CARGO_HOME/config.toml"; echo mine >"$CARGO_HOME/mine"
cat "$npm_config_cache/kept" "$PIP_CACHE_DIR/kept" "$CARGO_HOME/registry/kept" "$GOCACHE/kept" "$GOMODCACHE/kept" | sort -u | grep -qx left`

// another is the same user with another project.
func (u *user) another(policy string) *user {
	u.t.Helper()
	other := *u
	other.project = filepath.Join(u.t.TempDir(), "project")
	if err := os.Mkdir(other.project, 0o755); err != nil {
		u.t.Fatal(err)
	}
	other.policy(policy)
	return &other
}

// caches are those that the program lists, as "KIND of PROJECT".
func (u *user) caches(args ...string) []string {
	u.t.Helper()
	r := u.finish(u.command(append([]string{"caches", "--json"}, args...)...))
	u.wantCode(r, 0)
	var list []engine.CacheState
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		u.t.Fatal(err)
	}
	names := []string{}
	for _, c := range list {
		names = append(names, c.Kind+" of "+c.Project)
	}
	return names
}

// wantCaches checks what the newest run's manifest says of caches.
func (u *user) wantCaches(isNew bool, kinds ...string) []manifest.Cache {
	u.t.Helper()
	have := u.manifestOf(event.Success, 0).Predicate.Isolation.Planned.Caches
	var got []string
	for _, c := range have {
		got = append(got, c.Kind)
		if c.New != isNew {
			u.t.Errorf("the cache %s is recorded as new: %v", c.Kind, c.New)
		}
	}
	if diff := cmp.Diff(got, kinds); diff != "" {
		u.t.Errorf("recorded caches (got, want): %s", diff)
	}
	return have
}

// prune is `caches prune`: what it removed, and what it left.
func (u *user) prune(args ...string) (removed, left []string) {
	u.t.Helper()
	r := u.finish(u.command(append([]string{"caches", "prune", "--json"}, args...)...))
	u.wantCode(r, 0)
	var report prunedCaches
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		u.t.Fatal(err)
	}
	for _, c := range report.Removed {
		removed = append(removed, c.Volume)
	}
	for _, c := range report.Left {
		left = append(left, c.Volume)
	}
	return removed, left
}

// TestCaches: two runs of a project share what its policy keeps; no other project, kind or user does; prune removes what is not in use.
func TestCaches(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	defer u.prune()
	all := []string{"cargo", "go", "npm", "pip"}
	policy := "caches: [npm, go, pip, cargo]\n"
	u.policy(policy)
	u.wantCode(u.sh(fillCaches), 0)
	kept := u.wantCaches(true, all...)
	u.wantCode(u.sh(readCaches), 0)
	u.wantCaches(false, all...)

	u.policy("caches: [npm]\n")
	u.wantCode(u.sh(`set -e; grep -qx left "$npm_config_cache/kept"; test "$(ls /var/cache/agent-sandbox)" = npm; test -z "$GOCACHE$PIP_CACHE_DIR$CARGO_HOME"`), 0)
	u.wantCaches(false, "npm")
	u.policy("")
	u.wantCode(u.sh(`! test -e /var/cache/agent-sandbox && test -z "$npm_config_cache"`), 0)
	if have := u.wantCaches(false); have != nil {
		t.Errorf("a run without caches is recorded with %+v", have)
	}

	other := u.another("caches: [npm]\n")
	u.wantCode(other.sh(`! test -e "$npm_config_cache/kept"`), 0)
	other.wantCaches(true, "npm")
	stranger := newUser(t) // with another state directory, on a project of the same path
	stranger.project = u.project
	defer stranger.prune()
	u.policy("caches: [npm]\n")
	u.wantCode(stranger.sh(`! test -e "$npm_config_cache/kept"`), 0)
	if list := u.caches(); len(list) != len(all)+1 || !slices.Contains(list, "npm of "+other.project) || !slices.Contains(list, "cargo of "+u.project) {
		t.Errorf("the caches are %q", list)
	}
	if list := u.caches("--workspace", other.project); len(list) != 1 {
		t.Errorf("the other project's caches are %q", list)
	}

	if removed, left := u.prune("--workspace", other.project, "--larger-than", "1GiB"); len(removed)+len(left) > 0 {
		t.Errorf("removed %q, left %q: none is that large", removed, left)
	}
	if removed, _ := u.prune("--workspace", u.project, "--larger-than", "2B", "--dry-run"); len(removed) != len(all) {
		t.Errorf("%q are larger than 2 bytes, want all", removed)
	}
	p := u.start("--", "sh", "-c", "echo ready; cat")
	p.line("ready")
	removed, left := u.prune("--workspace", u.project)
	if len(removed) != 3 || len(left) != 1 || !strings.Contains(left[0], "-npm-") {
		t.Errorf("removed %q, left %q: want all but the one in use", removed, left)
	}
	_ = p.stdin.Close()
	u.wantCode(p.wait(), 0)
	if list := u.caches(); len(list) != 2 {
		t.Errorf("the caches are %q, want one of each project", list)
	}
	u.foreignVolumes(kept)
}

// foreignVolumes checks that no volume of another make is used or removed, also not one with a cache's name.
func (u *user) foreignVolumes(kept []manifest.Cache) {
	u.t.Helper()
	npm := kept[slices.IndexFunc(kept, func(c manifest.Cache) bool { return c.Kind == "npm" })].Volume
	u.prune("--workspace", u.project)
	stray := fmt.Sprintf("agent-sandbox-cache-npm-%d", os.Getpid())
	for _, args := range [][]string{{npm}, {"--label", "agent-sandbox.cache=npm", "--label", "agent-sandbox=1", stray}} {
		docker(u.t, nil, append([]string{"volume", "create"}, args...)...)
		u.t.Cleanup(func() {
			docker(u.t, nil, "volume", "rm", args[len(args)-1]) // fails if it is not there
		})
	}
	r := u.sh("true")
	u.wantRefused(r, "is not one of agent-sandbox: "+npm)
	if removed, left := u.prune("--workspace", u.project); len(removed)+len(left) > 0 {
		u.t.Errorf("removed %q, left %q", removed, left)
	}
	if list := u.finish(u.command("caches", "--all", "--json")); strings.Contains(list.stdout, npm) || strings.Contains(list.stdout, stray) {
		u.t.Errorf("listed: %s", list.stdout)
	}
}

// TestCachesAfterKill: a runner that is killed leaves the cache, and nothing else.
func TestCachesAfterKill(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	defer u.prune()
	u.policy("caches: [npm]\n")
	mark := marker("caches")
	p := u.start("--", "sh", "-c", `echo left >"$npm_config_cache/kept"; echo ready; sleep 1000; true`, mark)
	p.line("ready")
	p.signal(syscall.SIGKILL)
	p.end()
	u.wantGone(mark)
	u.wantCode(u.sh(`grep -qx left "$npm_config_cache/kept"`), 0)
	u.wantCaches(false, "npm")
}

// TestCachesOfTools: where the tools themselves say that their caches are.
func TestCachesOfTools(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	if _, err := u.engine.Image(t.Context(), peersImage()); err != nil {
		t.Skipf("SKIPPED: no npm, Go and pip are asked: %v", err)
	}
	defer u.prune()
	u.policy("caches: [npm, go, pip]\n")
	r := u.run("--image", peersImage(), "--", "sh", "-c", "npm config get cache; go env GOCACHE GOMODCACHE; pip cache dir")
	u.wantCode(r, 0)
	const dir = "/var/cache/agent-sandbox/"
	if want := strings.Join([]string{dir + "npm", dir + "go/build", dir + "go/mod", dir + "pip", ""}, "\n"); r.stdout != want {
		t.Errorf("the tools have their caches at\n%s\nwant\n%s\nstderr: %s", r.stdout, want, r.stderr)
	}
}
