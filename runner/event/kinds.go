package event

import (
	"encoding/json"
	"time"
)

// Outcome is how a run ended.
type Outcome string

// The outcomes.
const (
	Success     Outcome = "success"     // the task exited 0
	Failure     Outcome = "failure"     // the task exited otherwise, or by a signal of its own
	Timeout     Outcome = "timeout"     // the policy's wall-clock limit
	Cancelled   Outcome = "cancelled"   // a signal to the runner
	OOM         Outcome = "oom"         // the memory limit
	Refused     Outcome = "refused"     // the policy or a missing protection stopped it before the agent
	Errored     Outcome = "error"       // we failed
	Interrupted Outcome = "interrupted" // the runner died; written by whoever found the run
)

// Phase is a stretch of a run. Phases may overlap.
type Phase string

// The phases.
const (
	Resolve   Phase = "resolve"   // policy, image and engine facts
	Workspace Phase = "workspace" // the view of the project
	Create    Phase = "create"    // the container
	Start     Phase = "start"     // the engine's start call until the guest's hello
	Measure   Phase = "measure"   // the guest measures itself
	Agent     Phase = "agent"     // the task
	Extract   Phase = "extract"   // the change set
	Clean     Phase = "clean"     // remove what the run made
)

// ExitReason is why the agent's process ended.
type ExitReason string

// The exit reasons.
const (
	Exited      ExitReason = "exited"    // by itself, with a status
	Signalled   ExitReason = "signalled" // by a signal that did not come from us
	TimedOut    ExitReason = "timeout"
	OOMKilled   ExitReason = "oom"
	Killed      ExitReason = "killed"      // by us, for a reason other than time (output limit, guest failure)
	CancelledBy ExitReason = "cancelled"   // by the user
	NotStarted  ExitReason = "not-started" // the program could not be started: Error says why
)

// Image names what ran.
type Image struct {
	Reference string `json:"reference"`        // as the user or policy wrote it
	ID        string `json:"id"`               // the engine's image id: "sha256:..."
	Digest    string `json:"digest,omitempty"` // registry manifest digest, when known
	// Locked: the lock file, or the reference itself, names this very image.
	Locked bool `json:"locked"`
	// Override: the user named the image for this run alone, instead of the policy's.
	Override bool `json:"override,omitempty"`
}

// Engine names what ran it.
type Engine struct {
	Version  string `json:"version,omitempty"`
	API      string `json:"api,omitempty"`
	Kernel   string `json:"kernel,omitempty"`
	Runtime  string `json:"runtime,omitempty"`
	Platform string `json:"platform,omitempty"` // "linux/amd64"
	Cgroup   int    `json:"cgroup,omitempty"`   // version: 1 or 2
}

// PolicyRef names the policy that governed the run.
type PolicyRef struct {
	Path          string `json:"path,omitempty"` // empty: the default policy
	Digest        string `json:"digest"`
	CeilingDigest string `json:"ceiling_digest,omitempty"`
	// Origin says where it was read from: file, project, base-branch or default.
	Origin   string   `json:"origin,omitempty"`
	Commit   string   `json:"commit,omitempty"`   // that it was read from, if not the working tree
	Problems []string `json:"problems,omitempty"` // why it governs nothing: the run is refused
}

// RunStarted says what is to run ("run.started"). It is the first event of every run.
type RunStarted struct {
	Contract int           `json:"contract"` // version of this contract: see [Contract]
	Runner   string        `json:"runner"`   // version of agent-sandbox
	Argv     []string      `json:"argv"`     // the task's command, already redacted
	Project  string        `json:"project"`  // host path
	Policy   PolicyRef     `json:"policy"`
	TTY      bool          `json:"tty"`
	Timeout  time.Duration `json:"timeout_ns"`
	Kit      string        `json:"kit,omitempty"` // name of the agent's kit, if the command is that of one

	Invocation Invocation `json:"invocation"`
	Task       *Task      `json:"task,omitempty"` // nil: a command, and no task in words
}

