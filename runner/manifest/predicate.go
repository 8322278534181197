package manifest

import (
	"encoding/json"
	"time"
)

// Predicate is one run: what was allowed, what was tried, and what was changed.
//
// The tag `from` tells where a field comes from; it holds for all below it that has no tag of its own:
//
//	observed   the runner saw, measured or computed it, outside the sandbox
//	asserted   somebody said so: the caller, the CI job, the policy's author, or the guest inside
//	inherited  from a system that the runner relies on: the engine, the repository, a credential's issuer
type Predicate struct {
	// Run is the id of the run.
	Run string `json:"run" from:"observed"`
	// Outcome is how it ended.
	Outcome Outcome `json:"outcome" from:"observed"`
	// Invocation is who started what.
	Invocation Invocation `json:"invocation" from:"asserted"`
	// Source is the state of the project when the run started.
	Source *Source `json:"source,omitempty" from:"inherited"`
	// Environment is what the run ran in.
	Environment Environment `json:"environment" from:"inherited"`
	// Policy is what governed the run.
	Policy Policy `json:"policy" from:"observed"`
	// Isolation is how the agent was held.
	Isolation Isolation `json:"isolation" from:"observed"`
	// Credentials are those that the run could use, sorted by name. Values are never part of a manifest.
	Credentials []Credential `json:"credentials" from:"observed"`
	// Egress is what left the sandbox, and what was refused.
	Egress Egress `json:"egress" from:"observed"`
	// Workspace is what the agent changed.
	Workspace *Workspace `json:"workspace,omitempty" from:"observed"`
	// Resources is what the agent could use and did use.
	Resources Resources `json:"resources" from:"observed"`
	// Logs are the agent's outputs, as they were kept.
	Logs []Log `json:"logs" from:"observed"`
	// Events is the audit log.
	Events Events `json:"events" from:"observed"`
	// Included are contents that the policy's `evidence.include` asks for, sorted by name. Without it a manifest has digests alone.
	Included []Included `json:"included" from:"observed"`
	// Warnings is what the runner told the user, bounded.
	Warnings Warnings `json:"warnings" from:"observed"`
	// Missing says which fields could not be filled in, and why. What is neither there nor listed here does not apply to the run.
	Missing []Missing `json:"missing" from:"observed"`
	// Clipped lists the fields with texts or lists that were shortened to keep the manifest below 1 MiB.
	Clipped []string `json:"clipped" from:"observed"`
	// Provenance maps each field to where it comes from: `observed`, `asserted` or `inherited`. A field that is not in it has the
	// provenance of what it is part of.
	Provenance map[string]string `json:"provenance" from:"observed"`
}

// Outcome is how a run ended.
type Outcome struct {
	// Result is `success`, `failure`, `timeout`, `cancelled`, `oom`, `refused`, `error` or `interrupted`. The first two and `oom` follow from
	// what the guest says of the agent's end.
	Result string `json:"result" enum:"success,failure,timeout,cancelled,oom,refused,error,interrupted"`
	// Partial says that the record ends before the run did: the runner died, and whoever found the run wrote this.
	Partial bool `json:"partial"`
	// ExitCode is the exit status of `agent-sandbox run`; that is 125 instead where this manifest could then not be signed, or not be stored.
	ExitCode int `json:"exit_code"`
	// Reason says why, where the result alone does not tell.
	Reason string `json:"reason,omitempty"`
	// Started is the time of the first event.
	Started time.Time `json:"started"`
	// Finished is the time of the last event.
	Finished time.Time `json:"finished"`
	// DurationNS is the time from the first event to the last, in nanoseconds.
	DurationNS int64 `json:"duration_ns"`
	// Phases are the parts of the run, in the order of their start. They may overlap.
	Phases []Phase `json:"phases"`
	// Agent is how the agent's process ended; it is not there if none was started.
	Agent *AgentEnd `json:"agent,omitempty" from:"asserted"`
}

