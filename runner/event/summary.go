package event

import (
	"slices"
	"time"
)

// Bounds of the lists in a Summary; the counts beside them are complete.
const (
	maxListed  = 100 // lowered, warnings, protected paths, truncations
	maxRefused = 100 // refusals, the most frequent first
)

// Summary is a run in one object: result.json, what `show` prints, and what the
// terminal and the manifest say. Only [Fold] makes one. It follows the JSON
// contract of the package.
type Summary struct {
	Contract int           `json:"contract"`
	Run      string        `json:"run"`
	Outcome  Outcome       `json:"outcome"`   // empty while the run goes on
	ExitCode int           `json:"exit_code"` // of `agent-sandbox run`
	Reason   string        `json:"reason,omitempty"`
	Partial  bool          `json:"partial,omitempty"` // the events end before run.finished
	Started  time.Time     `json:"started"`
	Finished time.Time     `json:"finished"` // of the last event
	Duration time.Duration `json:"duration_ns"`

	Start    *RunStarted       `json:"start,omitempty"`
	Plan     *RunPlanned       `json:"plan,omitempty"` // nil: it failed before
	Runner   *RunnerIdentified `json:"runner,omitempty"`
	Source   *SourceState      `json:"source,omitempty"`
	Phases   []PhaseTime       `json:"phases"` // in the order of their start
	Measured *GuestMeasured    `json:"measured,omitempty"`
	Agent    *AgentExited      `json:"agent,omitempty"`
	Changes  *ChangesExtracted `json:"changes,omitempty"` // nil: not extracted
	// Recovered: another process than the runner has read Changes, Protected and Files, which the log does not have.
	Recovered *Recovered `json:"recovered,omitempty"`

	Counts    Counts             `json:"counts"`
	Hosts     []Host             `json:"hosts"`      // that were reached, or allowed and not reached; the most bytes first, bounded
	HostCount int                `json:"host_count"` // all of them
	Refused   []Refusal          `json:"refused"`    // the most frequent, bounded
	Leaks     []Leak             `json:"leaks"`      // part of Refused, bounded
	Unlisted  RefusalsUnlisted   `json:"unlisted"`   // part of Counts: targets beyond the bound of Refusals
	Lowered   []Lowered          `json:"lowered"`
	Warnings  []Warning          `json:"warnings"`
	Protected []ProtectedTouched `json:"protected"`
	Truncated []OutputTruncated  `json:"truncated"`
	Redacted  []Redacted         `json:"redacted"`
	Dropped   []EventsDropped    `json:"dropped"`
	Outputs   []OutputKept       `json:"outputs"` // the logs of the agent's output
	Files     []FileNamed        `json:"files"`   // that the policy names

	Credentials []CredentialState `json:"credentials"`

	Log      *Log      `json:"log,omitempty"`      // the audit log this was made from, when there is one
	Manifest *Manifest `json:"manifest,omitempty"` // the run's evidence, which was made from this
}

// Manifest names the evidence of a run.
type Manifest struct {
	SHA256 string `json:"sha256"` // of manifest.json
	// Signed is keyless, key or none.
	Signed string `json:"signed"`
	Detail string `json:"detail,omitempty"` // why it is not signed, or not as it should have been
}

// PhaseTime is a phase and how long it took; repeated phases add up.
type PhaseTime struct {
	Name     Phase         `json:"name"`
	Duration time.Duration `json:"duration_ns"`
	Open     bool          `json:"open,omitempty"` // it never finished
}

// Refusal is a refused target and how often it was tried.
// Proto is "dns" for a name that was asked for; Type is the record type then. It is "http" for a request, with Method and Path.
type Refusal struct {
	Proto   string `json:"proto"`
	Address string `json:"address,omitempty"`
	Port    uint16 `json:"port,omitempty"`
	Name    string `json:"name,omitempty"`
	Type    string `json:"type,omitempty"`
	Method  string `json:"method,omitempty"`
	Path    string `json:"path,omitempty"` // without the query
	Leak    string `json:"leak,omitempty"` // as in Request
	Reason  string `json:"reason,omitempty"`
	Add     string `json:"add,omitempty"` // an item for network.allow that would allow it, if there is one
	Count   uint64 `json:"count"`
}

