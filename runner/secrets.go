package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// secrets is what nothing that the run says or leaves may show, and how often something would have.
type secrets struct {
	set secret.Set
	off bool // for tests: nothing is looked for

	mu     sync.Mutex // guards what follows
	counts []event.Redacted
	short  []string // of secrets that are too short to be looked for
}

// add puts one more into the set.
func (s *secrets) add(name string, v secret.Value) {
	if v.IsEmpty() || s.off || s.set.Add(name, v) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.short = append(s.short, name)
}

// minPart is the least length in bytes of a word that counts as a secret because it stands in one.
const minPart = 20

// addWithParts is for a secret that may be a document: a key in it is a secret on its own.
func (s *secrets) addWithParts(name string, v secret.Value) {
	s.add(name, v)
	words := strings.FieldsFunc(v.Reveal(), func(r rune) bool { return r <= ' ' || strings.ContainsRune(`"',;=`, r) })
	if len(words) < 2 {
		return
	}
	for _, word := range words {
		if len(word) >= minPart {
			s.add(name, secret.New(word))
		}
	}
}

// counted is told where a secret was met; the result is told which.
func (s *secrets) counted(where string) func(name string) {
	return func(name string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.counts {
			if s.counts[i].Where == where && s.counts[i].Credential == name {
				s.counts[i].Count++
				return
			}
		}
		s.counts = append(s.counts, event.Redacted{Where: where, Credential: name, Count: 1})
	}
}

// text is a text of the record.
func (s *secrets) text(text string) string {
	return s.set.Redact(text, s.counted(event.RedactedEvents))
}

// writer is for a stream of the agent's output.
func (s *secrets) writer(to io.Writer, where string) *secret.Writer {
	return s.set.NewWriter(to, s.counted(where))
}

// value is what gives a credential out. What it gives is looked for from before anybody has it, a renewed token too.
func (s *secrets) value(name string, value func(context.Context) (secret.Value, error)) func(context.Context) (secret.Value, error) {
	return func(ctx context.Context) (secret.Value, error) {
		v, err := value(ctx)
		if err == nil {
			s.add(name, v)
		}
		return v, err
	}
}

// known are those that are there before anything was obtained: the command line is recorded first, and may have one.
func (s *secrets) known(cfg Config) {
	s.off = cfg.skipRedaction()
	for _, c := range cfg.Policy.Credentials {
		if c.From.Kind == "env" {
			text, _ := cfg.LookupEnv(c.From.Argument)
			s.add(c.Name, secret.New(text))
		}
		if c.Key.Kind == "env" {
			text, _ := cfg.LookupEnv(c.Key.Argument)
			s.add(c.Name, secret.New(text))
		}
	}
	for _, proxy := range []string{cfg.Proxy.HTTPS, cfg.Proxy.HTTP} {
		if u, err := url.Parse(proxy); err == nil && u.User != nil {
			password, _ := u.User.Password()
			s.add("proxy", secret.New(password))
		}
	}
}

// report says how often each was met, and which could not be looked for.
func (s *secrets) report(emit func(event.Event)) {
	s.mu.Lock()
	counts, short := s.counts, s.short
	s.mu.Unlock()
	seen := map[string]bool{}
	for _, name := range short {
		if !seen[name] {
			seen[name] = true
			emit(event.Warning{
				Message: fmt.Sprintf("the credential %s is shorter than %d characters: it was not looked for in the output", name, secret.MinLength),
				Mend:    "use a longer one",
			})
		}
	}
	for _, r := range counts {
		emit(r)
	}
}

// redactedJSON is v without secrets.
type redactedJSON struct {
	secrets *secrets
	v       any
}

// MarshalJSON implements json.Marshaler.
func (r redactedJSON) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r.v); err != nil {
		return nil, err
	}
	if r.secrets.set.IsEmpty() {
		return b.Bytes(), nil
	}
	return []byte(r.secrets.text(b.String())), nil
}

// plan takes them out of a plan that is only shown.
func (s *secrets) plan(p *Plan) {
	p.Argv = slices.Clone(p.Argv)
	for i := range p.Argv {
		p.Argv[i] = s.text(p.Argv[i])
	}
	for i := range p.Env {
		p.Env[i].Value = s.text(p.Env[i].Value)
	}
}

// redactedError is err with another text.
type redactedError struct {
	err  error
	text string
}

func (e *redactedError) Error() string { return e.text }

func (e *redactedError) Unwrap() error { return e.err }

// err is for who called: what went wrong may quote what it went wrong with.
func (s *secrets) err(err error) error {
	if err == nil {
		return nil
	}
	if text := s.text(err.Error()); text != err.Error() {
		return &redactedError{err, text}
	}
	return err
}

// hold adds the credentials of the run.
func (r *run) hold(ctx context.Context) error {
	for i := range r.grants {
		g := &r.grants[i]
		g.Value = r.secrets.value(g.Name, g.Value)
		if _, err := g.Value(ctx); err != nil {
			return policy.Problems{{Path: "credentials." + g.Name, Message: err.Error()}}
		}
		for _, v := range g.Inside {
			r.secrets.addWithParts(g.Name, v)
		}
	}
	return nil
}
