package runner

import (
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
)

// TestCacheScope: who shares caches. Nobody may leave something for those who trust the repository's own refs, but who may change these.
func TestCacheScope(t *testing.T) {
	job := func(name, ref string) Config {
		return Config{CI: true, CacheOwner: "me", Project: "/github/workspace", Invocation: event.Invocation{
			Trigger: event.TriggerActions, Repository: "acme/shop", RepositoryID: "7", Event: name, Ref: ref, RunURL: "https://github.com/acme/shop/actions/runs/1",
		}}
	}
	change := func(c Config, f func(*Config)) Config { f(&c); return c }
	push := job("push", "refs/heads/main")
	local := Config{CacheOwner: "me", Project: "/work/shop", Invocation: event.Invocation{Trigger: event.TriggerLocal}}
	for name, tt := range map[string]struct {
		cfg  Config
		want string // owner and scope; empty: no caches
	}{
		"local":             {local, "me /work/shop"},
		"another user":      {change(local, func(c *Config) { c.CacheOwner = "you" }), "you /work/shop"},
		"nobody":            {change(local, func(c *Config) { c.CacheOwner = "" }), ""},
		"other CI":          {change(local, func(c *Config) { c.CI = true }), ""},
		"act":               {change(push, func(c *Config) { c.Invocation.Trigger = event.TriggerAct }), ""},
		"CI unset in a job": {change(push, func(c *Config) { c.CI = false }), "repository github.com/7 acme/shop refs/heads/main"},
		"push":              {push, "repository github.com/7 acme/shop refs/heads/main"},
		"another server": {
			change(push, func(c *Config) { c.Invocation.RunURL = "https://ghe.example.com/acme/shop/actions/runs/1" }),
			"repository ghe.example.com/7 acme/shop refs/heads/main",
		},
		"no id":               {change(push, func(c *Config) { c.Invocation.RepositoryID = "" }), ""},
		"no ref":              {job("push", ""), ""},
		"a pull request":      {job("pull_request", "refs/pull/3/merge"), "repository github.com/7 acme/shop refs/pull/3/merge"},
		"another":             {job("pull_request", "refs/pull/4/merge"), "repository github.com/7 acme/shop refs/pull/4/merge"},
		"closed":              {job("pull_request", "refs/heads/main"), ""},
		"pull_request_target": {job("pull_request_target", "refs/heads/main"), ""},
		"issue_comment":       {job("issue_comment", "refs/heads/main"), ""},
		"workflow_run":        {job("workflow_run", "refs/heads/main"), ""},
		"an unknown event":    {job("", "refs/heads/main"), ""},
		"push to a pull":      {job("push", "refs/pull/3/merge"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			owner, scope, why := (&run{cfg: tt.cfg}).cacheScope()
			if got := strings.TrimSpace(owner + " " + scope); got != tt.want || (why == "") != (tt.want != "") {
				t.Errorf("got %q (%s), want %q", got, why, tt.want)
			}
		})
	}
}

func TestCacheKey(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{{"a", "b"}, {"ab", ""}, {"a", "b", ""}, {"a b"}, {"a\x00b"}, {"a", "c"}, {`a","b`}} {
		key := cacheKey(parts...)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have one key", parts, other)
		}
		seen[key] = parts
	}
}

// TestCachePaths: every kind that a policy can ask for has a place.
func TestCachePaths(t *testing.T) {
	for _, kind := range policy.CacheKinds() {
		p, ok := cachePathsOf(kind)
		if !ok || !strings.HasPrefix(p.volume, cacheDir+"/"+kind) || len(p.env) == 0 {
			t.Errorf("the cache %s has %+v, %v", kind, p, ok)
		}
	}
}