// Log describes the hash-chained event log at the time of the summary.
type Log struct {
	Head   Head     `json:"head"`
	State  LogState `json:"state"`
	Detail string   `json:"detail,omitempty"` // what is wrong with it
}

// LogState says whether the log is whole.
type LogState string

// The states of a log.
const (
	LogComplete LogState = "complete"
	LogTorn     LogState = "torn"    // it ends within a line: Head is that of the whole lines
	LogDamaged  LogState = "damaged" // it does not verify, or could not be written: Head is that of the good part
)

// Fold builds the Summary of a run from its events. It is a Handler, and not for concurrent use.
type Fold struct {
	s        Summary
	refused  map[target]Refusal
	order    []target // of first refusal
	conns    connections
	requests requests
	secrets  credentials
}

// NewFold starts the summary of one run; an empty id stands for that of the first event.
func NewFold(run string) *Fold {
	return &Fold{s: Summary{Contract: Contract, Run: run}, refused: map[target]Refusal{}}
}

// Handle adds an event. It returns nil.
func (f *Fold) Handle(env Envelope) error {
	f.add(env)
	return nil
}

// Summary is the run as far as the events go; the caller may keep and change it.
func (f *Fold) Summary() Summary {
	s := f.s
	s.Partial = s.Outcome == ""
	if s.Duration == 0 && !s.Started.IsZero() {
		s.Duration = s.Finished.Sub(s.Started)
	}
	s.Phases = clone(s.Phases)
	s.Lowered = clone(s.Lowered)
	s.Warnings = clone(s.Warnings)
	s.Protected = clone(s.Protected)
	s.Truncated = clone(s.Truncated)
	s.Redacted = clone(s.Redacted)
	s.Dropped = clone(s.Dropped)
	s.Outputs = clone(s.Outputs)
	s.Files = clone(s.Files)
	s.Credentials = f.secrets.sum()
	f.conns.sum(&s)
	f.sumRefusals(&s)
	return s
}

// clone never returns nil: lists are [] in JSON, not null.
func clone[T any](list []T) []T { return append([]T{}, list...) }

func (f *Fold) add(env Envelope) {
	if f.s.Run == "" {
		f.s.Run = env.Run
	}
	if f.s.Started.IsZero() {
		f.s.Started = env.Time
	}
	f.s.Finished = env.Time
	switch e := env.Data.(type) {
	case RunStarted:
		f.s.Start = &e
	case RunPlanned:
		f.s.Plan = &e
	case RunnerIdentified:
		f.s.Runner = &e
	case SourceState:
		f.s.Source = &e
	case PhaseStarted:
		f.s.Phases = openPhase(f.s.Phases, e.Name)
	case PhaseFinished:
		f.s.Phases = closePhase(f.s.Phases, e)
	case GuestMeasured:
		f.s.Measured = &e
	case AgentExited:
		f.s.Agent = &e
	case ChangesExtracted:
		f.s.Changes = &e
	case RunFinished:
		f.s.Outcome, f.s.ExitCode, f.s.Reason, f.s.Duration = e.Outcome, e.ExitCode, e.Reason, e.Duration
	default:
		if !f.secrets.add(env.Data) {
			f.addListed(env.Data)
		}
	}
}

