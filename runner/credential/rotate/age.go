package rotate

import (
	"context"
	"os"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// Config is what ages and rotations draw on.
type Config struct {
	// Sources reads secrets, and makes connections.
	Sources credential.Config
	// Book is what this machine remembers; nil: nothing.
	Book *Book
	// Scope is the project: rotations of credentials with one name in two projects are two.
	Scope string
	// Now is the clock; nil: the system's.
	Now func() time.Time
	// Wait passes time between tries; nil: the system's clock does.
	Wait func(context.Context, time.Duration) error
}

func (cfg Config) now() time.Time {
	if cfg.Now != nil {
		return cfg.Now().UTC()
	}
	return time.Now().UTC()
}

// The bases of an age, the best first.
const (
	basisRotated  = "rotated"    // this machine made it
	basisStore    = "store"      // where it is kept says when it was written
	basisFile     = "file"       // when its file was written
	basisDeclared = "declared"   // the policy says so
	basisSeen     = "first-seen" // it was there then
)

// Where an age is from.
const (
	observed = "observed"
	asserted = "asserted"
	unknown  = "unknown"
)

// slack is how much a declared day may differ from what was seen: a day begins elsewhere at another time.
const slack = 24 * time.Hour

// claim is one thing that tells when a secret was made.
type claim struct {
	at                time.Time
	basis, provenance string
}

// age tells how old the secret of a credential is. Without its value, what is kept elsewhere may tell all the same. written is when the places
// of the rotation say that they got it; zero: they don't.
func (cfg Config) age(c policy.Credential, value secret.Value, written time.Time) (event.CredentialAge, error) {
	e, err := cfg.Book.Entry(value)
	if err != nil {
		return event.CredentialAge{}, err
	}
	a := event.CredentialAge{Limit: c.Rotate, Enforced: c.RotateEnforce, Provenance: unknown}
	since(&a, []claim{
		{e.Made, basisRotated, observed},
		{written, basisStore, observed},
		{cfg.fileTime(c), basisFile, observed},
		{c.Rotated, basisDeclared, asserted},
	}, e, cfg.now())
	a.State = state(a, cfg.now())
	if !e.Revoked.IsZero() {
		a.State, a.Detail = event.AgeOverdue, "this key was revoked on "+e.Revoked.Format(time.DateOnly)+": its place has been taken by another"
	}
	return a, nil
}

// since settles when a secret was made. What was seen earlier than it is said to have been made is older than that.
func since(a *event.CredentialAge, claims []claim, e Entry, now time.Time) {
	for _, c := range claims {
		switch {
		case c.at.IsZero():
			continue
		case c.at.After(now.Add(slack)):
			a.Detail = "the date that says when it was made is in the future"
			continue
		}
		at := c.at.UTC()
		a.Since, a.Basis, a.Provenance = &at, c.basis, c.provenance
		break
	}
	seen := e.FirstSeen
	if seen.IsZero() {
		return
	}
	switch {
	case a.Since == nil:
		a.Since, a.AtLeast, a.Basis, a.Provenance = &seen, true, basisSeen, observed
	case seen.Before(a.Since.Add(-slack)):
		a.Detail = "it was here before " + a.Since.Format(time.DateOnly) + ", when it is said to have been made"
		a.Since, a.AtLeast, a.Basis, a.Provenance = &seen, true, basisSeen, observed
	}
}

// state never takes an age for young that is only known to be at least so much.
func state(a event.CredentialAge, now time.Time) event.AgeState {
	due := a.Due()
	switch {
	case a.Limit == 0:
		return event.AgeUnscheduled
	case due != nil && !now.Before(*due):
		return event.AgeOverdue
	case due == nil || a.AtLeast:
		return event.AgeUnknown
	}
	return event.AgeFresh
}

// fileTime is when the file of a credential was written; zero if it has none.
func (cfg Config) fileTime(c policy.Credential) time.Time {
	from := c.From
	if from.Kind == "github-app" {
		from = c.Key
	}
	if from.Kind != "file" {
		return time.Time{}
	}
	path, err := cfg.Sources.Path(from.Argument)
	if err != nil {
		return time.Time{}
	}
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{} // reading the secret says so
	}
	return st.ModTime()
}

// Age tells how old the secret of a run's credential is, and notes that it was seen. Where the book does not know, the places where it is
// kept are asked.
func (cfg Config) Age(ctx context.Context, c policy.Credential, value secret.Value) (*event.CredentialAge, error) {
	if c.Rotate == 0 || !credential.IsKept(c) {
		return nil, nil
	}
	if c.From.Kind == "github-app" { // the run's value is a token; what grows old is the App's key
		var err error
		if value, err = cfg.Sources.Read(ctx, c); err != nil {
			return nil, err
		}
	}
	if !cfg.Sources.Dry {
		if err := cfg.Book.Note(value, c.Name, cfg.now(), nil); err != nil {
			return nil, err
		}
	}
	e, err := cfg.Book.Entry(value)
	if err != nil {
		return nil, err
	}
	var written time.Time
	if e.Made.IsZero() {
		written, _ = cfg.written(ctx, c)
	}
	a, err := cfg.age(c, value, written)
	return &a, err
}

// Used notes that a credential was used.
func (cfg Config) Used(ctx context.Context, c policy.Credential, value secret.Value) error {
	if !credential.IsKept(c) {
		return nil
	}
	if c.From.Kind == "github-app" {
		var err error
		if value, err = cfg.Sources.Read(ctx, c); err != nil {
			return err
		}
	}
	return cfg.Book.Note(value, c.Name, cfg.now(), func(e *Entry) { e.LastUsed = cfg.now() })
}
