package event

import (
	"encoding/json"
	"fmt"
	"time"
)

// Event is one thing that happened. It is sealed: the types of this package are all there are.
type Event interface {
	// Kind is the stable dotted name of the type, such as "run.started".
	Kind() string
	sealed()
}

// Envelope is an Event with its place in the stream of one run.
type Envelope struct {
	Seq  uint64    `json:"seq"`  // from 1, without gaps
	Time time.Time `json:"time"` // UTC wall clock
	Kind string    `json:"kind"` // Data.Kind()
	Run  string    `json:"run"`  // the run's id
	Data Event     `json:"data"`
}

// Handler receives the envelopes of a run in order, never two at once.
// An error means that the audit trail is incomplete: see [Recorder.Failed].
// A handler for which a lost event does no harm, like a terminal, returns nil.
type Handler interface {
	Handle(Envelope) error
}

// UnmarshalJSON reads an envelope of any kind; one that this version does not
// know becomes an [Unknown].
func (e *Envelope) UnmarshalJSON(b []byte) error {
	var raw struct {
		Seq  uint64          `json:"seq"`
		Time time.Time       `json:"time"`
		Kind string          `json:"kind"`
		Run  string          `json:"run"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	data, err := decode(raw.Kind, raw.Data)
	if err != nil {
		return fmt.Errorf("data of %q: %w", raw.Kind, err)
	}
	*e = Envelope{Seq: raw.Seq, Time: raw.Time, Kind: raw.Kind, Run: raw.Run, Data: data}
	return nil
}

func decode(kind string, data json.RawMessage) (Event, error) {
	read, ok := decoders()[kind]
	if !ok {
		return Unknown{Name: kind, Raw: data}, nil
	}
	return read(data)
}

func decoders() map[string]func(json.RawMessage) (Event, error) {
	return map[string]func(json.RawMessage) (Event, error){
		RunStarted{}.Kind():        into[RunStarted],
		RunPlanned{}.Kind():        into[RunPlanned],
		RunnerIdentified{}.Kind():  into[RunnerIdentified],
		SourceState{}.Kind():       into[SourceState],
		OutputKept{}.Kind():        into[OutputKept],
		FileNamed{}.Kind():         into[FileNamed],
		PhaseStarted{}.Kind():      into[PhaseStarted],
		PhaseFinished{}.Kind():     into[PhaseFinished],
		Lowered{}.Kind():           into[Lowered],
		GuestMeasured{}.Kind():     into[GuestMeasured],
		AgentStarted{}.Kind():      into[AgentStarted],
		AgentExited{}.Kind():       into[AgentExited],
		ConnectionRefused{}.Kind(): into[ConnectionRefused],
		Connection{}.Kind():        into[Connection],
		Request{}.Kind():           into[Request],
		NameRefused{}.Kind():       into[NameRefused],
		RefusalsUnlisted{}.Kind():  into[RefusalsUnlisted],
		OutputTruncated{}.Kind():   into[OutputTruncated],
		Redacted{}.Kind():          into[Redacted],
		ChangesExtracted{}.Kind():  into[ChangesExtracted],
		ProtectedTouched{}.Kind():  into[ProtectedTouched],
		Warning{}.Kind():           into[Warning],
		EventsDropped{}.Kind():     into[EventsDropped],
		CredentialIssued{}.Kind():  into[CredentialIssued],
		CredentialRenewed{}.Kind(): into[CredentialRenewed],
		CredentialRevoked{}.Kind(): into[CredentialRevoked],
		CredentialUsed{}.Kind():    into[CredentialUsed],
		RunFinished{}.Kind():       into[RunFinished],
	}
}

func into[E Event](data json.RawMessage) (Event, error) {
	var e E
	err := json.Unmarshal(data, &e)
	return e, err
}
