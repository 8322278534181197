package rotate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/secret"
)

// store is a place where a key is kept.
type store interface {
	// written is when it was written last; zero: it can't tell. An error means that there is no such key, or that nobody can ask.
	written(ctx context.Context) (time.Time, error)
	// put replaces the key. verified: the place has been seen to have it. An *untouchedError means that it still has the old one.
	put(ctx context.Context, v secret.Value) (verified bool, err error)
}

// reader is a store that gives back what it has.
type reader interface {
	read(ctx context.Context) (secret.Value, error)
}

// untouchedError is a failure before anything was changed.
type untouchedError struct{ error }

func (e *untouchedError) Unwrap() error { return e.error }

// untouched tells whether err means that nothing was changed.
func untouched(err error) bool {
	_, ok := errors.AsType[*untouchedError](err)
	return ok
}

// MendError is a failure with what to do about it.
type MendError struct{ Message, Hint string }

func (e *MendError) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "\nhint: " + e.Hint
}

func mend(hint, format string, args ...any) error {
	return &MendError{fmt.Sprintf(format, args...), hint}
}

// storeName is how people call the place.
func storeName(s policy.KeyStore, self string) string {
	repository := s.Repository
	if repository == "self" && self != "" {
		repository = self
	}
	switch {
	case s.GitHub != "" && s.Organization != "":
		return fmt.Sprintf("the Actions secret %s of the organisation %s", s.GitHub, s.Organization)
	case s.GitHub != "" && s.Environment != "":
		return fmt.Sprintf("the Actions secret %s of %s, environment %s", s.GitHub, repository, s.Environment)
	case s.GitHub != "":
		return fmt.Sprintf("the Actions secret %s of %s", s.GitHub, repository)
	case s.Vault != "":
		return "Vault's " + s.Vault
	case s.File != "":
		return "the file " + s.File
	}
	return "the command " + s.Command[0]
}

// open finds a store, without asking it anything yet.
func (cfg Config) open(ctx context.Context, s policy.KeyStore) (store, error) {
	switch {
	case s.GitHub != "":
		return cfg.openGitHub(ctx, s)
	case s.Vault != "":
		return cfg.openVault(ctx, s)
	case s.File != "":
		path, err := cfg.Sources.Path(s.File)
		return fileStore{path, s.File}, err
	}
	return commandStore{cfg, s.Command}, nil
}

// storeToken is what may use a store: the policy's choice, or the first of the usual variables.
func (cfg Config) storeToken(ctx context.Context, s policy.KeyStore, usual ...string) (secret.Value, error) {
	if s.Token != (policy.Origin{}) {
		return cfg.Sources.Read(ctx, policy.Credential{From: s.Token})
	}
	for _, name := range usual {
		if text, _ := cfg.Sources.LookupEnv(name); text != "" {
			return secret.New(text), nil
		}
	}
	return secret.Value{}, mend("set it, or name another source with `token:`", "%s is not set", usual[0])
}

// askTime bounds the question of when a store was written.
const askTime = 10 * time.Second

// written is when the first of the places of a credential was written: the others may have a younger copy of the same. Places that
// can't be asked are told of.
func (cfg Config) written(ctx context.Context, c policy.Credential) (time.Time, []StoreAge) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var first time.Time
	var all []StoreAge
	for _, s := range c.Rotation.Store {
		out := StoreAge{Store: storeName(s, cfg.Sources.Self)}
		place, err := cfg.open(ctx, s)
		var at time.Time
		if err == nil {
			at, err = place.written(ctx)
		}
		switch {
		case err != nil:
			out.Detail = message(err)
		case !at.IsZero():
			at = at.UTC()
			out.Written = &at
			if first.IsZero() || at.Before(first) {
				first = at
			}
		}
		all = append(all, out)
	}
	return first, all
}

// message is an error in one line, without its hint.
func message(err error) string {
	if m, ok := errors.AsType[*MendError](err); ok {
		return m.Message
	}
	return err.Error()
}

// hintOf is what mends an error.
func hintOf(err error) string {
	if m, ok := errors.AsType[*MendError](err); ok {
		return m.Hint
	}
	return credential.Hint(err)
}

// commandStore is a program of the user's. What it did nobody can see.
type commandStore struct {
	cfg  Config
	argv []string
}

func (s commandStore) written(context.Context) (time.Time, error) { return time.Time{}, nil }

func (s commandStore) put(ctx context.Context, v secret.Value) (bool, error) {
	_, err := s.cfg.Sources.Output(ctx, s.argv, []string{"AGENT_SANDBOX_NEW=" + v.Reveal()})
	return false, err
}

// maxAnswer bounds the answer of a server in bytes.
const maxAnswer = 1 << 20

// answerError is an answer that is none.
type answerError struct {
	status int
	detail string
}

func (e *answerError) Error() string {
	text := fmt.Sprintf("status %d", e.status)
	if name := http.StatusText(e.status); name != "" {
		text += " (" + name + ")"
	}
	if e.detail != "" {
		text += ": " + e.detail
	}
	return text
}

// statusOf is the status of an answer that is none; 0 if there was no answer.
func statusOf(err error) int {
	if a, ok := errors.AsType[*answerError](err); ok {
		return a.status
	}
	return 0
}

// refused tells whether a server declined, so that it did nothing.
func refused(err error) bool {
	status := statusOf(err)
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout
}