// RunPlanned says in what it runs ("run.planned"). A run that fails before image, engine and workspace are settled
// has none.
type RunPlanned struct {
	Image  Image  `json:"image"`
	Engine Engine `json:"engine"`
	Mode   string `json:"mode"` // workspace mode actually used: overlay, bind, readonly, copy
}

// PhaseStarted opens a phase ("phase.started").
type PhaseStarted struct {
	Name Phase `json:"name"`
}

// PhaseFinished closes a phase ("phase.finished"); failed phases are closed too.
type PhaseFinished struct {
	Name     Phase         `json:"name"`
	Duration time.Duration `json:"duration_ns"` // from a monotonic clock
}

// Lowered is a protection that is weaker than the default ("lowered").
type Lowered struct {
	What string `json:"what"` // "workspace: copy instead of overlay"
	Why  string `json:"why"`
	Mend string `json:"mend"` // what the user can do about it; may be empty
}

// GuestMeasured is what the guest read from the kernel before the agent existed ("guest.measured").
type GuestMeasured struct {
	Agent        Process           `json:"agent"`      // the process that becomes the agent
	Guest        Process           `json:"guest"`      // PID 1
	Namespaces   map[string]string `json:"namespaces"` // "net": "net:[4026532281]"
	Mounts       int               `json:"mounts"`
	MountsDigest string            `json:"mounts_digest"`
	Interfaces   []string          `json:"interfaces"`
	Cgroup       CgroupLimits      `json:"cgroup"`
	Network      Capture           `json:"network"`
	Isolation    Isolation         `json:"isolation"`
	Trust        *Trust            `json:"trust,omitempty"` // nil: no connection is intercepted
	Kernel       string            `json:"kernel"`          // uname release
}

// Trust is what the programs inside trust, the run's own certificate included.
type Trust struct {
	Certificates int      `json:"certificates"`
	Sources      []string `json:"sources"`           // files inside that they come from
	Missing      []string `json:"missing,omitempty"` // why a file that was named gave none
}

// Isolation is what the process that becomes the agent found when it tried, with the agent's rights.
type Isolation struct {
	Reach         []string `json:"reach"`          // ways to the guest that were open; none
	Exposed       []string `json:"exposed"`        // files that change the kernel and could be opened for writing; none
	StrictCalls   bool     `json:"strict_calls"`   // the strict system call filter is in force
	Control       []string `json:"control"`        // of reach, exposed and strict_calls: whose attempts work where they must
	GuestDumpable bool     `json:"guest_dumpable"` // the guest could be traced by its own user
	AgentOOM      int      `json:"agent_oom"`      // oom_score_adj: the higher one is killed first
	GuestOOM      int      `json:"guest_oom"`
}

// Process holds the lines of /proc/PID/status that decide what a process may do
// (proc_pid_status(5)): real, effective, saved and file system ids; capability sets in hex.
type Process struct {
	UID        [4]int `json:"uid"`
	GID        [4]int `json:"gid"`
	Groups     []int  `json:"groups"`
	CapInh     string `json:"cap_inh"`
	CapPrm     string `json:"cap_prm"`
	CapEff     string `json:"cap_eff"`
	CapBnd     string `json:"cap_bnd"`
	CapAmb     string `json:"cap_amb"`
	NoNewPrivs bool   `json:"no_new_privs"`
	Seccomp    int    `json:"seccomp"` // 0 off, 1 strict, 2 filter
	Threads    int    `json:"threads"` // how many threads were seen with these values
}

// CgroupLimits are the control group's limits: -1 for none, 0 where the guest can't see them.
type CgroupLimits struct {
	Version     int   `json:"version"` // 1 or 2, 0 unknown
	MemoryBytes int64 `json:"memory_bytes"`
	PIDs        int64 `json:"pids"`
	CPUMicros   int64 `json:"cpu_quota_micros"` // per 100 ms period
}

// Capture says which parts of the network capture are in force.
type Capture struct {
	TCP       bool     `json:"tcp"`       // a dial to an address elsewhere arrived at the guest's relay
	IPv6      bool     `json:"ipv6"`      // the same for IPv6
	Datagrams bool     `json:"datagrams"` // refused UDP and ICMP packets are reported
	Reasons   []string `json:"reasons"`   // why a part is missing
	// Listeners: instead of the capture, names lead to loopback addresses that the guest listens on, and a dial elsewhere failed.
	Listeners bool `json:"listeners,omitempty"`
	// Lane: connections go over sockets of their own, not through the engine.
	Lane bool `json:"lane,omitempty"`
}

