package event

import "time"

// Recovered says how a run came to its changes whose runner died, or had no room for them.
type Recovered struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"` // of the program
	// Manifest is the SHA-256 of the one that the run had until then; empty: it had none.
	Manifest string `json:"manifest,omitempty"`
}

// Recover adds what another process has found out about the changes of a run that is over. The run's own end stays as it was.
func (s *Summary) Recover(found Summary, how Recovered) {
	s.Recovered = &how
	s.Changes, s.Protected, s.Files = found.Changes, found.Protected, found.Files
	s.Counts.Protected = found.Counts.Protected
	s.Counts.Warnings += found.Counts.Warnings
	for _, w := range found.Warnings {
		s.Warnings = list(s.Warnings, w)
	}
}
