package manifest

import "time"

// Isolation is how the agent was held.
type Isolation struct {
	// Planned is what was decided before the start.
	Planned *Planned `json:"planned,omitempty"`
	// Measured is what our program inside read from the kernel before the agent existed.
	Measured *Measured `json:"measured,omitempty" from:"asserted"`
	// Verified says that the runner compared the two, and found no difference. The agent is started only then.
	Verified bool `json:"verified"`
	// Probes are what was tried inside, with the agent's rights, before the agent existed.
	Probes []Probe `json:"probes" from:"asserted"`
	// Lowered are the protections that were weaker than they are by default.
	Lowered []Lowered `json:"lowered"`
	// LoweredCount is how many there are; the list is bounded.
	LoweredCount uint64 `json:"lowered_count"`
}

// Planned is what was decided about the sandbox.
type Planned struct {
	// SHA256 is the digest of the whole plan, `plan.json` of the run.
	SHA256 string `json:"sha256"`
	// User is `agent` or `root`; neither has capabilities.
	User string `json:"user"`
	// UID is the agent's user id.
	UID int `json:"uid"`
	// GID is the agent's group id.
	GID int `json:"gid"`
	// Seccomp is the system call filter: `strict` or `default`.
	Seccomp string `json:"seccomp"`
	// SeccompSHA256 is the digest of the strict filter.
	SeccompSHA256 string `json:"seccomp_sha256,omitempty"`
	// Network is the container's network: `none`, only loopback.
	Network string `json:"network"`
	// Capture says that each dial ends at the runner, which decides and records it.
	Capture bool `json:"capture"`
	// Workspace is the mode of the project's view: `overlay`, `bind`, `readonly` or `copy`.
	Workspace string `json:"workspace"`
	// Mounts are what the agent saw beside the image.
	Mounts []Mount `json:"mounts"`
	// Env are the variables of the agent's environment, sorted by name. Values are left out.
	Env []Variable `json:"env"`
	// Caches are what earlier runs may have left for this one: nothing else that the agent found came from them.
	Caches []Cache `json:"caches,omitempty"`
}

// Cache is a tool's cache that is kept between runs.
type Cache struct {
	// Kind is `npm`, `go`, `pip` or `cargo`.
	Kind string `json:"kind"`
	// Volume is its name in the engine.
	Volume string `json:"volume"`
	// Target is the path inside.
	Target string `json:"target"`
	// New says that it was empty at the start.
	New bool `json:"new"`
}

// Mount is a place in the sandbox that is not the image's.
type Mount struct {
	// Target is the path inside.
	Target string `json:"target"`
	// Kind is `bind`, `volume` or `tmpfs`.
	Kind string `json:"kind" enum:"bind,volume,tmpfs"`
	// ReadOnly says that nothing there can be changed.
	ReadOnly bool `json:"read_only"`
}

// Variable is a variable of the agent's environment.
type Variable struct {
	// Name is the variable's.
	Name string `json:"name"`
	// Source is where its value comes from: `image`, `sandbox`, `kit`, `policy`, `host` or `credential`.
	Source string `json:"source"`
}

// Measured is what the kernel said inside.
type Measured struct {
	// Agent is the process that became the agent.
	Agent Process `json:"agent"`
	// Guest is our program inside.
	Guest Process `json:"guest"`
	// Namespaces are those that were not the host's, sorted. Their numbers, and those of the others, are in the audit log.
	Namespaces []string `json:"namespaces"`
	// Mounts is how many places were mounted; each was compared with the plan.
	Mounts int `json:"mounts"`
	// Interfaces are the network interfaces.
	Interfaces []string `json:"interfaces"`
	// CgroupMemory is the memory limit in bytes; 0 where it can't be seen from inside.
	CgroupMemory int64 `json:"cgroup_memory"`
	// CgroupPIDs is the limit of processes; 0 where it can't be seen from inside.
	CgroupPIDs int64 `json:"cgroup_pids"`
	// CgroupCPUMicros is the CPU time in microseconds for each 100 ms; 0 where it can't be seen from inside.
	CgroupCPUMicros int64 `json:"cgroup_cpu_micros"`
	// Kernel is the kernel's release.
	Kernel string `json:"kernel"`
	// TrustedCertificates is how many certificates the programs inside were given to trust, that of the run included; 0 if nothing was intercepted.
	TrustedCertificates int `json:"trusted_certificates"`
}

// Process is what decides what a process may do (proc_pid_status(5)).
type Process struct {
	// UID has the real, effective, saved and file system user id.
	UID []int `json:"uid"`
	// GID has the real, effective, saved and file system group id.
	GID []int `json:"gid"`
	// Groups are the supplementary groups.
	Groups []int `json:"groups"`
	// Capabilities are the inheritable, permitted, effective, bounding and ambient set, in hexadecimal.
	Capabilities []string `json:"capabilities"`
	// NoNewPrivs says that it can't gain privileges.
	NoNewPrivs bool `json:"no_new_privs"`
	// Seccomp is 2 if a system call filter is in force.
	Seccomp int `json:"seccomp"`
}

