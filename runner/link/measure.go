package link

// Measurement is what the guest read from the kernel about the process that becomes the agent, about itself
// and about their surroundings. The runner compares it with the plan before it lets the agent start.
type Measurement struct {
	Agent      Process           `json:"agent"`
	Guest      Process           `json:"guest"`
	Namespaces map[string]string `json:"namespaces"` // /proc/self/ns: "net" -> "net:[4026532201]"
	Mounts     []Mount           `json:"mounts"`     // /proc/self/mountinfo, in its order
	Interfaces []string          `json:"interfaces"` // /proc/net/dev
	Cgroup     Limits            `json:"cgroup"`
	Network    Network           `json:"network"`
	Isolation  Isolation         `json:"isolation"`
	Trust      *Trusted          `json:"trust,omitempty"` // nil: there is nothing to trust besides the image's own
	Kernel     string            `json:"kernel"`          // uname release
}

// Isolation is what the process that becomes the agent found when it tried, with the agent's rights.
type Isolation struct {
	// Reach lists the ways to the guest that were open, such as "signal" or "/proc/1/mem"; none in a sandbox that holds.
	Reach []string `json:"reach"`
	// Exposed lists the files that change the kernel and could be opened for writing; none.
	Exposed []string `json:"exposed"`
	// StrictCalls: a system call was denied that the strict profile alone denies.
	StrictCalls bool `json:"strict_calls"`
	// Control lists the attempts that worked where they must, see [ControlReach]: without it the failure of one proves nothing.
	Control []string `json:"control"`
	// GuestDumpable: the guest could be traced by its own user (PR_GET_DUMPABLE).
	GuestDumpable bool `json:"guest_dumpable"`
	// AgentOOM and GuestOOM tell whom the kernel kills first when memory runs out: the higher one (proc_pid_oom_score_adj(5)).
	AgentOOM int `json:"agent_oom"`
	GuestOOM int `json:"guest_oom"`
}

// The attempts of an [Isolation] whose like was tried where it has to work.
const (
	ControlReach       = "reach"        // the process reaches itself
	ControlExposed     = "exposed"      // it opens a file of its own in /proc for writing
	ControlStrictCalls = "strict_calls" // it makes a call of the same kind that no filter denies
)

// Process holds the lines of /proc/PID/status that decide what a process may do (proc_pid_status(5)).
// UID and GID have the real, effective, saved and file system id; capability sets are hexadecimal, as the kernel prints them.
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
	Seccomp    int    `json:"seccomp"` // 2: a filter is in force
	Threads    int    `json:"threads"` // how many threads were seen with these same values
}

// Mount is one mount point.
type Mount struct {
	Target   string `json:"target"`
	Type     string `json:"type"`
	ReadOnly bool   `json:"read_only"`
	Options  string `json:"options"` // per-mount options, such as "rw,nosuid,nodev"
	Root     string `json:"root"`    // which part of the file system is mounted
}

// Limits are the control group's limits, -1 for "none" and 0 where the container cannot see them.
type Limits struct {
	Version     int   `json:"version"` // 1 or 2, 0 unknown
	MemoryBytes int64 `json:"memory_bytes"`
	PIDs        int64 `json:"pids"`
	CPUMicros   int64 `json:"cpu_quota_micros"` // per 100 ms period
}

// Network says which of the capture's parts are in force.
type Network struct {
	Capture   bool `json:"capture"`    // a dial to an address elsewhere arrived at the guest's relay, a question at its resolver
	IPv6      bool `json:"ipv6"`       // the same for IPv6
	Datagrams bool `json:"datagrams"`  // refused UDP and ICMP packets are reported
	Lane      bool `json:"lane"`       // connections go over a lane, whose socket is gone
	Listeners bool `json:"listeners"`  // instead of the capture: the resolver and what names lead to are listened on, all else fails
	RelayPort int  `json:"relay_port"` // TCP port of the relay on loopback
	DNSPort   int  `json:"dns_port"`   // UDP and TCP port of the resolver on loopback
	// Reasons says why a part is missing.
	Reasons []string `json:"reasons,omitempty"`
}
