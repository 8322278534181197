package event

// Trigger is what started a run.
type Trigger string

// The triggers.
const (
	TriggerLocal   Trigger = "local"
	TriggerActions Trigger = "github-actions"
	TriggerAct     Trigger = "act" // a workflow on somebody's own machine
)

// Invocation is who or what started a run, as the operating system or the CI job says.
type Invocation struct {
	Trigger           Trigger `json:"trigger,omitempty"`
	Actor             string  `json:"actor,omitempty"` // name of the user
	ActorID           string  `json:"actor_id,omitempty"`
	Repository        string  `json:"repository,omitempty"` // owner/name of the job's; the next two outlive a change of it
	RepositoryID      string  `json:"repository_id,omitempty"`
	RepositoryOwnerID string  `json:"repository_owner_id,omitempty"`
	Workflow          string  `json:"workflow,omitempty"` // path and ref of the file
	WorkflowSHA       string  `json:"workflow_sha,omitempty"`
	Job               string  `json:"job,omitempty"`
	Event             string  `json:"event,omitempty"`
	Ref               string  `json:"ref,omitempty"`
	SHA               string  `json:"sha,omitempty"`
	RunURL            string  `json:"run_url,omitempty"`
}

// Task is what the agent was given to do in words, by digest.
type Task struct {
	SHA256       string `json:"sha256"`
	PromptSHA256 string `json:"prompt_sha256,omitempty"` // of what the agent got in the end, if that is more
	Args         []int  `json:"args,omitempty"`          // the arguments of Argv that hold it
}

// SourceState is the project as it was before the agent existed ("source.state").
type SourceState struct {
	Repositories []SourceRepository `json:"repositories"` // none: it is no git repository, or has no remote
	Commit       string             `json:"commit,omitempty"`
	Ref          string             `json:"ref,omitempty"`
	// Dirty: files differ from the commit. Nil: nobody could tell, and Detail says why.
	Dirty       *bool  `json:"dirty,omitempty"`
	DirtySHA256 string `json:"dirty_sha256,omitempty"` // of the list of them, with the digests of their contents
	DirtyFiles  int    `json:"dirty_files,omitempty"`
	Detail      string `json:"detail,omitempty"`
}

// SourceRepository is a remote of the project.
type SourceRepository struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"` // owner/name
	URL  string `json:"url"`            // without user and password
}

// RunnerIdentified names the program that ran the run ("runner.identified").
type RunnerIdentified struct {
	SHA256 string `json:"sha256"`           // of its file
	Detail string `json:"detail,omitempty"` // why there is none
}

// OutputKept is what a log has of the agent's output, when that has ended ("output.kept").
type OutputKept struct {
	Stream string `json:"stream"` // stdout, stderr
	SHA256 string `json:"sha256"` // of what was kept
	Bytes  int64  `json:"bytes"`  // that were kept
	Lost   int64  `json:"lost"`   // that were not
}

// FileNamed is a file of the project, as the agent left it, that the policy's evidence.outputs names ("file.named").
type FileNamed struct {
	Name   string `json:"name"`
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"` // empty: there is no such file
	Bytes  int64  `json:"bytes"`
	Detail string `json:"detail,omitempty"` // why there is no digest
}

// Kind is "source.state".
func (SourceState) Kind() string { return "source.state" }

// Kind is "runner.identified".
func (RunnerIdentified) Kind() string { return "runner.identified" }

// Kind is "output.kept".
func (OutputKept) Kind() string { return "output.kept" }

// Kind is "file.named".
func (FileNamed) Kind() string { return "file.named" }

func (FileNamed) sealed()        {}
func (SourceState) sealed()      {}
func (RunnerIdentified) sealed() {}
func (OutputKept) sealed()       {}
