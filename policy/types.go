package policy

import (
	"slices"
	"time"
)

// Version is the only format version that this program reads and writes.
const Version = 1

// Policy is one valid, complete policy: what the file said, with the defaults in every place it said nothing.
// Only [Load], [Default] and [Narrow] make one, so whoever holds a *Policy needs no further checks.
// It is not to be changed after it was made.
type Policy struct {
	Version     int
	Image       Image
	Agent       string     // name of a kit, see [Policy.Kit]; empty: the command is given on the command line
	Agents      []OwnAgent // sorted by name
	User        User
	Seccomp     Seccomp
	Workspace   Workspace
	Mounts      []Mount
	Env         []EnvVar
	Network     Network
	Credentials []Credential // sorted by name
	Caches      []string     // sorted, of [CacheKinds]
	Resources   Resources
	Evidence    Evidence

	name   string           // what the loader was told the file is called
	places map[string]Place // dotted path of every key and item that the file holds
}

// Name is the file name that the policy was loaded under; empty for [Default].
func (p *Policy) Name() string { return p.name }

// Place is where the file sets the key or item with this path ("network.allow[2].host").
// The zero Place means that it doesn't, so that the value is the default.
func (p *Policy) Place(path string) Place { return p.places[path] }

// Image says what the sandbox runs: a reference or something to build, never both; neither means the program's default.
type Image struct {
	Reference string   // a Docker reference, or the id of an image that exists only in the engine
	Build     string   // slash-separated path of a Dockerfile or a devcontainer.json, relative to the project
	Target    string   // the stage of it to build; empty for the last
	Agents    []string // kits that are installed on top, sorted; see [Policy.ImageAgents]
}

// IsZero tells that the policy says nothing about the image.
func (i Image) IsZero() bool { return i.equal(Image{}) }

func (i Image) equal(o Image) bool {
	return i.Reference == o.Reference && i.Build == o.Build && i.Target == o.Target && slices.Equal(i.Agents, o.Agents)
}

// User is the identity of the agent inside.
type User string

// The users. The empty string is never in a valid policy.
const (
	UserAgent User = "agent" // an unprivileged uid (the default)
	UserRoot  User = "root"  // uid 0 without capabilities
)

// Seccomp names the system call filter.
type Seccomp string

// The filters.
const (
	SeccompStrict  Seccomp = "strict"  // the engine's default made stricter (the default)
	SeccompDefault Seccomp = "default" // the engine's default
)

// WorkspaceMode is how the agent sees the project.
type WorkspaceMode string

// The modes, design section 7.
const (
	ModeOverlay  WorkspaceMode = "overlay"  // copy on write; the host's files stay as they are (the default)
	ModeBind     WorkspaceMode = "bind"     // the project itself, protected paths read-only
	ModeReadonly WorkspaceMode = "readonly" // the project itself, read-only
	ModeCopy     WorkspaceMode = "copy"     // copied in and out, for engines that can't see the host's files
	ModeAuto     WorkspaceMode = "auto"     // overlay, else copy; what was used is recorded
)

// Workspace is the agent's view of the project.
type Workspace struct {
	Mode WorkspaceMode
	// Hide starts with the default patterns ([DefaultHide]), then come the file's own. The order counts
	// and a pattern can be negated, so match through [NewPatternSet], not one by one.
	Hide []Pattern
	// Protect adds to the default protected paths; see [Workspace.Protector].
	Protect Protect
}

// Protect names further paths that the change set marks. It can't take a default away.
type Protect struct {
	Reject []Pattern // apply refuses without --allow-protected
	Warn   []Pattern // apply says so
}

// Tier is how much care a changed path needs.
type Tier string

// The tiers.
const (
	TierNone   Tier = ""       // an ordinary path
	TierWarn   Tier = "warn"   // shown to whoever applies
	TierReject Tier = "reject" // not applied without --allow-protected PATH
)

// Mount is a path of the host that the agent sees beside the project.
type Mount struct {
	Source   string // absolute, "~/...", "./..." or "../..." (relative to the project); slash-separated
	Target   string // absolute path inside
	ReadOnly bool   // true unless the file says readonly: false
}

// EnvVar is one variable of the agent's environment.
type EnvVar struct {
	Name     string
	Value    string // when FromHost is false
	FromHost bool   // the value is that of the caller's environment; unset there means unset inside
}

// Network holds what may be reached. What no Allow rule matches is refused, and Deny wins over Allow.
type Network struct {
	Capture Capture
	Allow   []Rule
	Deny    []Rule
	Limits  Limits // of the whole run
}

// Capture says how much of the network an engine has to let the sandbox see.
type Capture string

