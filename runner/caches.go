package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// cacheDir is where caches are in a sandbox. Not in the home directory, which is the run's own.
const cacheDir = "/var/cache/agent-sandbox"

// CachePlan is a cache that the run finds as an earlier run has left it.
type CachePlan struct {
	Kind   string `json:"kind"`
	Volume string `json:"volume"`
	Target string `json:"target"`
	// For says whose it is: the path of a project, or a repository and a ref.
	For string `json:"for"`
	// New: there was none; this run is its first.
	New bool `json:"new"`

	cache engine.Cache
}

// cachePaths are where a kind's volume is mounted, what is memory around it, and the variables that lead its tools there.
type cachePaths struct {
	volume  string
	scratch string // empty: nothing
	env     [][2]string
}

func cachePathsOf(kind string) (cachePaths, bool) {
	dir := path.Join(cacheDir, kind)
	switch kind {
	case "npm":
		return cachePaths{volume: dir, env: [][2]string{{"npm_config_cache", dir}}}, true
	case "go":
		return cachePaths{volume: dir, env: [][2]string{{"GOCACHE", dir + "/build"}, {"GOMODCACHE", dir + "/mod"}}}, true
	case "pip":
		return cachePaths{volume: dir, env: [][2]string{{"PIP_CACHE_DIR", dir}}}, true
	case "cargo":
		// Cargo has no variable for what it downloads alone, and beside that are settings and credentials, which no run may leave the next.
		return cachePaths{volume: dir + "/registry", scratch: dir, env: [][2]string{{"CARGO_HOME", dir}}}, true
	}
	return cachePaths{}, false
}

// planCaches decides which caches there are, before the plan.
func (r *run) planCaches(ctx context.Context) error {
	r.caches = nil
	kinds := r.cfg.Policy.Caches
	if len(kinds) == 0 {
		return nil
	}
	owner, scope, why := r.cacheScope()
	if why != "" {
		if r.cacheless == "" {
			r.warn("the caches of the policy are left out: " + why)
		}
		r.cacheless = why
		return nil
	}
	for _, kind := range kinds {
		paths, ok := cachePathsOf(kind)
		if !ok {
			return fmt.Errorf("bug: no paths for the cache %q", kind)
		}
		name := engine.CacheName(kind, cacheKey(owner, scope, strconv.Itoa(r.ids.UID), strconv.Itoa(r.ids.GID)))
		c := engine.Cache{Volume: name, Kind: kind, Owner: owner, Project: event.Printable(scope)}
		there, err := r.engine.HasCache(ctx, c)
		if errors.Is(err, engine.ErrForeignVolume) {
			return &RefusedError{err.Error(), "somebody else made it: `docker volume rm " + name + "`, or remove `caches` from the policy"}
		}
		if err != nil {
			return err
		}
		r.caches = append(r.caches, CachePlan{Kind: kind, Volume: name, Target: paths.volume, For: c.Project, New: !there, cache: c})
	}
	return nil
}

// cacheKey is the same for those who share a cache. An agent with other ids could not use what is in it.
func cacheKey(parts ...string) string {
	b, _ := json.Marshal(parts) // strings always encode, and no two lists alike
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// cacheScope says whose caches the run has: those of the project, on this machine. In a CI job that would be no answer: jobs of every
// repository and of every pull request may have one path, and whoever opened a pull request could leave something for the others to find. So
// there it is the repository and the ref; and of the events that bring an outsider's words or code to the ref of the repository itself, none.
func (r *run) cacheScope() (owner, scope, why string) {
	i := r.cfg.Invocation
	if !r.cfg.CI && (i.Trigger == event.TriggerLocal || i.Trigger == "") {
		if r.cfg.CacheOwner == "" {
			return "", "", "it is not known whose they would be"
		}
		return r.cfg.CacheOwner, CacheProject(r.cfg.Project), ""
	}
	if i.Trigger != event.TriggerActions || i.RepositoryID == "" || i.Ref == "" {
		return "", "", "this is CI, and it is not known for which repository and ref"
	}
	if !cachedEvent(i.Event, i.Ref) {
		return "", "", fmt.Sprintf("a job of the event %q may be an outsider's, with the ref %s of the repository", event.Printable(i.Event), event.Printable(i.Ref))
	}
	host := "github.com"
	if u, err := url.Parse(i.RunURL); err == nil && u.Host != "" {
		host = u.Host
	}
	return "repository " + host + "/" + i.RepositoryID, i.Repository + " " + i.Ref, ""
}

// CacheProject is what a project's caches on this machine go by: its path without links, so that it is one by whichever way one comes to it.
func CacheProject(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// cachedEvent tells whether what a job of the event does is done by those who may change the ref.
func cachedEvent(name, ref string) bool {
	switch name {
	case "push", "schedule", "workflow_dispatch", "merge_group", "release":
		return strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/")
	case "pull_request": // the ref is the pull request's own
		return strings.HasPrefix(ref, "refs/pull/")
	}
	return false
}

// cacheEnvironment leads the tools to their caches.
func (r *run) cacheEnvironment(vars *variables) {
	for _, c := range r.caches {
		paths, _ := cachePathsOf(c.Kind)
		for _, v := range paths.env {
			vars.set(v[0], v[1], "sandbox")
		}
	}
}

// cacheScratch is the memory around caches.
func (r *run) cacheScratch() (all []engine.Tmpfs) {
	for _, c := range r.caches {
		if paths, _ := cachePathsOf(c.Kind); paths.scratch != "" {
			all = append(all, engine.Tmpfs{
				Target: paths.scratch, Size: int64(r.cfg.Policy.Resources.Home), Mode: "0755", UID: r.ids.UID, GID: r.ids.GID, Exec: true,
			})
		}
	}
	return all
}

// mountCaches adds the volumes to a container.
func (r *run) mountCaches(spec *engine.Spec) {
	for _, c := range r.caches {
		spec.Mounts = append(spec.Mounts, c.cache.Mount(c.Target))
	}
	if len(r.caches) > 0 && !r.engine.Facts().Local {
		r.lower("disk", "nothing watches the disk of the engine's host, where caches grow", "use a local engine, or remove `caches` from the policy")
	}
}

// cacheTargets are the directories that caches are in.
func cacheTargets(caches []CachePlan) []string {
	var all []string
	for _, c := range caches {
		all = append(all, c.Target)
	}
	return slices.Clip(all)
}
