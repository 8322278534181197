package runner

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/discover"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/workspace"
)

// WorkspaceTarget is where the project is in every sandbox. It is the same everywhere, so that a run on a laptop and
// one in CI see the same paths, and nothing of the host's.
const WorkspaceTarget = "/workspace"

// PlanVersion is the version of the plan's JSON.
const PlanVersion = 1

// Plan is everything that was decided about a run before it starts, as plan.json and `run --dry-run` have it.
type Plan struct {
	Version   int             `json:"version"`
	Run       string          `json:"run"`
	Project   string          `json:"project"` // path on the host
	Argv      []string        `json:"argv"`
	Dir       string          `json:"dir"` // working directory inside
	TTY       bool            `json:"tty"`
	Agent     Identity        `json:"agent"`
	Env       []Variable      `json:"env"`
	Files     []string        `json:"files"` // what the sandbox itself adds inside
	Image     engine.Image    `json:"image"`
	Lock      LockPlan        `json:"lock"`
	Engine    engine.Facts    `json:"engine"`
	Workspace WorkspacePlan   `json:"workspace"`
	Network   NetworkPlan     `json:"network"`
	Seccomp   SeccompPlan     `json:"seccomp"`
	Container engine.Spec     `json:"container"`
	Timeout   Duration        `json:"timeout"`
	Grace     Duration        `json:"grace"`
	Output    int64           `json:"output"` // bytes of output that the logs keep
	Policy    PolicyPlan      `json:"policy"`
	Kit       *KitPlan        `json:"kit,omitempty"` // what a kit has brought into all of this
	Caches    []CachePlan     `json:"caches,omitempty"`
	Cacheless string          `json:"cacheless,omitempty"` // why the caches of the policy are left out
	Lowered   []event.Lowered `json:"lowered"`

	files []link.File // what of Files the runner has
	trust *link.Trust // what of them the guest puts together; nil: nothing is intercepted
}