func (f *Fold) addListed(e Event) {
	s := &f.s
	switch e := e.(type) {
	case Lowered:
		s.Counts.Lowered++
		s.Lowered = list(s.Lowered, e)
	case Warning:
		s.Counts.Warnings++
		s.Warnings = list(s.Warnings, e)
	case ProtectedTouched:
		s.Counts.Protected++
		s.Protected = listProtected(s.Protected, e)
	case OutputTruncated:
		s.Truncated = list(s.Truncated, e)
	case Redacted:
		s.Redacted = foldRedacted(s.Redacted, e)
	case EventsDropped:
		s.Dropped = list(s.Dropped, e)
	case FileNamed:
		s.Files = list(s.Files, e)
	case OutputKept:
		s.Outputs = list(s.Outputs, e)
	case RefusalsUnlisted:
		s.Unlisted = e
	case ConnectionRefused:
		f.refuse(connection(e), connectionRefusal(e))
	case Connection:
		f.conns.add(e)
	case Request:
		f.request(e)
	case NameRefused:
		f.refuse(name(e), nameRefusal(e))
	}
}

// refuse keeps the latest count. The map is bounded by what Refusals emits; the
// check is for a log that somebody else wrote.
func (f *Fold) refuse(t target, r Refusal) {
	if _, known := f.refused[t]; !known {
		if len(f.order) >= 2*MaxTargets {
			return
		}
		f.order = append(f.order, t)
	}
	f.refused[t] = r
}

func (f *Fold) sumRefusals(s *Summary) {
	s.Counts.RefusedConnections = s.Unlisted.Connections
	s.Counts.RefusedNames = s.Unlisted.Names
	all := make([]Refusal, 0, len(f.order))
	for _, t := range f.order {
		r := f.refused[t]
		all = append(all, r)
		switch r.Proto {
		case protoDNS:
			s.Counts.RefusedNames += r.Count
		case protoHTTP:
			s.Counts.RefusedRequests += r.Count
		default:
			s.Counts.RefusedConnections += r.Count
		}
	}
	slices.SortStableFunc(all, func(a, b Refusal) int {
		switch {
		case a.Count > b.Count:
			return -1
		case a.Count < b.Count:
			return 1
		}
		return 0
	})
	s.Counts.Requests = f.requests.sum()
	s.sumLeaks(all)
	s.Refused = all[:min(len(all), maxRefused):min(len(all), maxRefused)]
}

func list[T any](to []T, e T) []T {
	if len(to) >= maxListed {
		return to
	}
	return append(to, e)
}

// listProtected keeps rejected paths before those that only warn: a flood of the
// latter must not push the former out of sight.
func listProtected(to []ProtectedTouched, e ProtectedTouched) []ProtectedTouched {
	if len(to) < maxListed {
		return append(to, e)
	}
	if e.Tier != tierReject {
		return to
	}
	if i := slices.IndexFunc(to, func(p ProtectedTouched) bool { return p.Tier != tierReject }); i >= 0 {
		return append(slices.Delete(to, i, i+1), e)
	}
	return to
}

const tierReject = "reject"

func openPhase(phases []PhaseTime, name Phase) []PhaseTime {
	if i := indexPhase(phases, name); i >= 0 {
		phases[i].Open = true
		return phases
	}
	return list(phases, PhaseTime{Name: name, Open: true})
}

func closePhase(phases []PhaseTime, e PhaseFinished) []PhaseTime {
	phases = openPhase(phases, e.Name)
	if i := indexPhase(phases, e.Name); i >= 0 {
		phases[i].Open = false
		phases[i].Duration += e.Duration
	}
	return phases
}

func indexPhase(phases []PhaseTime, name Phase) int {
	return slices.IndexFunc(phases, func(p PhaseTime) bool { return p.Name == name })
}

// PhaseDuration is how long a phase took; 0 when there was none.
func (s Summary) PhaseDuration(name Phase) time.Duration {
	if i := indexPhase(s.Phases, name); i >= 0 {
		return s.Phases[i].Duration
	}
	return 0
}

func (s Summary) phaseMap() map[Phase]time.Duration {
	m := make(map[Phase]time.Duration, len(s.Phases))
	for _, p := range s.Phases {
		m[p.Name] = p.Duration
	}
	return m
}
