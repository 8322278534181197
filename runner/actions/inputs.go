package actions

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Apply says where the agent's changes go when the task has ended well.
type Apply string

// The ways.
const (
	ApplyNone      Apply = "none"
	ApplyWorkspace Apply = "workspace" // the job's files
	ApplyCommit    Apply = "commit"    // a commit on a new branch of the job's repository
	ApplyPush      Apply = "push"      // and that branch at the server
	ApplyPull      Apply = "pull-request"
)

// Pushes tells whether the changes leave the job.
func (a Apply) Pushes() bool { return a == ApplyPush || a == ApplyPull }

// Upload says whether the run's files become an artifact of the workflow run.
type Upload string

// The ways.
const (
	UploadAuto   Upload = "auto"   // if the job has a service for that; else, or if it fails, the log says so
	UploadAlways Upload = "always" // or the step fails
	UploadNever  Upload = "never"
)

// FailOn is a reason to fail the step.
type FailOn string

// The reasons.
const (
	FailOnError     FailOn = "error"             // the task did not end well
	FailOnRefusal   FailOn = "refusal"           // it tried what the policy refuses
	FailOnProtected FailOn = "changes-protected" // it changed what would run code on a machine or in CI
	FailOnNever     FailOn = "never"             // what happens inside never fails the step; our own failures do
)

// Inputs of the action, checked.
type Inputs struct {
	Task       string        // what the agent is to do
	PromptFile string        // file of the workspace that has the task
	Agent      string        // instead of the policy's
	Command    string        // for bash, instead of an agent
	Policy     string        // file of the workspace; empty: the project's own
	Ceiling    string        // file of the workspace that the policy may only narrow
	Image      string        // instead of the policy's
	Mode       string        // of the workspace, instead of the policy's; empty: that
	Apply      Apply         //
	Branch     string        // for commit, push and pull-request; empty: one of the run's own name
	Timeout    time.Duration //
	FailOn     []FailOn      //
	Directory  string        // below the workspace; the task starts there
	DryRun     bool          //
	Version    string        // of agent-sandbox that the workflow insists on
	Broker     string        // https URL of the token broker, where the policy names none
	Sign       string        // auto, keyless, key, none; empty: as the policy says
	Upload     Upload        //
	Retention  int           // days that the artifact is kept; 0: as the policy says
}

// Input is an input of the action, as action.yml describes it.
type Input struct {
	Name    string
	Default string
	parse   func(in *Inputs, value string) error
}

// InputTable has every input. action.yml is tested to have the same.
func InputTable() []Input {
	return []Input{
		{"task", "", text(func(in *Inputs) *string { return &in.Task })},
		{"prompt-file", "", file(func(in *Inputs) *string { return &in.PromptFile })},
		{"agent", "", word(func(in *Inputs) *string { return &in.Agent })},
		{"command", "", text(func(in *Inputs) *string { return &in.Command })},
		{"policy", "", file(func(in *Inputs) *string { return &in.Policy })},
		{"ceiling", "", file(func(in *Inputs) *string { return &in.Ceiling })},
		{"image", "", word(func(in *Inputs) *string { return &in.Image })},
		{"workspace-mode", "", oneOf(func(in *Inputs) *string { return &in.Mode }, "overlay", "bind", "copy", "readonly", "auto")},
		{"apply", "none", oneOf(func(in *Inputs) *string { return (*string)(&in.Apply) }, "none", "workspace", "commit", "push", "pull-request")},
		{"branch", "", word(func(in *Inputs) *string { return &in.Branch })},
		{"timeout", "", limit},
		{"fail-on", "error", failOn},
		{"working-directory", "", file(func(in *Inputs) *string { return &in.Directory })},
		{"dry-run", "false", boolean(func(in *Inputs) *bool { return &in.DryRun })},
		{"version", "", word(func(in *Inputs) *string { return &in.Version })},
		{"broker-url", "", httpsURL},
		{"sign", "", oneOf(func(in *Inputs) *string { return &in.Sign }, "auto", "keyless", "key", "none")},
		{"upload", "auto", oneOf(func(in *Inputs) *string { return (*string)(&in.Upload) }, "auto", "always", "never")},
		{"retention-days", "", days},
	}
}

// inputPrefix begins the names of the variables that inputs come in. The runner makes the rest of the name upper case and turns
// spaces to underscores; dashes stay.
const inputPrefix = "INPUT_"

// InputsFromEnv reads the inputs of a step from its whole environment, as os.Environ gives it.
func InputsFromEnv(environ []string) map[string]string {
	values := map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if rest, ok := strings.CutPrefix(name, inputPrefix); ok {
			values[strings.ToLower(rest)] = value
		}
	}
	return values
}

// InputError has everything that is wrong with the inputs.
type InputError struct{ Problems []string }

func (e *InputError) Error() string {
	return "the inputs of the action can't be used:\n  " + strings.Join(e.Problems, "\n  ")
}