// Probe is something that was tried.
type Probe struct {
	// Name says what.
	Name string `json:"name"`
	// Control is `negative` for what must not be possible, and `positive` for the same kind of thing where it must be: without it a
	// refusal would prove nothing.
	Control string `json:"control" enum:"negative,positive"`
	// Held says that it came out as it must.
	Held bool `json:"held"`
	// Detail says what came out, where it did not hold.
	Detail string `json:"detail,omitempty"`
}

// Lowered is a protection that was weaker than it is by default.
type Lowered struct {
	// What was lowered.
	What string `json:"what"`
	// Why it was.
	Why string `json:"why"`
}

// Egress is what left the sandbox, and what was refused.
type Egress struct {
	// Captured says that each dial was decided and recorded by the runner. False: what the policy does not name failed, and nobody saw it.
	Captured bool `json:"captured"`
	// Connections is how many were made.
	Connections uint64 `json:"connections"`
	// Failed is how many the policy allowed and the host or the network did not.
	Failed uint64 `json:"failed"`
	// Requests is how many requests were looked into and let through.
	Requests uint64 `json:"requests"`
	// Up is how many bytes left the sandbox.
	Up int64 `json:"up"`
	// Down is how many bytes came in.
	Down int64 `json:"down"`
	// RefusedConnections is how many were refused.
	RefusedConnections uint64 `json:"refused_connections"`
	// RefusedNames is how many look-ups of names were refused.
	RefusedNames uint64 `json:"refused_names"`
	// RefusedRequests is how many requests were refused.
	RefusedRequests uint64 `json:"refused_requests"`
	// Hosts are those that were reached, or should have been; those with the most bytes, sorted by name.
	Hosts []Host `json:"hosts"`
	// HostCount is how many there are; the list is bounded.
	HostCount int `json:"host_count"`
	// Refused is what was refused most often, sorted by name.
	Refused []Refusal `json:"refused"`
	// RefusedUnlisted is how many refusals had targets that the record does not list one by one.
	RefusedUnlisted uint64 `json:"refused_unlisted"`
	// Leaks are placeholders of credentials that were on their way to a host where they do not belong. They were refused.
	Leaks []Leak `json:"leaks"`
}

// Host is what went to one host and port.
type Host struct {
	// Host is the name, or the address where the agent had no name.
	Host string `json:"host"`
	// Port is the TCP port.
	Port uint16 `json:"port"`
	// Rule is the item of the policy that allowed it.
	Rule string `json:"rule,omitempty"`
	// Connections is how many were made.
	Connections uint64 `json:"connections"`
	// Failed is how many could not be made.
	Failed uint64 `json:"failed"`
	// Requests is how many requests were looked into.
	Requests uint64 `json:"requests"`
	// Up is how many bytes went there.
	Up int64 `json:"up"`
	// Down is how many bytes came back.
	Down int64 `json:"down"`
}

// Refusal is a target that was refused.
type Refusal struct {
	// Proto is `tcp`, `udp`, `icmp`, `other`, `dns` (a name was asked for) or `http` (a request).
	Proto string `json:"proto"`
	// Host is the name, or the address where there was no name.
	Host string `json:"host"`
	// Port is 0 where the protocol has none.
	Port uint16 `json:"port,omitempty"`
	// Type is the type of the record that was asked for.
	Type string `json:"type,omitempty"`
	// Method is that of the request.
	Method string `json:"method,omitempty"`
	// Path is that of the request, without the query.
	Path string `json:"path,omitempty"`
	// Reason says why.
	Reason string `json:"reason,omitempty"`
	// Count is how often it was tried.
	Count uint64 `json:"count"`
}

// Leak counts refused placeholders.
type Leak struct {
	// Credential is its name in the policy.
	Credential string `json:"credential"`
	// Host is where it was on its way to.
	Host string `json:"host"`
	// Count is how often.
	Count uint64 `json:"count"`
}