// Phase is a part of a run.
type Phase struct {
	// Name is `resolve`, `workspace`, `create`, `start`, `measure`, `agent`, `extract` or `clean`.
	Name string `json:"name"`
	// DurationNS is how long it took, in nanoseconds.
	DurationNS int64 `json:"duration_ns"`
	// Open says that it never ended.
	Open bool `json:"open,omitempty"`
}

// AgentEnd is how the agent's process ended. The guest says so, from inside.
type AgentEnd struct {
	// Code is the exit status as a shell sees it: 128+n for signal n.
	Code int `json:"code"`
	// Signal is the one that ended it.
	Signal string `json:"signal,omitempty"`
	// Reason is `exited`, `signalled`, `oom` or `not-started` by the guest's word, or `timeout`, `cancelled` or `killed`, which the runner saw
	// itself.
	Reason string `json:"reason"`
	// Error says why it could not be started.
	Error string `json:"error,omitempty"`
}

// Invocation is who started what.
type Invocation struct {
	// Trigger is `local`, `github-actions` or `act`.
	Trigger string `json:"trigger" enum:"local,github-actions,act"`
	// Actor is the user's name, as the operating system or the CI job has it.
	Actor string `json:"actor,omitempty"`
	// ActorID is GitHub's id of the actor.
	ActorID string `json:"actor_id,omitempty"`
	// Repository is the owner and name of the repository that the CI job belongs to.
	Repository string `json:"repository,omitempty"`
	// RepositoryID is GitHub's id of that repository; it outlives a change of name.
	RepositoryID string `json:"repository_id,omitempty"`
	// RepositoryOwnerID is GitHub's id of its owner.
	RepositoryOwnerID string `json:"repository_owner_id,omitempty"`
	// Workflow is the path and ref of the workflow file.
	Workflow string `json:"workflow,omitempty"`
	// WorkflowSHA is the commit of the workflow file.
	WorkflowSHA string `json:"workflow_sha,omitempty"`
	// Job is the id of the CI job.
	Job string `json:"job,omitempty"`
	// Event is what started the workflow, such as `pull_request`.
	Event string `json:"event,omitempty"`
	// Ref is the git ref that the workflow runs for.
	Ref string `json:"ref,omitempty"`
	// SHA is the commit that the workflow runs for.
	SHA string `json:"sha,omitempty"`
	// RunURL leads to the CI run.
	RunURL string `json:"run_url,omitempty"`
	// Project is the name of the project's directory, without where it is.
	Project string `json:"project"`
	// Command is what was started inside. A task that was given in words is left out, and stands as `{task}`.
	Command []string `json:"command" from:"observed"`
	// CommandSHA256 is the digest of the command with nothing left out: its arguments, each followed by a NUL byte.
	CommandSHA256 string `json:"command_sha256" from:"observed"`
	// TaskSHA256 is the digest of the task as the caller gave it, in words.
	TaskSHA256 string `json:"task_sha256,omitempty" from:"observed"`
	// PromptSHA256 is the digest of what the agent was given in the end, where that is more than the task.
	PromptSHA256 string `json:"prompt_sha256,omitempty" from:"observed"`
	// Agent is the name of the agent's kit, if the command is that of one.
	Agent string `json:"agent,omitempty" from:"observed"`
	// AgentVersion is the version that the kit was written for; what is in the image may be another.
	AgentVersion string `json:"agent_version,omitempty"`
	// Terminal says that a person could talk with the agent.
	Terminal bool `json:"terminal" from:"observed"`
	// TimeoutNS is the time limit of the task, in nanoseconds.
	TimeoutNS int64 `json:"timeout_ns" from:"observed"`
}

// Source is the state of the project when the run started.
type Source struct {
	// Repositories are those that the project is a copy of: one, or none outside of git.
	Repositories []Repository `json:"repositories"`
	// Commit is the commit that was checked out.
	Commit string `json:"commit,omitempty"`
	// Ref is the branch that was checked out.
	Ref string `json:"ref,omitempty"`
	// Dirty says whether files differed from that commit. It is not there if nobody could tell.
	Dirty *bool `json:"dirty,omitempty"`
	// DirtySHA256 identifies those differences: it is the digest of git's list of them, each with the digest of its contents.
	DirtySHA256 string `json:"dirty_sha256,omitempty"`
	// DirtyFiles is how many files differed.
	DirtyFiles int `json:"dirty_files,omitempty"`
}

