package event

import (
	"maps"
	"slices"
	"time"
)

// CredentialScope is what a token is good for, as GitHub tells it.
type CredentialScope struct {
	Repositories []CredentialRepository `json:"repositories,omitempty"`
	Permissions  map[string]string      `json:"permissions,omitempty"` // permission -> read, write or admin
	Push         []string               `json:"push,omitempty"`        // refs that the runner lets through
}

// CredentialRepository is one repository. The number is the identity: a name can be given to another.
type CredentialRepository struct {
	ID   int64  `json:"id,omitempty"` // 0 where only the name is known
	Name string `json:"name"`         // owner/name
}

// CredentialIssued says that the run has a credential ("credential.issued"). Scope, times and digest are those of a token
// that was issued for this run; of a secret that existed before, nothing is told but where it goes.
type CredentialIssued struct {
	Name        string           `json:"name"`    // in the policy; with a repository or an owner behind it, in brackets, if several tokens are issued for it
	Source      string           `json:"source"`  // kind of its origin, such as env or github-oidc
	Deliver     string           `json:"deliver"` // inject, env or file
	Env         []string         `json:"env,omitempty"`
	Hosts       []string         `json:"hosts,omitempty"` // where it may be attached
	Requested   *CredentialScope `json:"requested,omitempty"`
	Granted     *CredentialScope `json:"granted,omitempty"`
	Issued      time.Time        `json:"issued"`
	Expires     *time.Time       `json:"expires,omitempty"`
	TokenSHA256 string           `json:"token_sha256,omitempty"` // base64, as GitHub's audit log has it; of issued tokens alone
	Broker      string           `json:"broker,omitempty"`
	Identity    string           `json:"identity,omitempty"`    // trust policy at the broker, App, or role
	IssuanceID  string           `json:"issuance_id,omitempty"` // of the broker's audit log
	Broad       string           `json:"broad,omitempty"`       // why it reaches further than this project, and was accepted
	Age         *CredentialAge   `json:"age,omitempty"`         // of a secret that somebody keeps, if the policy says how old it may become
}

// CredentialAge is how old a secret is that somebody keeps.
type CredentialAge struct {
	State      AgeState      `json:"state"`
	Limit      time.Duration `json:"limit_ns"`
	Enforced   bool          `json:"enforced,omitempty"`   // what is not known to be younger than Limit is refused
	Since      *time.Time    `json:"since,omitempty"`      // when it was made, as far as that is known
	AtLeast    bool          `json:"at_least,omitempty"`   // it was there then, and may be older
	Basis      string        `json:"basis,omitempty"`      // what tells: rotated, store, file, declared or first-seen
	Provenance string        `json:"provenance,omitempty"` // observed, asserted or unknown
	Detail     string        `json:"detail,omitempty"`
}

// Due is when it is to be replaced; nil if nobody knows.
func (a CredentialAge) Due() *time.Time {
	if a.Since == nil || a.Limit == 0 {
		return nil
	}
	due := a.Since.Add(a.Limit)
	return &due
}

// AgeState is what is known of an age.
type AgeState string

// The states. A secret of which only the latest day of its making is known is unknown until that is too long ago.
const (
	AgeUnscheduled AgeState = "unscheduled" // the policy says nothing
	AgeFresh       AgeState = "fresh"
	AgeOverdue     AgeState = "overdue"
	AgeUnknown     AgeState = "unknown"
)

// CredentialRenewed says that a token was replaced before its end ("credential.renewed").
type CredentialRenewed struct {
	Name        string     `json:"name"`
	Expires     *time.Time `json:"expires,omitempty"`
	TokenSHA256 string     `json:"token_sha256,omitempty"`
	Count       uint64     `json:"count"` // renewals so far
}

// Revocation is what is known of a token's end.
type Revocation string

// The revocations, the best first.
const (
	RevocationVerified Revocation = "verified" // revoked, and refused when it was tried afterwards
	RevocationExpired  Revocation = "expired"  // its time was over
	RevocationAccepted Revocation = "accepted" // its issuer said so; there is no way to try it
	RevocationFailed   Revocation = "failed"   // it may be good until it expires
)

