package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/secret"
)

// Names of what the step saves for the one after the job.
const (
	stateRun    = "run"    // its id, once it has begun
	stateTokens = "tokens" // of the run, those that are still good, as JSON
	statePush   = "push"   // the same, of the push after it
	stateRecord = "record" // the directory in which the run has its record
	stateProof  = "proof"  // what the policy says of the record, as JSON
	stateEnded  = "ended"  // the run has: its record is written, and left where it is to be found
)

// stateNames are all of them.
func stateNames() []string {
	return []string{stateRun, stateTokens, statePush, stateRecord, stateProof, stateEnded}
}

// save keeps a value for the step that comes after the job, as GitHub's state of an action. A later one of the same name replaces it.
func (s *step) save(name, value string) error {
	if s.job.Files.State == "" {
		return nil // tried outside of a job
	}
	if s.job.Act {
		return s.saveForAct(name, value)
	}
	return actions.WriteOutputs(s.job.Files.State, []actions.Output{{Name: name, Value: value}})
}

// saveForAct keeps it in a file: act gives its state to actions of JavaScript alone. The directory is that of the runner's own files, which no
// agent sees.
func (s *step) saveForAct(name, value string) error {
	if s.saved == nil {
		s.saved = map[string]string{}
	}
	s.saved[name] = value
	b, err := json.Marshal(s.saved)
	if err != nil {
		return err
	}
	return os.WriteFile(actState(s.app.env), b, 0o600)
}

// jobHome is the home directory of a container action on GitHub's runners: one for all steps of a job.
const jobHome = "/github/home"

// recordPrefix begins the names of the directories that recordHome makes.
const recordPrefix = "agent-sandbox-record-"

// recordHome makes the directory for the run's record, where it outlives this container: who kills it kills the run, and what comes after
// the job is to find out what is known of it. With act the directory of the runner's own files is all that lasts. No agent sees it or jobHome.
func (s *step) recordHome() (dir string, err error) {
	lasts := ""
	switch {
	case s.job.Files.State == "": // nothing comes after the job
	case s.job.Act:
		lasts = filepath.Dir(s.job.Files.State)
	case s.job.Home == jobHome:
		lasts = jobHome
	}
	if dir, err = os.MkdirTemp(lasts, recordPrefix+"*"); err != nil {
		return "", err
	}
	return dir, s.save(stateRecord, dir)
}

// proof is what the policy says of a run's record.
type proof struct {
	Sign   string        `json:"sign"`
	Retain time.Duration `json:"retain"`
}

// saveProof keeps it: who finds the record of a killed run has no policy.
func (s *step) saveProof(p *policy.Policy) error {
	b, err := json.Marshal(proof{p.Evidence.Sign, p.Evidence.Retain})
	if err != nil {
		return err
	}
	return s.save(stateProof, string(b))
}

// actState is the file of saveForAct: one for each step of a job.
func actState(env func(string) string) string {
	return filepath.Join(filepath.Dir(env("GITHUB_STATE")), fmt.Sprintf("agent-sandbox-%x.json", env("GITHUB_ACTION")))
}

// maxState bounds what was saved, in bytes.
const maxState = 1 << 20

// savedState is what the step saved.
func (a *app) savedState() (map[string]string, error) {
	state := map[string]string{}
	if a.env("ACT") != "true" {
		for _, name := range stateNames() {
			state[name] = a.env("STATE_" + name)
		}
		return state, nil
	}
	file := actState(a.env)
	b, err := readLimited(file, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err == nil {
		err = errors.Join(json.Unmarshal(b, &state), os.Remove(file))
	}
	if err != nil {
		return nil, fmt.Errorf("what the step saved: %w", err)
	}
	return state, nil
}

// keepTokens saves the tokens that are to be revoked if this process is killed: the file system of the action's container goes with it. No log
// shows them.
func (s *step) keepTokens(name string) func([]credential.Kept) error {
	return func(kept []credential.Kept) error {
		for _, k := range kept {
			s.log.Mask(secret.New(k.Token))
		}
		b, err := json.Marshal(kept)
		if err != nil {
			return err
		}
		return s.save(name, string(b))
	}
}