// ParseInputs checks the inputs. An empty one counts as not given: that is how the runner passes it. The error is an *InputError with
// all that is wrong.
func ParseInputs(values map[string]string) (Inputs, error) {
	var in Inputs
	var problems []string
	known := map[string]bool{}
	for _, i := range InputTable() {
		known[i.Name] = true
		value := strings.TrimSpace(values[i.Name])
		if value == "" {
			value = i.Default
		}
		if value == "" {
			continue
		}
		if err := i.parse(&in, value); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", i.Name, err))
		}
	}
	var unknown []string
	for name := range values {
		if !known[name] {
			unknown = append(unknown, fmt.Sprintf("%s: there is no such input", name))
		}
	}
	slices.Sort(unknown)
	problems = append(problems, unknown...)
	problems = append(problems, in.contradictions()...)
	if len(problems) > 0 {
		return Inputs{}, &InputError{problems}
	}
	return in, nil
}

// contradictions are inputs that can't both be meant.
func (in *Inputs) contradictions() []string {
	var list []string
	for _, c := range []struct {
		wrong bool
		text  string
	}{
		{in.Task != "" && in.PromptFile != "", "task and prompt-file: give one of them"},
		{in.Command != "" && in.Agent != "", "command and agent: a command is run by itself, give one of them"},
		{in.Command != "" && (in.Task != "" || in.PromptFile != ""), "command and a task: a command has none, give one of them"},
		{in.Command == "" && in.Task == "" && in.PromptFile == "", "task, prompt-file, command: one of them is needed"},
		{in.Branch != "" && in.Apply != ApplyCommit && !in.Apply.Pushes(), "branch: it is for apply: commit, push and pull-request"},
		{in.Mode == "readonly" && in.Apply != ApplyNone, "workspace-mode: readonly and apply: nothing can be changed, so there is nothing to apply"},
		{in.DryRun && in.Apply != ApplyNone, "dry-run and apply: nothing is run, so there is nothing to apply"},
		{in.Retention > 0 && in.Upload == UploadNever, "retention-days and upload: nothing is uploaded, so nothing is kept"},
		{in.DryRun && in.Upload == UploadAlways, "dry-run and upload: nothing is run, so there is nothing to upload"},
		{slices.Contains(in.FailOn, FailOnNever) && len(in.FailOn) > 1, "fail-on: never goes with nothing else"},
	} {
		if c.wrong {
			list = append(list, c.text)
		}
	}
	return list
}

func text(field func(*Inputs) *string) func(*Inputs, string) error {
	return func(in *Inputs, v string) error {
		if strings.ContainsRune(v, 0) {
			return errors.New("it has a NUL byte")
		}
		*field(in) = v
		return nil
	}
}

// word is a value of one line.
func word(field func(*Inputs) *string) func(*Inputs, string) error {
	return func(in *Inputs, v string) error {
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("it has control characters")
		}
		*field(in) = v
		return nil
	}
}

// file is a path that stays in the workspace.
func file(field func(*Inputs) *string) func(*Inputs, string) error {
	return func(in *Inputs, v string) error {
		clean := path.Clean(v)
		if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsAny(v, "\x00\n\r\\") {
			return fmt.Errorf("%q is not a path below the workspace", v)
		}
		*field(in) = clean
		return nil
	}
}

func oneOf(field func(*Inputs) *string, words ...string) func(*Inputs, string) error {
	return func(in *Inputs, v string) error {
		if !slices.Contains(words, v) {
			return fmt.Errorf("%q is none of %s", v, strings.Join(words, ", "))
		}
		*field(in) = v
		return nil
	}
}

// boolean takes what YAML 1.2 takes, and no other spelling.
func boolean(field func(*Inputs) *bool) func(*Inputs, string) error {
	return func(in *Inputs, v string) error {
		switch v {
		case "true", "True", "TRUE":
			*field(in) = true
		case "false", "False", "FALSE":
			*field(in) = false
		default:
			return fmt.Errorf("%q is neither true nor false", v)
		}
		return nil
	}
}

func limit(in *Inputs, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a time such as 90s or 20m", v)
	}
	in.Timeout = d
	return nil
}

// maxRetention is the longest that GitHub keeps artifacts, in days: of a private repository.
const maxRetention = 400

func days(in *Inputs, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > maxRetention {
		return fmt.Errorf("%q is not a number of days from 1 to %d", v, maxRetention)
	}
	in.Retention = n
	return nil
}

// httpsURL is as strict as the policy's broker.
func httpsURL(in *Inputs, v string) error {
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is not an https URL with a host and no query", v)
	}
	in.Broker = strings.TrimSuffix(v, "/")
	return nil
}

func failOn(in *Inputs, v string) error {
	for item := range strings.SplitSeq(v, ",") {
		f := FailOn(strings.TrimSpace(item))
		if !slices.Contains([]FailOn{FailOnError, FailOnRefusal, FailOnProtected, FailOnNever}, f) {
			return fmt.Errorf("%q is none of error, refusal, changes-protected, never", f)
		}
		if !slices.Contains(in.FailOn, f) {
			in.FailOn = append(in.FailOn, f)
		}
	}
	return nil
}