// CredentialRevoked says how the end of a token went ("credential.revoked"): one for each that was issued.
type CredentialRevoked struct {
	Name        string     `json:"name"`
	TokenSHA256 string     `json:"token_sha256,omitempty"`
	Status      Revocation `json:"status"`
	Detail      string     `json:"detail,omitempty"`
}

// CredentialUsed counts the requests that carried a credential ("credential.used"). All are totals so far: a later event
// replaces an earlier one.
type CredentialUsed struct {
	Name        string            `json:"name"`
	Requests    uint64            `json:"requests"`
	Permissions map[string]string `json:"permissions,omitempty"` // that GitHub says the requests needed (X-Accepted-GitHub-Permissions)
	PerHost     map[string]uint64 `json:"per_host,omitempty"`
}

// CredentialState is one credential over the whole run: how it was issued, and what became of it.
type CredentialState struct {
	CredentialIssued
	Renewals    uint64              `json:"renewals,omitempty"`
	Revocations []CredentialRevoked `json:"revocations,omitempty"` // of each token, bounded
	Revoked     Revocation          `json:"revoked,omitempty"`     // the worst of them
	Used        *CredentialUsed     `json:"used,omitempty"`
}

// Kind is "credential.issued".
func (CredentialIssued) Kind() string { return "credential.issued" }

// Kind is "credential.renewed".
func (CredentialRenewed) Kind() string { return "credential.renewed" }

// Kind is "credential.revoked".
func (CredentialRevoked) Kind() string { return "credential.revoked" }

// Kind is "credential.used".
func (CredentialUsed) Kind() string { return "credential.used" }

func (CredentialIssued) sealed()  {}
func (CredentialRenewed) sealed() {}
func (CredentialRevoked) sealed() {}
func (CredentialUsed) sealed()    {}

// credentials keeps the state of each, in the order of their first event.
type credentials []CredentialState

// add reports whether e is about a credential.
func (cs *credentials) add(e Event) bool {
	switch e := e.(type) {
	case CredentialIssued:
		cs.of(e.Name, func(s *CredentialState) { s.CredentialIssued = e })
	case CredentialRenewed:
		cs.of(e.Name, func(s *CredentialState) { s.Renewals, s.Expires, s.TokenSHA256 = e.Count, e.Expires, e.TokenSHA256 })
	case CredentialRevoked:
		cs.of(e.Name, func(s *CredentialState) {
			s.Revocations = list(s.Revocations, e)
			s.Revoked = worse(s.Revoked, e.Status)
		})
	case CredentialUsed:
		cs.of(e.Name, func(s *CredentialState) { s.Used = &e })
	default:
		return false
	}
	return true
}

// of changes the state of one credential. The bound is for a log that somebody else wrote.
func (cs *credentials) of(name string, change func(*CredentialState)) {
	i := slices.IndexFunc(*cs, func(s CredentialState) bool { return s.Name == name })
	if i < 0 {
		if len(*cs) >= maxListed {
			return
		}
		i = len(*cs)
		*cs = append(*cs, CredentialState{CredentialIssued: CredentialIssued{Name: name}})
	}
	change(&(*cs)[i])
}

// sum is a copy.
func (cs credentials) sum() []CredentialState {
	out := clone(cs)
	for i := range out {
		s := &out[i]
		s.Revocations = slices.Clone(s.Revocations)
		if s.Used != nil {
			used := *s.Used
			used.Permissions, used.PerHost = maps.Clone(used.Permissions), maps.Clone(used.PerHost)
			s.Used = &used
		}
	}
	return out
}

// worse of two; a status that this version does not know is the worst.
func worse(a, b Revocation) Revocation {
	order := []Revocation{RevocationVerified, RevocationExpired, RevocationAccepted, RevocationFailed}
	rank := func(r Revocation) int {
		if i := slices.Index(order, r); i >= 0 {
			return i
		}
		return len(order)
	}
	if a == "" || rank(b) > rank(a) {
		return b
	}
	return a
}