// Workspace is what the agent changed.
type Workspace struct {
	// Mode is the view that it had of the project: `overlay`, `bind`, `readonly` or `copy`.
	Mode string `json:"mode"`
	// Added counts new paths.
	Added int `json:"added"`
	// Modified counts paths with other contents.
	Modified int `json:"modified"`
	// Deleted counts paths that are gone.
	Deleted int `json:"deleted"`
	// Renamed counts paths that were moved.
	Renamed int `json:"renamed"`
	// ModeOnly counts paths of which nothing but the mode bits changed.
	ModeOnly int `json:"mode_only"`
	// Git counts changes inside .git, which the patch does not have.
	Git int `json:"git"`
	// Bytes is the size of all new contents.
	Bytes int64 `json:"bytes"`
	// ProtectedReject counts changed paths that would run code on the host or in CI, and are not applied unless they are named.
	ProtectedReject int `json:"protected_reject"`
	// ProtectedWarn counts changed paths that need a look.
	ProtectedWarn int `json:"protected_warn"`
	// Protected lists them, bounded, sorted by path.
	Protected []Protected `json:"protected"`
	// ChangesSHA256 is the digest of `changes.json`, which has the digest of each new content.
	ChangesSHA256 string `json:"changes_sha256,omitempty"`
	// Tree is the id of the git tree that the source's commit has with these changes, as `apply --branch` would commit all of them.
	Tree string `json:"tree,omitempty"`
	// Outputs are the files that the policy's `evidence.outputs` names, as the agent left them, sorted by name.
	Outputs []Output `json:"outputs"`
	// PatchSHA256 is the digest of `changes.patch`.
	PatchSHA256 string `json:"patch_sha256,omitempty"`
	// Recovered is when another process than the run's read all of this, because the runner had died or had no room for it. Without it the
	// runner did, at the end of the run.
	Recovered *time.Time `json:"recovered,omitempty"`
}

// Output is a file of the project.
type Output struct {
	// Name is that in the policy.
	Name string `json:"name"`
	// Path is relative to the project.
	Path string `json:"path"`
	// SHA256 is the digest of the contents; without it there is no such file, and `missing` says why.
	SHA256 string `json:"sha256,omitempty"`
	// Bytes is the size.
	Bytes int64 `json:"bytes"`
}

// Protected is a changed path that would run code on the host or in CI.
type Protected struct {
	// Path is relative to the project.
	Path string `json:"path"`
	// Tier is `reject` or `warn`.
	Tier string `json:"tier"`
	// Reason says what runs it.
	Reason string `json:"reason"`
}

// Resources is what the agent could use and did use.
type Resources struct {
	// MemoryLimit is in bytes.
	MemoryLimit int64 `json:"memory_limit,omitempty"`
	// CPULimit is in processors.
	CPULimit float64 `json:"cpu_limit,omitempty"`
	// PIDsLimit is a number of processes.
	PIDsLimit int64 `json:"pids_limit,omitempty"`
	// PeakMemory is the highest use that the kernel counted, in bytes. It can exceed the limit: what the kernel can't refuse, such as
	// the last pages of a process that is being killed, is charged although the limit is reached.
	PeakMemory *int64 `json:"peak_memory,omitempty" from:"asserted"`
	// PeakPIDs is the highest number of processes and threads at a time, those of our program inside included.
	PeakPIDs *int64 `json:"peak_pids,omitempty" from:"asserted"`
	// CPUMicros is CPU time in microseconds.
	CPUMicros *int64 `json:"cpu_micros,omitempty" from:"asserted"`
	// OOMKills is how many processes were killed for memory.
	OOMKills *int64 `json:"oom_kills,omitempty" from:"asserted"`
	// BytesOut is how many bytes left the sandbox through the network.
	BytesOut int64 `json:"bytes_out"`
}

// Log is one of the agent's outputs.
type Log struct {
	// Stream is `stdout` or `stderr`.
	Stream string `json:"stream" enum:"stdout,stderr"`
	// SHA256 is the digest of what was kept.
	SHA256 string `json:"sha256"`
	// Bytes is how much was kept.
	Bytes int64 `json:"bytes"`
	// Lost is how many bytes came after the limit, and were not kept.
	Lost int64 `json:"lost"`
	// Redactions is how many secrets were taken out.
	Redactions uint64 `json:"redactions"`
}

// Events is the audit log, events.jsonl. Each line carries the hash of the one before, so the head proves the whole.
type Events struct {
	// Head is the SHA-256 of the last line.
	Head string `json:"head"`
	// Count is how many lines there are.
	Count uint64 `json:"count"`
	// State is `complete` (no line is broken or lost; that of an interrupted run ends early), `torn` (it ends within a line; the head is that
	// of the whole lines) or `damaged`.
	State string `json:"state" enum:"complete,torn,damaged"`
	// Detail says what is wrong with it.
	Detail string `json:"detail,omitempty"`
	// Dropped counts the events of each kind that were too many to be written.
	Dropped map[string]uint64 `json:"dropped"`
}

// Included is a content that the policy wants in the manifest.
type Included struct {
	// Name is `events`, `patch`, `prompt`, `stderr` or `stdout`.
	Name string `json:"name"`
	// Text is the content, as far as it fits.
	Text string `json:"text"`
	// Bytes is the size of all of it.
	Bytes int64 `json:"bytes"`
	// Clipped says that the text is not all of it.
	Clipped bool `json:"clipped"`
}

// Warnings is what the runner told the user.
type Warnings struct {
	// Messages are the first of them.
	Messages []string `json:"messages"`
	// Count is how many there are.
	Count uint64 `json:"count"`
}

// Missing is a field that could not be filled in.
type Missing struct {
	// Field is its path, such as `isolation.measured`.
	Field string `json:"field"`
	// Why says what kept it away.
	Why string `json:"why"`
}
