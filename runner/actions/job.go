package actions

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/runner/secret"
)

// Job is what a step is told about the job that it is part of.
type Job struct {
	Workspace string // the repository's directory, as this process sees it

	Repository   string // owner/name
	RepositoryID int64  // 0: not told (act)
	OwnerID      int64
	Actor        string // who started it
	Event        string // name of the event
	Ref          string // refs/heads/..., refs/pull/N/merge, refs/tags/...
	SHA          string // that the workflow file was read from, but for pull_request
	HeadRef      string // of a pull request; anybody may choose it
	BaseRef      string
	Workflow     string
	WorkflowRef  string
	Name         string // of the job
	RunID        int64
	RunAttempt   int64
	ServerURL    string // https://github.com
	APIURL       string
	Temp         string // RUNNER_TEMP
	Home         string
	Act          bool // it is no runner of GitHub's but nektos/act

	ResultsURL    string // of the artifact service, with RuntimeToken
	RuntimeToken  secret.Value
	RetentionDays int // the longest that artifacts are kept; 0: not told

	Payload  Payload   // of the event
	Files    Files     // to which a step writes
	Identity *Identity // nil: this job has none
}

// Files are those that the runner reads when the step has ended.
type Files struct {
	Output, State, Summary string
}

// Payload is the part of an event's payload that decides whom to trust.
type Payload struct {
	PullRequest *PullRequest `json:"pull_request"`
	MergeGroup  *struct {
		BaseSHA string `json:"base_sha"`
	} `json:"merge_group"`
	Issue *struct {
		Number      int64     `json:"number"`
		PullRequest *struct{} `json:"pull_request"` // it is the issue of one
	} `json:"issue"`
	WorkflowRun *struct {
		Event          string `json:"event"`
		HeadRepository *struct {
			ID int64 `json:"id"`
		} `json:"head_repository"` // nil: it was deleted
	} `json:"workflow_run"`
	Repository struct {
		ID            int64  `json:"id"`
		Private       bool   `json:"private"`
		DefaultBranch string `json:"default_branch"`
	} `json:"repository"`
}

// PullRequest is one in a payload.
type PullRequest struct {
	Number int64 `json:"number"`
	Base   End   `json:"base"`
	Head   End   `json:"head"`
}

// End is one side of a pull request.
type End struct {
	Ref  string `json:"ref"`
	SHA  string `json:"sha"`
	Repo *struct {
		ID int64 `json:"id"`
	} `json:"repo"` // nil: it was deleted
}

// maxPayload bounds an event's payload in bytes. GitHub's own limit is 25 MiB.
const maxPayload = 32 << 20

// FromEnv reads the environment of a step.
func FromEnv(lookup func(string) (string, bool)) (*Job, error) {
	env := func(name string) string {
		v, _ := lookup(name)
		return v
	}
	j := &Job{
		Workspace: env("GITHUB_WORKSPACE"), Repository: env("GITHUB_REPOSITORY"), Actor: env("GITHUB_ACTOR"), Event: env("GITHUB_EVENT_NAME"),
		Ref: env("GITHUB_REF"), SHA: env("GITHUB_SHA"), HeadRef: env("GITHUB_HEAD_REF"), BaseRef: env("GITHUB_BASE_REF"),
		Workflow: env("GITHUB_WORKFLOW"), WorkflowRef: env("GITHUB_WORKFLOW_REF"), Name: env("GITHUB_JOB"),
		ServerURL: env("GITHUB_SERVER_URL"), APIURL: env("GITHUB_API_URL"), Temp: env("RUNNER_TEMP"), Home: env("HOME"),
		Act:      env("ACT") == "true",
		Files:    Files{Output: env("GITHUB_OUTPUT"), State: env("GITHUB_STATE"), Summary: env("GITHUB_STEP_SUMMARY")},
		Identity: IdentityFromEnv(lookup), ResultsURL: env("ACTIONS_RESULTS_URL"), RuntimeToken: secret.New(env("ACTIONS_RUNTIME_TOKEN")),
	}
	var errs []error
	for name, n := range map[string]*int64{
		"GITHUB_REPOSITORY_ID": &j.RepositoryID, "GITHUB_REPOSITORY_OWNER_ID": &j.OwnerID, "GITHUB_RUN_ID": &j.RunID, "GITHUB_RUN_ATTEMPT": &j.RunAttempt,
	} {
		if v := env(name); v != "" {
			var err error
			if *n, err = strconv.ParseInt(v, 10, 64); err != nil {
				errs = append(errs, fmt.Errorf("%s: %q is not a number", name, v))
			}
		}
	}
	if days, err := strconv.Atoi(env("GITHUB_RETENTION_DAYS")); err == nil && days > 0 {
		j.RetentionDays = days
	}
	if path := env("GITHUB_EVENT_PATH"); path != "" {
		errs = append(errs, j.ReadEvent(path))
	}
	return j, errors.Join(errs...)
}

// ReadEvent reads the payload of the event.
func (j *Job) ReadEvent(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("event of the job: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPayload+1))
	if err != nil {
		return fmt.Errorf("event of the job: %w", err)
	}
	if len(b) > maxPayload {
		return fmt.Errorf("event of the job: more than %d bytes", maxPayload)
	}
	j.Payload = Payload{}
	if err := json.Unmarshal(b, &j.Payload); err != nil {
		return fmt.Errorf("event of the job: %s: %w", path, err)
	}
	return nil
}

// RunURL is the page of the workflow run; empty where there is none.
func (j *Job) RunURL() string {
	if j.RunID == 0 || j.Repository == "" || j.Act {
		return ""
	}
	return fmt.Sprintf("%s/%s/actions/runs/%d", strings.TrimRight(j.ServerURL, "/"), j.Repository, j.RunID)
}

// ArtifactURL is the page of an artifact; empty where there is none.
func (j *Job) ArtifactURL(id int64) string {
	run := j.RunURL()
	if run == "" || id == 0 {
		return ""
	}
	return fmt.Sprintf("%s/artifacts/%d", run, id)
}

// Private are the variables of a step that are for the step alone: they hold secrets, or lead to files and services with which the
// later steps, or the workflow, can be taken over.
func Private() []string {
	return []string{
		"ACTIONS_CACHE_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_RESULTS_URL", "ACTIONS_RUNTIME_TOKEN",
		"ACTIONS_RUNTIME_URL", "GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY", "GITHUB_EVENT_PATH", "DOCKER_HOST",
		"AGENT_SANDBOX_ATTESTATIONS_TOKEN", "AGENT_SANDBOX_SIGNING_KEY", "AGENT_SANDBOX_SIGNING_PASSPHRASE",
	}
}

// IsPrivate tells whether a variable is one of Private, or an input or the saved state of the step.
func IsPrivate(name string) bool {
	name = strings.ToUpper(name)
	for _, p := range Private() {
		if name == p {
			return true
		}
	}
	return strings.HasPrefix(name, "INPUT_") || strings.HasPrefix(name, "STATE_") || strings.HasPrefix(name, "ACTIONS_")
}

// Secrets are the job's own.
func (j *Job) Secrets() []secret.Value {
	all := []secret.Value{j.RuntimeToken}
	if j.Identity != nil {
		all = append(all, j.Identity.Token)
	}
	return all
}