// Repository is where the project comes from.
type Repository struct {
	// ID is GitHub's id, where it is known.
	ID string `json:"id,omitempty" from:"asserted"`
	// Name is `owner/name`, where the URL tells it.
	Name string `json:"name,omitempty"`
	// URL is the remote's, without user and password.
	URL string `json:"url"`
}

// Environment is what the run ran in.
type Environment struct {
	// Runner is the program outside of the sandbox.
	Runner Program `json:"runner" from:"observed"`
	// Guest is our program inside of the sandbox.
	Guest *Program `json:"guest,omitempty" from:"observed"`
	// Image is what the sandbox was made of.
	Image *Image `json:"image,omitempty"`
	// Engine is what ran it.
	Engine *Engine `json:"engine,omitempty"`
}

// Program is one of our programs.
type Program struct {
	// Version is what it calls itself.
	Version string `json:"version,omitempty"`
	// SHA256 is the digest of its file.
	SHA256 string `json:"sha256,omitempty"`
}

// Image is a container image.
type Image struct {
	// Reference is how the caller or the policy names it.
	Reference string `json:"reference" from:"asserted"`
	// ID is what the engine calls it: the digest of its configuration.
	ID string `json:"id"`
	// Digest is that of its manifest in the registry, where it is known.
	Digest string `json:"digest,omitempty"`
	// Lock is `locked` (the lock file, or the reference itself, names this very image), `override` (given for this run alone) or `unlocked`.
	Lock string `json:"lock" from:"observed" enum:"locked,override,unlocked"`
}

// Engine is a container engine.
type Engine struct {
	// Version is that of the engine.
	Version string `json:"version,omitempty"`
	// API is the version of its interface that was used.
	API string `json:"api,omitempty"`
	// Kernel is the release of the kernel.
	Kernel string `json:"kernel,omitempty"`
	// Runtime is what starts the containers, such as `runc`.
	Runtime string `json:"runtime,omitempty"`
	// Platform is the operating system and the architecture.
	Platform string `json:"platform,omitempty"`
	// Cgroup is the version of the control groups.
	Cgroup int `json:"cgroup,omitempty"`
}

// Policy is what governed the run.
type Policy struct {
	// Loaded is false if the file is no valid policy; then nothing was run.
	Loaded bool `json:"loaded"`
	// Origin says where it was read from: `file` (the caller named it), `project`, `base-branch` (of a pull request) or `default` (there is no file).
	Origin string `json:"origin" enum:"file,project,base-branch,default"`
	// Path is that of the file, as the caller sees it.
	Path string `json:"path,omitempty"`
	// Commit is the one that the file was read from, where it was not the working tree.
	Commit string `json:"commit,omitempty"`
	// Digest identifies what the policy means, whatever its spelling: see `agent-sandbox policy check`.
	Digest string `json:"digest,omitempty"`
	// CeilingDigest is that of the organisation's policy, which the project's can only narrow.
	CeilingDigest string `json:"ceiling_digest,omitempty"`
	// Compiled is the policy with its defaults, as `agent-sandbox run --dry-run --json` has it.
	Compiled json.RawMessage `json:"compiled,omitempty"`
	// Found are the hosts that the configuration of tools gave to bundles of the policy.
	Found []FoundHost `json:"found"`
	// Problems are what is wrong with a policy that was refused.
	Problems []string `json:"problems"`
}

// FoundHost is a host that a bundle got from the configuration of a tool.
type FoundHost struct {
	// Bundle is its name in the policy.
	Bundle string `json:"bundle"`
	// Host is the item of `network.allow` that was added.
	Host string `json:"host"`
	// Source is the file that names it.
	Source string `json:"source"`
}

