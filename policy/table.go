package policy

import (
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// fileKind is the whole file: every key, its type and its description. The loader reads by it and the JSON schema is
// printed from it.
func fileKind() kind[Policy] {
	return knownAgents(object(
		key("version", versionKind(), func(p *Policy) *int { return &p.Version },
			"Version of the format. This program reads version 1.").must(),
		key("image", imageKind(), func(p *Policy) *Image { return &p.Image },
			"What the sandbox runs: a Docker reference, the id of an image that exists only in the engine, {build: Dockerfile}, or {from: reference, agents: [...]}. "+
				"Without it the program's default image, with the policy's agent."),
		key("agent", plainText(agentName()), func(p *Policy) *string { return &p.Agent },
			"Kit of the agent: how to start it, the hosts and the credential that it needs. One of "+strings.Join(Agents(), ", ")+", or of `agents`."),
		key("agents", agentsKind(), func(p *Policy) *[]OwnAgent { return &p.Agents },
			"Further kits, by name."),
		key("user", oneOf(UserAgent, UserRoot), func(p *Policy) *User { return &p.User },
			"Who the agent is inside: an unprivileged user (default), or root without capabilities."),
		key("seccomp", oneOf(SeccompStrict, SeccompDefault), func(p *Policy) *Seccomp { return &p.Seccomp },
			"System call filter: the engine's default made stricter (default), or the engine's default as it is."),
		key("workspace", workspaceKind(), func(p *Policy) *Workspace { return &p.Workspace },
			"How the agent sees the project."),
		key("mounts", list(mountKind(), 50).checked(checkMounts), func(p *Policy) *[]Mount { return &p.Mounts },
			"Paths of the host that the agent sees beside the project."),
		key("env", list(envKind(), 200).checked(checkEnv), func(p *Policy) *[]EnvVar { return &p.Env },
			"Environment of the agent: NAME=value sets a variable, NAME alone passes on the caller's value. Secrets go under credentials."),
		key("network", networkKind(), func(p *Policy) *Network { return &p.Network },
			"What may be reached. Without it, nothing."),
		key("credentials", credentialsKind(), func(p *Policy) *[]Credential { return &p.Credentials },
			"Secrets that the run may use, by name. They are attached outside of the sandbox unless `deliver` says otherwise."),
		key("caches", unique(list(oneOf(CacheKinds()...), 4)), func(p *Policy) *[]string { return &p.Caches },
			"Package caches that are kept between the runs of this project."),
		key("resources", resourcesKind(), func(p *Policy) *Resources { return &p.Resources },
			"What a run may use. Sizes have a unit (4GiB), times too (30m)."),
		key("evidence", evidenceKind(), func(p *Policy) *Evidence { return &p.Evidence },
			"What the manifest of a run holds, and who signs it."),
	))
}

func versionKind() kind[int] {
	return kind[int]{schema{"const": Version}, func(d *decoder, n *yaml.Node, path string, into *int) bool {
		if !d.want(n, path, yaml.ScalarNode, "1") {
			return false
		}
		if n.Style != 0 || n.Value != "1" {
			return d.fail(n, path, "this program reads version 1, not "+describe(n), "write `version: 1`")
		}
		*into = Version
		return true
	}}
}

func workspaceKind() kind[Workspace] {
	pattern := text(nameRule{`[^\n\r]{1,512}`, "a pattern"}, ParsePattern)
	plain := text(nameRule{`[^!\n\r][^\n\r]{0,511}`, "a pattern"}, parseProtectPattern)
	protect := object(
		key("reject", unique(list(plain, 500)), func(p *Protect) *[]Pattern { return &p.Reject },
			"Patterns that apply refuses without --allow-protected."),
		key("warn", unique(list(plain, 500)), func(p *Protect) *[]Pattern { return &p.Warn },
			"Patterns that apply points out."),
	)
	return object(
		key("mode", oneOf(ModeOverlay, ModeBind, ModeReadonly, ModeCopy, ModeAuto), func(w *Workspace) *WorkspaceMode { return &w.Mode },
			"overlay (default) and copy leave the host's files alone until apply; bind writes to them; readonly lets nothing be written; auto is overlay, else copy."),
		key("hide", unique(list(pattern, 500)), func(w *Workspace) *[]Pattern { return &w.Hide },
			`Patterns, as in .gitignore, of files that the agent can't see. They come after the default ones (.env, *.pem, ...); "!name" shows a file again.`),
		key("protect", protect, func(w *Workspace) *Protect { return &w.Protect },
			"Paths whose change needs care, beside the default ones (.git/hooks, .github/workflows, ...)."),
	)
}

func mountKind() kind[Mount] {
	return converted(object(
		key("source", text(nameRule{`(?:~?/|\.\.?/|[A-Za-z]:/)[^\n\r\\]{0,1000}`, `a path that starts with "/", "~/", "./" or "../"`}, parseMountSource),
			func(m *mountEntry) *string { return &m.Source }, "Path on the host: absolute, below the home directory (~/), or relative to the project (./, ../).").must(),
		key("target", text(nameRule{`/[^\n\r\\:,]{1,1000}`, "an absolute path inside the sandbox"}, parseMountTarget),
			func(m *mountEntry) *string { return &m.Target }, "Absolute path inside the sandbox.").must(),
		key("readonly", boolean(), func(m *mountEntry) *bool { return m.readonly() }, "false lets the agent write to the host's files. Default true."),
	), func(_ *decoder, _ string, m mountEntry) Mount { return m.mount() })
}

// mountEntry has a read-only mount for its zero value.
type mountEntry struct {
	Mount
	set *bool
}

func (m *mountEntry) readonly() *bool {
	m.set = new(bool)
	return m.set
}

func (m mountEntry) mount() Mount {
	m.ReadOnly = m.set == nil || *m.set
	return m.Mount
}

func envKind() kind[EnvVar] {
	return text(nameRule{`[A-Za-z_][A-Za-z0-9_]{0,127}(?:=[^\n\r]*)?`, "NAME or NAME=value"}, parseEnv)
}

func resourcesKind() kind[Resources] {
	tmpfs := size(1*MiB, 1*TiB)
	return object(
		key("cpus", decimal(0.1, 1024), func(r *Resources) *float64 { return &r.CPUs }, "Processors, also a part of one. Default 2."),
		key("memory", size(64*MiB, 16*TiB), func(r *Resources) *Bytes { return &r.Memory }, "Memory of all processes, the tmpfs below included. Default 4GiB."),
		key("pids", integer[int64](16, 4194304), func(r *Resources) *int64 { return &r.PIDs }, "Processes and threads. Default 512."),
		key("timeout", duration(time.Second, 30*day), func(r *Resources) *time.Duration { return &r.Timeout }, "Wall-clock time of the task; then it gets SIGTERM. Default 30m."),
		key("grace", duration(0, 10*time.Minute), func(r *Resources) *time.Duration { return &r.Grace }, "Time between SIGTERM and SIGKILL. Default 10s."),
		key("tmp", tmpfs, func(r *Resources) *Bytes { return &r.Tmp }, "Size of /tmp. Default 512MiB."),
		key("run", tmpfs, func(r *Resources) *Bytes { return &r.Run }, "Size of /run. Default 16MiB."),
		key("home", tmpfs, func(r *Resources) *Bytes { return &r.Home }, "Size of the home directory. Default 512MiB."),
		key("shm", tmpfs, func(r *Resources) *Bytes { return &r.Shm }, "Size of /dev/shm. Default 64MiB."),
		key("disk", size(16*MiB, 1*TiB), func(r *Resources) *Bytes { return &r.Disk }, "Disk of the host that the agent's changes may take; then the task is killed. Default 10GiB."),
		key("output", size(1*KiB, 1*TiB), func(r *Resources) *Bytes { return &r.Output }, "Output that is kept in the run's logs. Default 1GiB."),
	)
}

func outputsKind() kind[[]Output] {
	path := text(nameRule{`[^/\\:\n\r][^\\:\n\r]{0,500}`, "a path of a file in the project"}, parseProjectPath)
	return converted(mapping(nameRule{`[a-z][a-z0-9-]{0,62}`, "a name of small letters, digits and hyphens"}, path, 50), func(_ *decoder, _ string, m map[string]string) []Output {
		var all []Output
		for _, name := range slices.Sorted(maps.Keys(m)) {
			all = append(all, Output{name, m[name]})
		}
		return all
	})
}

func evidenceKind() kind[Evidence] {
	return object(
		key("sign", oneOf(SignModes()...), func(e *Evidence) *string { return &e.Sign },
			"auto (default): keyless in CI when the job can get a token, else a configured key, else unsigned and said so."),
		key("retain", duration(day, 3650*day), func(e *Evidence) *time.Duration { return &e.Retain }, "How long the evidence of a run is kept; `runs prune` removes what is older. Default 90d."),
		key("include", unique(list(oneOf(EvidenceParts()...), 5)), func(e *Evidence) *[]string { return &e.Include },
			"Contents that the evidence holds; of everything else it holds the digest. Parts: "+strings.Join(EvidenceParts(), ", ")+"."),
		key("outputs", outputsKind(), func(e *Evidence) *[]Output { return &e.Outputs },
			"Files of the project, as the agent leaves them, that the manifest names with their digests: a mapping of names to paths."),
		key("attest", boolean(), func(e *Evidence) *bool { return &e.Attest },
			"true stores a manifest that is signed keyless with GitHub's attestations of the job's repository. Default false."),
	)
}