// AgentStarted says that the task runs ("agent.started"). Its output may follow at once.
type AgentStarted struct {
	PID     int    `json:"pid"` // inside the sandbox
	Workdir string `json:"workdir"`
}

// AgentExited says that the task's process ended ("agent.exited").
type AgentExited struct {
	Code   int        `json:"code"`             // as a shell sees it: 128+n for signal n
	Signal string     `json:"signal,omitempty"` // "SIGKILL"; empty unless a signal ended it
	Reason ExitReason `json:"reason"`
	Error  string     `json:"error,omitempty"`
	// Silent says that the guest did not live to tell: the code is the runner's, and the numbers are not known.
	Silent bool `json:"silent,omitempty"`

	OOMKills   int64 `json:"oom_kills"`   // processes killed for memory; this and the next three: -1 when not visible
	PeakMemory int64 `json:"peak_memory"` // bytes; it can exceed the limit by what the kernel had to charge
	CPUMicros  int64 `json:"cpu_micros"`  // CPU time of the container
	PeakPIDs   int64 `json:"peak_pids"`   // processes and threads at a time, the guest's included
}

// ConnectionRefused is a connection that the sandbox tried ("connection.refused").
// Count is the total for this proto, address, port and name so far: a later event replaces an earlier one.
// Send it through [Refusals], which bounds the number of events.
type ConnectionRefused struct {
	Proto   string `json:"proto"` // tcp, udp, icmp, other
	Address string `json:"address"`
	Port    uint16 `json:"port"`           // 0 when the protocol has none
	Name    string `json:"name,omitempty"` // the name that was resolved to Address, if any
	Reason  string `json:"reason"`
	Add     string `json:"add,omitempty"`  // an item for network.allow of the policy file that would allow it, if there is one
	Leak    string `json:"leak,omitempty"` // as in Request
	Count   uint64 `json:"count"`
}

// Connection is a connection that the policy allowed ("connection"). An event replaces an earlier one with the same ID; with
// ID 0, which stands for the total of many, one with the same name (or address, if there is none), port, outcome and rule.
type Connection struct {
	ID   uint64 `json:"id"`
	Open bool   `json:"open"` // it is carried now; another event follows at its end

	Name       string `json:"name,omitempty"` // that the sandbox resolved
	Address    string `json:"address"`        // that the sandbox dialled; synthetic if it resolved a name
	Port       uint16 `json:"port"`
	Upstream   string `json:"upstream,omitempty"`    // the address and port that the runner dialled
	Via        string `json:"via,omitempty"`         // host:port of the proxy that the runner used
	Protocol   string `json:"protocol,omitempty"`    // tls, http, tcp
	ServerName string `json:"server_name,omitempty"` // server name or Host that the sandbox sent

	Outcome string `json:"outcome"` // allowed, failed, or refused after its first bytes
	Code    string `json:"code"`    // a stable word for the reason
	Reason  string `json:"reason"`
	Rule    string `json:"rule"`  // that decided, as an item of the policy file
	Place   string `json:"place"` // of the rule, as file:line:column

	Up       int64         `json:"up"`   // bytes from the sandbox
	Down     int64         `json:"down"` // bytes to it
	Requests uint64        `json:"requests"`
	Leak     string        `json:"leak,omitempty"` // as in Request
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration_ns"`
	Count    uint64        `json:"count"` // connections in this record
}

// The outcomes of a [Connection].
const (
	ConnectionAllowed    = "allowed"
	ConnectionFailed     = "failed"  // allowed, but the host could not be reached
	ConnectionWasRefused = "refused" // after its first bytes; a [ConnectionRefused] is there too
)

// NameRefused is a name that the sandbox asked for ("name.refused"). Count as in [ConnectionRefused].
type NameRefused struct {
	Name  string `json:"name"`
	Type  string `json:"type"`          // A, AAAA, TXT, TYPE65, ...
	Add   string `json:"add,omitempty"` // as in ConnectionRefused
	Count uint64 `json:"count"`
}

