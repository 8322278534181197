package rotate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// Report is the state of all credentials of a policy: a contract, to which fields are only added. Nothing in it is secret.
type Report struct {
	Contract    int       `json:"contract"` // 1
	Checked     time.Time `json:"checked"`
	Overdue     int       `json:"overdue"`
	Unknown     int       `json:"unknown"` // with a limit, and nobody knows whether they are past it
	Pending     int       `json:"pending"` // rotations that are not finished
	Credentials []Status  `json:"credentials"`
}

// Status is one credential.
type Status struct {
	Name   string `json:"name"`
	Source string `json:"source"`        // as in the policy
	Kit    string `json:"kit,omitempty"` // the agent whose kit brings it; empty: the policy names it
	Scope  Scope  `json:"scope"`

	State      event.AgeState `json:"state"`                 // unscheduled, fresh, overdue, unknown; issued: every run has its own
	Limit      string         `json:"limit,omitempty"`       // as in the policy
	LimitSecs  int64          `json:"limit_seconds"`         // 0: there is none
	Enforced   bool           `json:"enforced"`              // a run is refused unless it is known to be younger
	Since      *time.Time     `json:"since,omitempty"`       // when it was made, as far as that is known
	AtLeast    bool           `json:"at_least"`              // it may be older
	AgeSecs    *int64         `json:"age_seconds,omitempty"` // not there: nobody knows
	Due        *time.Time     `json:"due,omitempty"`
	Basis      string         `json:"basis,omitempty"` // rotated, store, file, declared, first-seen
	Provenance string         `json:"provenance"`      // observed, asserted, unknown
	LastUsed   *time.Time     `json:"last_used,omitempty"`
	Read       bool           `json:"secret_read"` // false: the secret was not looked at, so this machine can't tell what it remembers of it
	Stores     []StoreAge     `json:"stores"`
	Recipe     bool           `json:"recipe"`            // `credentials rotate` can replace it
	Pending    string         `json:"pending,omitempty"` // what an unfinished rotation has left
	Detail     string         `json:"detail,omitempty"`
}

// StateIssued is the state of a credential that every run has issued for itself.
const StateIssued event.AgeState = "issued"

// Scope is where a credential may go and what it is for, as the policy has it.
type Scope struct {
	Deliver      string            `json:"deliver"`
	Hosts        []string          `json:"hosts"`
	Requests     []string          `json:"requests"` // METHOD /path; none: every request
	Repositories []string          `json:"repositories"`
	Permissions  map[string]string `json:"permissions"`
	Push         []string          `json:"push"`
	Broker       string            `json:"broker,omitempty"`
	Identity     string            `json:"identity,omitempty"`
	Broad        string            `json:"broad,omitempty"` // the policy's reason for a wider one
}

// StoreAge is a place where a key is kept.
type StoreAge struct {
	Store   string     `json:"store"`
	Written *time.Time `json:"written,omitempty"`
	Detail  string     `json:"detail,omitempty"` // why that is not known
}

// Report looks at all credentials. It starts no command, and notes nothing.
func (cfg Config) Report(ctx context.Context, all []policy.Credential) (Report, error) {
	r := Report{Contract: 1, Checked: cfg.now().Truncate(time.Second), Credentials: []Status{}}
	for _, c := range all {
		s, err := cfg.status(ctx, c)
		if err != nil {
			return Report{}, fmt.Errorf("credential %s: %w", c.Name, err)
		}
		switch s.State {
		case event.AgeOverdue:
			r.Overdue++
		case event.AgeUnknown:
			r.Unknown++
		}
		if s.Pending != "" {
			r.Pending++
		}
		r.Credentials = append(r.Credentials, s)
	}
	return r, nil
}

func (cfg Config) status(ctx context.Context, c policy.Credential) (Status, error) {
	s := Status{Name: c.Name, Source: c.From.String(), Scope: scopeOf(c), Enforced: c.RotateEnforce, Stores: []StoreAge{}, Recipe: !c.Rotation.Create.IsZero()}
	if !credential.IsKept(c) {
		s.State, s.Provenance, s.Detail = StateIssued, observed, "each run has its own, which ends with it"
		return s, nil
	}
	if c.Rotate != 0 {
		s.Limit, s.LimitSecs = policy.FormatDuration(c.Rotate), int64(c.Rotate/time.Second)
	}
	j, err := cfg.pending(c)
	if err != nil {
		return s, err
	}
	if j != nil {
		s.Pending = fmt.Sprintf("a rotation that began on %s stopped while %s: `agent-sandbox credentials rotate %s` goes on", j.Begun.Format(time.DateTime), j.Phase.words(), c.Name)
	}
	var value secret.Value
	var why string
	unread := unreadSource(c)
	if unread == "" {
		if value, err = cfg.Sources.Read(ctx, c); err != nil {
			why = message(err)
		}
	}
	s.Read = !value.IsEmpty()
	written, stores := cfg.written(ctx, c)
	s.Stores = append(s.Stores, stores...)
	a, err := cfg.age(c, value, written)
	if err != nil {
		return s, err
	}
	s.fill(a, cfg.now())
	s.Detail = joined(cmp.Or(a.Detail, s.reason(why)), unread)
	e, err := cfg.Book.Entry(value)
	if !e.LastUsed.IsZero() {
		s.LastUsed = &e.LastUsed
	}
	return s, err
}

// unreadSource says why a status does not look at a secret: it must not make a password manager ask its owner, nor log in anywhere.
func unreadSource(c policy.Credential) string {
	const so = "so that its last use and what this machine has seen of it are not known here; runs do look"
	switch c.From.Kind {
	case "exec":
		return "a status starts no command: the secret was not read, " + so
	case "vault":
		return "a status logs in to no Vault: the secret was not read, " + so
	}
	return ""
}

func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), "; ")
}

func (s *Status) fill(a event.CredentialAge, now time.Time) {
	s.State, s.Since, s.AtLeast, s.Due, s.Basis, s.Provenance = a.State, a.Since, a.AtLeast, a.Due(), a.Basis, a.Provenance
	if a.Since != nil {
		secs := int64(now.Sub(*a.Since) / time.Second)
		s.AgeSecs = &secs
	}
}

// reason says why an age is not known, and how it would be.
func (s *Status) reason(why string) string {
	if s.State != event.AgeUnknown {
		return ""
	}
	var parts []string
	if why != "" {
		parts = append(parts, why)
	}
	for _, store := range s.Stores {
		if store.Detail != "" {
			parts = append(parts, store.Store+": "+store.Detail)
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing tells when it was made: `rotated: DATE` does, `rotation: {store: [...]}`, or `credentials rotate`")
	}
	return strings.Join(parts, "; ")
}

func scopeOf(c policy.Credential) Scope {
	s := Scope{
		Deliver: string(c.Deliver), Hosts: []string{}, Requests: []string{}, Repositories: append([]string{}, c.Repositories...), Permissions: map[string]string{},
		Push: append([]string{}, c.Push...), Broker: c.Broker, Identity: c.Identity, Broad: c.AllowBroad,
	}
	for name, level := range c.Permissions {
		s.Permissions[name] = level
	}
	hosts := c.Hosts
	if service, known := policy.ServiceOf(c); known && len(hosts) == 0 {
		for _, place := range service.Attach {
			hosts = append(hosts, place.Hosts...)
		}
	}
	for _, h := range hosts {
		s.Hosts = append(s.Hosts, h.String())
	}
	slices.Sort(s.Hosts)
	s.Hosts = slices.Compact(s.Hosts)
	for _, rule := range c.Rules {
		s.Requests = append(s.Requests, rule.String())
	}
	return s
}