// The captures. The empty string is never in a valid policy, and means the first.
const (
	CaptureRequired Capture = "required" // every dial is decided and recorded, or the run is refused (the default)
	CaptureAuto     Capture = "auto"     // where the engine can't: what is not allowed fails all the same, but nobody sees it
)

// Limits bound the traffic of a run or of one rule; zero means no limit of its own.
type Limits struct {
	Upload   Bytes
	Download Bytes
	Idle     time.Duration // a connection without traffic for so long is closed
	Connect  time.Duration // time for the runner's own dial
}

// Deliver is how a credential reaches the agent.
type Deliver string

// The deliveries.
const (
	DeliverInject Deliver = "inject" // the runner attaches it on the wire; a placeholder is inside (the default)
	DeliverEnv    Deliver = "env"    // an environment variable inside: lowered assurance
	DeliverFile   Deliver = "file"   // a file on tmpfs inside, mode 0400: lowered assurance
)

// Credential is one secret that the run may use.
type Credential struct {
	Name          string
	From          Origin
	Broker        string            // https URL of the token broker or of Vault
	Identity      string            // name of the trust policy at the broker, of the role at Vault, or a service account at Google
	Key           Origin            // private key of a GitHub App: env or file
	Repositories  []string          // "self" or "owner/name"
	Permissions   map[string]string // GitHub permission -> read, write or admin
	Push          []string          // full ref patterns: "refs/heads/agent/*"
	PublicRead    bool              // what is public of other repositories may be read, without the credential
	Deliver       Deliver
	Env           string // variable for the value (deliver: env), the path (deliver: file) or the placeholder
	Hosts         []Host // where the runner may attach it
	Header        string // header name; empty means that of the kit or bundle
	Scheme        string // bearer, basic or raw
	Username      string // for scheme basic
	Rules         []HTTPRule
	Rotate        time.Duration // zero: no schedule
	RotateEnforce bool          // a run with a credential that is not known to be younger is refused
	Rotated       time.Time     // when somebody says that it was made; zero: nobody does
	Rotation      Rotation
	AllowBroad    string // the reason for accepting a credential that is not scoped to a project
	Place         Place
}

// Origin is where a credential comes from, "kind:argument" in the file ("env:NAME", "exec:gh auth token").
type Origin struct {
	Kind     string // one of [OriginKinds]
	Argument string // its meaning depends on the kind
}

// String is the form of the file; the zero Origin is empty.
func (o Origin) String() string {
	if o.Argument == "" {
		return o.Kind
	}
	return o.Kind + ":" + o.Argument
}

// Resources bound what a run may use.
type Resources struct {
	CPUs    float64
	Memory  Bytes
	PIDs    int64
	Timeout time.Duration // wall clock of the task
	Grace   time.Duration // between SIGTERM and SIGKILL
	Tmp     Bytes         // size of /tmp
	Run     Bytes         // size of /run
	Home    Bytes         // size of the home directory
	Shm     Bytes         // size of /dev/shm
	Disk    Bytes         // of the host's disk that the agent's changes may take
	Output  Bytes         // of stdout and stderr together that is kept in the run's logs
}

// Evidence says what the manifest of a run holds and who signs it.
type Evidence struct {
	Sign    string        // auto, keyless, key or none
	Retain  time.Duration // how long the evidence is kept
	Include []string      // sorted, of [EvidenceParts]: contents, not only digests
	Outputs []Output      // files of the project that the manifest is about, sorted by name
	Attest  bool          // the manifest is stored with GitHub's attestations
}

// Output is a file that a run makes, or keeps, and that its manifest names with its digest.
type Output struct {
	Name string
	Path string // slash-separated, relative to the project
}

// Default is the policy of a project without a file: no network, no credentials, nothing of the host but the
// project, and the host's files untouched.
func Default() *Policy {
	return &Policy{
		Version: Version,
		User:    UserAgent,
		Seccomp: SeccompStrict,
		Workspace: Workspace{
			Mode: ModeOverlay,
			Hide: DefaultHide(),
		},
		Network:   Network{Capture: CaptureRequired},
		Resources: defaultResources(),
		Evidence:  Evidence{Sign: "auto", Retain: 90 * day},
	}
}

// defaultResources suit a laptop: a build and its tests fit, a bomb does not hurt.
func defaultResources() Resources {
	return Resources{
		CPUs:    2,
		Memory:  4 * GiB,
		PIDs:    512,
		Timeout: 30 * time.Minute,
		Grace:   10 * time.Second,
		Tmp:     512 * MiB, // tmpfs counts against memory, so all four together stay well below it
		Run:     16 * MiB,
		Home:    512 * MiB,
		Shm:     64 * MiB, // what Docker gives
		Disk:    10 * GiB,
		Output:  1 * GiB,
	}
}