// RefusalsUnlisted counts refusals of targets beyond the bound of [Refusals] ("refusals.unlisted").
// The counts are totals so far: a later event replaces an earlier one.
type RefusalsUnlisted struct {
	Connections uint64 `json:"connections"`
	Names       uint64 `json:"names"`
}

// OutputTruncated says that a stream passed its limit ("output.truncated").
type OutputTruncated struct {
	Stream string `json:"stream"` // stdout, stderr
	Limit  int64  `json:"limit"`
	Bytes  int64  `json:"bytes"` // that came in all
}

// ChangesExtracted counts the change set ("changes.extracted").
type ChangesExtracted struct {
	Added    int    `json:"added"`
	Modified int    `json:"modified"`
	Deleted  int    `json:"deleted"`
	Renamed  int    `json:"renamed"`
	Mode     int    `json:"mode"`             // only mode bits changed
	Git      int    `json:"git"`              // of all, inside .git: not in the patch
	Reject   int    `json:"reject"`           // of all, paths of the tier reject
	Warn     int    `json:"warn"`             // of all, paths of the tier warn
	Bytes    int64  `json:"bytes"`            // new content
	Digest   string `json:"digest,omitempty"` // of changes.json
	Patch    string `json:"patch,omitempty"`  // digest of changes.patch
	// Tree is the id of the git tree that the commit has with the changes; TreeDetail says why it is not known, where it could be.
	Tree       string `json:"tree,omitempty"`
	TreeDetail string `json:"tree_detail,omitempty"`
}

// Total is the number of changes.
func (c ChangesExtracted) Total() int {
	return c.Added + c.Modified + c.Deleted + c.Renamed + c.Mode
}

// ProtectedTouched is a change to a path that executes on the host or in CI ("protected.touched").
type ProtectedTouched struct {
	Path   string `json:"path"`
	Tier   string `json:"tier"` // reject, warn
	Reason string `json:"reason"`
}

// Warning is something that the user should know ("warning").
type Warning struct {
	Message string `json:"message"`
	Mend    string `json:"mend,omitempty"`
}

// EventsDropped counts events of one kind beyond MaxPerKind ("events.dropped"); it comes before run.finished.
type EventsDropped struct {
	Dropped string `json:"dropped"` // the kind
	Count   uint64 `json:"count"`
}

// Counts are totals over the run.
type Counts struct {
	AllowedConnections uint64 `json:"allowed_connections"`
	FailedConnections  uint64 `json:"failed_connections"` // allowed, but the host could not be reached
	Up                 int64  `json:"up"`                 // bytes that left the sandbox
	Down               int64  `json:"down"`               // bytes that came
	RefusedConnections uint64 `json:"refused_connections"`
	RefusedNames       uint64 `json:"refused_names"`
	Requests           uint64 `json:"requests"` // on connections that were looked into, and not refused
	RefusedRequests    uint64 `json:"refused_requests"`
	Lowered            uint64 `json:"lowered"`
	Warnings           uint64 `json:"warnings"`
	Protected          uint64 `json:"protected"`
}

// RunFinished is the last event of every run whose runner lived ("run.finished").
// Use [Recorder.Finish], which fills in Duration, Phases and Counts.
type RunFinished struct {
	Outcome  Outcome                 `json:"outcome"`
	ExitCode int                     `json:"exit_code"` // of `agent-sandbox run`
	Reason   string                  `json:"reason,omitempty"`
	Duration time.Duration           `json:"duration_ns"`
	Phases   map[Phase]time.Duration `json:"phases_ns"`
	Counts   Counts                  `json:"counts"`
}

// Unknown is an event that a newer version wrote. It is only ever read, never emitted.
type Unknown struct {
	Name string
	Raw  json.RawMessage
}

// MarshalJSON gives back what was read.
func (u Unknown) MarshalJSON() ([]byte, error) { return u.Raw.MarshalJSON() }

// Contract is the version of the event contract: a change that an old reader would misread raises it.
const Contract = 1