// Identity is who the agent is inside.
type Identity struct {
	User string `json:"user"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
	Home string `json:"home"`
}

// Variable is one variable of the agent's environment. The value of one that comes from the host is left out, since it may
// be anything, and so is a secret.
type Variable struct {
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	Source string `json:"source"` // image, sandbox, kit, policy, host, credential (a placeholder, or a path) or secret
	value  string
}

// WorkspacePlan is the view of the project.
type WorkspacePlan struct {
	Mode   policy.WorkspaceMode `json:"mode"` // the mode in use, never auto
	Target string               `json:"target"`
}

// NetworkPlan is what leaves: nothing, but for what the policy allows.
type NetworkPlan struct {
	Mode    string `json:"mode"`    // "none": the container has no interface but loopback
	Capture bool   `json:"capture"` // every dial ends at the guest and is decided by the runner
	// Lane: where the guest can reach it, connections go over a socket instead of through the engine.
	Lane bool `json:"lane"`
	// Found are the hosts that the configuration of the tools, in the image and the project, gave the policy's bundles;
	// Skipped is what it names and the bundles did not get.
	Found   []discover.Found   `json:"found,omitempty"`
	Skipped []discover.Skipped `json:"skipped,omitempty"`
	// Fallback is why there is no capture: names lead to loopback addresses that the guest listens on, and all else fails unrecorded.
	Fallback string `json:"fallback,omitempty"`
}

// SeccompPlan names the system call filter.
type SeccompPlan struct {
	Profile policy.Seccomp `json:"profile"`
	Digest  string         `json:"digest,omitempty"` // hex SHA-256 of our profile
}

// PolicyPlan names the policy.
type PolicyPlan struct {
	Path     string         `json:"path,omitempty"` // empty: there is no file
	Digest   string         `json:"digest"`
	Compiled *policy.Policy `json:"compiled"`
	Ceiling  string         `json:"ceiling_digest,omitempty"`
}

// Duration prints as people write it.
type Duration time.Duration

// MarshalText writes such as "30m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// makePlan decides everything that follows from configuration, policy, engine and image. The view of the workspace
// and the guest's delivery are added when they are there.
func (r *run) makePlan() (*Plan, error) {
	p, ids := r.cfg.Policy, r.ids
	plan := &Plan{
		Version: PlanVersion,
		Run:     r.id,
		Project: r.cfg.Project,
		Argv:    r.cfg.Argv,
		Dir:     path.Join(WorkspaceTarget, r.cfg.Subdir),
		TTY:     r.cfg.TTY,
		Agent:   Identity{User: string(p.User), UID: ids.UID, GID: ids.GID, Home: engine.Home},
		Image:   r.image,
		Lock:    LockPlan{File: r.cfg.Lock.File, Locked: r.locked, Override: r.cfg.Lock.Override, Required: r.cfg.Lock.Required},
		Engine:  r.engine.Facts(),
		Seccomp: SeccompPlan{Profile: p.Seccomp},
		Timeout: Duration(r.timeout()),
		Grace:   Duration(p.Resources.Grace),
		Output:  int64(p.Resources.Output),
		Policy:  PolicyPlan{Path: p.Name(), Digest: p.Digest(), Compiled: p, Ceiling: r.cfg.CeilingDigest},
		Kit:     r.kitPlan(),
		Caches:  r.caches, Cacheless: r.cacheless,
	}
	plan.Container = engine.Spec{
		Run: r.id, Image: r.image.ID, Hostname: engine.Hostname, IPv6: plan.Engine.IPv6,
		Tmpfs: slices.Concat(tmpfs(p.Resources, ids), volumes(r.image, p, ids), r.cacheScratch()), Weakened: r.cfg.weakened(),
		Limits: engine.Limits{
			Memory: int64(p.Resources.Memory), CPUs: p.Resources.CPUs, PIDs: p.Resources.PIDs + link.GuestThreads, Shm: int64(p.Resources.Shm),
		},
	}
	if p.Seccomp == policy.SeccompStrict {
		plan.Container.Seccomp = engine.StrictSeccomp()
		plan.Seccomp.Digest = engine.SeccompDigest(plan.Container.Seccomp)
	}
	return plan, r.planNetwork(plan)
}

// planNetwork decides what depends on whether the network is captured.
func (r *run) planNetwork(plan *Plan) error {
	plan.Network = NetworkPlan{Mode: "none", Capture: r.fallback == "", Fallback: r.fallback, Found: r.found.Found, Skipped: r.found.Skipped}
	plan.Container.Loopback = r.fallback != ""
	return r.environment(plan)
}

// tmpfs are the places where the agent may write besides the workspace. Programs may be started from /tmp and HOME:
// `go test` and npx do that.
func tmpfs(res policy.Resources, ids workspace.IDs) []engine.Tmpfs {
	return []engine.Tmpfs{
		{Target: "/tmp", Size: int64(res.Tmp), Mode: "1777", UID: ids.UID, GID: ids.GID, Exec: true},
		{Target: "/run", Size: int64(res.Run), Mode: "0755", UID: ids.UID, GID: ids.GID},
		{Target: engine.Home, Size: int64(res.Home), Mode: "0700", UID: ids.UID, GID: ids.GID, Exec: true},
		// Root's, so that the agent can't change what the guest writes there.
		{Target: link.FilesDir, Size: insideSize, Mode: "0755"},
	}
}

// volumes put memory where the image declares volumes. The engine would fill a volume of its own there, on a disk that
// nothing bounds.
func volumes(img engine.Image, p *policy.Policy, ids workspace.IDs) []engine.Tmpfs {
	taken := []string{WorkspaceTarget, "/tmp", "/run", link.FilesDir, engine.Home, "/dev/shm", engine.GuestMount, cacheDir}
	for _, m := range p.Mounts {
		taken = append(taken, m.Target)
	}
	var all []engine.Tmpfs
	for _, v := range img.Volumes {
		if target := path.Clean(v); path.IsAbs(target) && !slices.Contains(taken, target) {
			all = append(all, engine.Tmpfs{Target: target, Size: int64(p.Resources.Tmp), Mode: "0755", UID: ids.UID, GID: ids.GID, Exec: true})
		}
	}
	return all
}

// environment is the image's, then the sandbox's own, then the kit's, then the policy's, then what the sandbox insists on; the later
// wins. Nothing of the runner's environment gets in unless the policy names it.
func (r *run) environment(p *Plan) error {
	vars := newVariables()
	for _, kv := range r.image.Env {
		name, value, _ := strings.Cut(kv, "=")
		vars.set(name, value, "image")
	}
	vars.set("HOME", p.Agent.Home, "sandbox")
	vars.set("USER", p.Agent.User, "sandbox")
	vars.set("LOGNAME", p.Agent.User, "sandbox")
	vars.set("AGENT_SANDBOX", r.id, "sandbox")
	// git takes the address from here when the repository's configuration names none, the name from passwd.
	vars.set("EMAIL", "agent@sandbox.invalid", "sandbox")
	if p.TTY {
		vars.set("TERM", r.cfg.Term, "sandbox")
	}
	// The repository may belong to another uid than the agent's (git-config(1), safe.directory).
	vars.set("GIT_CONFIG_COUNT", "2", "sandbox")
	for i, dir := range []string{WorkspaceTarget, WorkspaceTarget + "/*"} {
		vars.set(fmt.Sprintf("GIT_CONFIG_KEY_%d", i), "safe.directory", "sandbox")
		vars.set(fmt.Sprintf("GIT_CONFIG_VALUE_%d", i), dir, "sandbox")
	}
	r.kitEnvironment(vars)
	r.cacheEnvironment(vars)
	for _, v := range r.cfg.Policy.Env {
		if !v.FromHost {
			vars.set(v.Name, v.Value, "policy")
		} else if value, ok := r.cfg.LookupEnv(v.Name); ok {
			vars.set(v.Name, value, "host")
		}
	}
	err := r.inside(p, vars)
	p.Env = vars.list
	return err
}

// variables keeps the order in which names were first set.
type variables struct {
	list []Variable
	at   map[string]int
}

func newVariables() *variables { return &variables{at: map[string]int{}} }

func (v *variables) set(name, value, source string) {
	entry := Variable{Name: name, Value: value, Source: source, value: value}
	if source == "host" || source == "secret" {
		entry.Value = ""
	}
	if i, ok := v.at[name]; ok {
		v.list[i] = entry
		return
	}
	v.at[name] = len(v.list)
	v.list = append(v.list, entry)
}

// value is that of a variable, empty if it isn't set.
func (v *variables) value(name string) string {
	if i, ok := v.at[name]; ok {
		return v.list[i].value
	}
	return ""
}

// source is where a variable comes from, empty if it isn't set.
func (v *variables) source(name string) string {
	if i, ok := v.at[name]; ok {
		return v.list[i].Source
	}
	return ""
}

// environ is the environment as the kernel takes it.
func (p *Plan) environ() []string {
	env := make([]string, len(p.Env))
	for i, v := range p.Env {
		env[i] = v.Name + "=" + v.value
	}
	return env
}