// Credential is a secret that the run could use.
type Credential struct {
	// Name is that in the policy, with a repository or an owner in brackets behind it if the credential takes several tokens.
	Name string `json:"name"`
	// Source is the kind of the origin, such as `env` or `github-oidc`.
	Source string `json:"source"`
	// Deliver is `inject` (the sandbox never had it), `env` or `file`.
	Deliver string `json:"deliver"`
	// Hosts are those that it could be sent to.
	Hosts []string `json:"hosts"`
	// Requested is what the policy asks for.
	Requested *Scope `json:"requested,omitempty" from:"asserted"`
	// Granted is what was issued.
	Granted *Scope `json:"granted,omitempty" from:"inherited"`
	// Used is what the requests needed, as far as GitHub told.
	Used map[string]string `json:"used,omitempty" from:"inherited"`
	// Broad is the policy's reason for a credential that is not limited to the project.
	Broad string `json:"broad,omitempty" from:"asserted"`
	// Age is how old it is, of one that somebody keeps and whose `rotate` the policy sets.
	Age *CredentialAge `json:"age,omitempty" from:"asserted"`
	// Issued is when it was issued or read.
	Issued *time.Time `json:"issued,omitempty"`
	// Renewed is how often it was replaced during the run.
	Renewed int `json:"renewed"`
	// Expires is when it ends by itself.
	Expires *time.Time `json:"expires,omitempty" from:"inherited"`
	// Revocation is `verified` (it was seen not to work any more), `accepted`, `failed` or `expired`; it is not there for what can't be revoked.
	Revocation string `json:"revocation,omitempty"`
	// RevocationDetail says more.
	RevocationDetail string `json:"revocation_detail,omitempty"`
	// TokenSHA256 is the base64 of the SHA-256 of an issued token, by which GitHub's audit log finds its uses. A key that somebody keeps has none here.
	TokenSHA256 string `json:"token_sha256,omitempty"`
	// Broker is who issued it.
	Broker string `json:"broker,omitempty"`
	// Identity is the trust policy at the broker.
	Identity string `json:"identity,omitempty"`
	// IssuanceID finds it in the broker's record.
	IssuanceID string `json:"issuance_id,omitempty" from:"inherited"`
	// Requests is how many requests it was attached to.
	Requests uint64 `json:"requests"`
	// Leaks is how often its placeholder was refused on its way to a host where it does not belong.
	Leaks uint64 `json:"leaks"`
}

// CredentialAge is how old a credential is.
type CredentialAge struct {
	// State is `fresh`, `overdue`, or `unknown`: an age that nobody knows counts as old.
	State string `json:"state" enum:"fresh,overdue,unknown"`
	// LimitNS is how old the policy lets it become, in nanoseconds.
	LimitNS int64 `json:"limit_ns"`
	// Enforced is true if the policy refuses a run unless the credential is known to be younger.
	Enforced bool `json:"enforced"`
	// Since is when it was made, as far as that is known.
	Since *time.Time `json:"since,omitempty"`
	// AtLeast is true if it was there at that time, and may be older.
	AtLeast bool `json:"at_least"`
	// Basis is what tells: `rotated` by this program, the `store` or `file` that it is in, `declared` in the policy, or when it was `first-seen`.
	Basis string `json:"basis,omitempty"`
	// Provenance is `observed`, `asserted` or `unknown`.
	Provenance string `json:"provenance"`
}

// Scope is what a credential may be used for.
type Scope struct {
	// Repositories are those that it is limited to.
	Repositories []ScopeRepository `json:"repositories"`
	// Permissions maps GitHub's permissions to `read`, `write` or `admin`.
	Permissions map[string]string `json:"permissions"`
	// Push are the refs that may be pushed to.
	Push []string `json:"push"`
}

// ScopeRepository is a repository of a scope.
type ScopeRepository struct {
	// ID is GitHub's, where it is known.
	ID int64 `json:"id,omitempty"`
	// Name is `owner/name`.
	Name string `json:"name"`
}
