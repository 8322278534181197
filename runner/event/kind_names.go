package event

// Kind is "run.started".
func (RunStarted) Kind() string { return "run.started" }

// Kind is "run.planned".
func (RunPlanned) Kind() string { return "run.planned" }

// Kind is "phase.started".
func (PhaseStarted) Kind() string { return "phase.started" }

// Kind is "phase.finished".
func (PhaseFinished) Kind() string { return "phase.finished" }

// Kind is "lowered".
func (Lowered) Kind() string { return "lowered" }

// Kind is "guest.measured".
func (GuestMeasured) Kind() string { return "guest.measured" }

// Kind is "agent.started".
func (AgentStarted) Kind() string { return "agent.started" }

// Kind is "agent.exited".
func (AgentExited) Kind() string { return "agent.exited" }

// Kind is "connection.refused".
func (ConnectionRefused) Kind() string { return "connection.refused" }

// Kind is "connection".
func (Connection) Kind() string { return "connection" }

// Kind is "request".
func (Request) Kind() string { return "request" }

// Kind is "name.refused".
func (NameRefused) Kind() string { return "name.refused" }

// Kind is "refusals.unlisted".
func (RefusalsUnlisted) Kind() string { return "refusals.unlisted" }

// Kind is "output.truncated".
func (OutputTruncated) Kind() string { return "output.truncated" }

// Kind is "changes.extracted".
func (ChangesExtracted) Kind() string { return "changes.extracted" }

// Kind is "protected.touched".
func (ProtectedTouched) Kind() string { return "protected.touched" }

// Kind is "warning".
func (Warning) Kind() string { return "warning" }

// Kind is "events.dropped".
func (EventsDropped) Kind() string { return "events.dropped" }

// Kind is "run.finished".
func (RunFinished) Kind() string { return "run.finished" }

// Kind is the name that was read.
func (u Unknown) Kind() string { return u.Name }

func (RunStarted) sealed()        {}
func (RunPlanned) sealed()        {}
func (PhaseStarted) sealed()      {}
func (PhaseFinished) sealed()     {}
func (Lowered) sealed()           {}
func (GuestMeasured) sealed()     {}
func (AgentStarted) sealed()      {}
func (AgentExited) sealed()       {}
func (ConnectionRefused) sealed() {}
func (Connection) sealed()        {}
func (Request) sealed()           {}
func (NameRefused) sealed()       {}
func (RefusalsUnlisted) sealed()  {}
func (OutputTruncated) sealed()   {}
func (ChangesExtracted) sealed()  {}
func (ProtectedTouched) sealed()  {}
func (Warning) sealed()           {}
func (EventsDropped) sealed()     {}
func (RunFinished) sealed()       {}
func (Unknown) sealed()           {}
