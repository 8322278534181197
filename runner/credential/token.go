package credential

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// token is a secret as its source gives it.
type token struct {
	value    secret.Value
	parts    []part                 // of a source that gives several secrets at once; value is among them
	expires  time.Time              // zero: nobody knows an end
	granted  *event.CredentialScope // nil: it has none that can be told
	issuance string                 // id in the issuer's audit log
}

// digest is that of GitHub's audit log: base64 of the SHA-256. Only of what was issued for the run: a digest of a secret that people chose
// could be guessed at.
func (t token) digest() string {
	sum := sha256.Sum256([]byte(t.value.Reveal()))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (t token) end() *time.Time {
	if t.expires.IsZero() {
		return nil
	}
	end := t.expires.UTC()
	return &end
}

// issuer gives the tokens of one credential, as often as they end.
type issuer interface {
	issue(ctx context.Context) (token, error)
}

// revoker is an issuer whose tokens can be ended. The status is what is known afterwards.
type revoker interface {
	revoke(ctx context.Context, value secret.Value) (event.Revocation, error)
	// kept is what it takes to revoke a token later, from another process.
	kept(value secret.Value) Kept
}

const (
	// renewBefore is how long before its end a token is replaced: GitHub checks it when a request begins.
	renewBefore = 5 * time.Minute
	// renewWait is the time between tries while the present token is still good.
	renewWait = 20 * time.Second
	// revokeTime bounds the end of all tokens of a run.
	revokeTime = 20 * time.Second
)

// held is a credential during a run: its present token, and all that were issued.
type held struct {
	name   string // in the policy
	part   string // of it
	issuer issuer
	issued event.CredentialIssued // without the token's part
	now    func() time.Time
	emit   func(event.Event)
	keep   *Keeper // nil: nobody could revoke after a kill

	mu      sync.Mutex // guards what follows, and keeps renewals one at a time
	current token
	past    []token // replaced, and maybe still in the middle of a request
	renewed uint64
	tried   time.Time
	closed  bool
}

func (h *held) label() string { return label(h.name, h.part) }

// begin issues the first token.
func (h *held) begin(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.replace(ctx)
}

// announce tells the record of a credential that goes into the sandbox as planned.
func (h *held) announce() {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.issued
	e.Issued, e.Expires, e.Granted, e.IssuanceID = h.now().UTC(), h.current.end(), h.current.granted, h.current.issuance
	if h.revocable() {
		e.TokenSHA256 = h.current.digest()
	}
	h.emit(e)
}

func (h *held) revocable() bool {
	_, ok := h.issuer.(revoker)
	return ok
}

// replace gets another token. What was issued is noted for revocation before anybody uses it.
func (h *held) replace(ctx context.Context) error {
	t, err := h.issuer.issue(ctx)
	if err != nil {
		return err
	}
	if r, ok := h.issuer.(revoker); ok && h.keep != nil {
		if err := h.keep.add(r.kept(t.value)); err != nil {
			_, revokeErr := r.revoke(ctx, t.value)
			return errors.Join(err, revokeErr)
		}
	}
	if !h.current.value.IsEmpty() {
		h.past = append(h.past, h.current)
	}
	h.current = t
	return nil
}

// value is the present secret; a new one, if the present is about to end. Requests that are under way go on with the one they began with.
func (h *held) value(ctx context.Context) (secret.Value, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	switch {
	case h.closed:
		return secret.Value{}, fmt.Errorf("the credential %s was given back: the run is over", h.label())
	case h.current.expires.IsZero() || now.Before(h.current.expires.Add(-renewBefore)):
		return h.current.value, nil
	case now.Before(h.current.expires) && now.Before(h.tried.Add(renewWait)):
		return h.current.value, nil
	}
	h.tried = now
	if err := h.replace(ctx); err != nil {
		if now.Before(h.current.expires) {
			return h.current.value, nil // it is good for minutes, and the next request tries again
		}
		return secret.Value{}, fmt.Errorf("the credential %s has ended, and can't be renewed: %w", h.label(), err)
	}
	h.renewed++
	e := event.CredentialRenewed{Name: h.label(), Expires: h.current.end(), Count: h.renewed}
	if h.revocable() {
		e.TokenSHA256 = h.current.digest()
	}
	h.emit(e)
	return h.current.value, nil
}

// close gives every token back. Nothing can be had from h afterwards.
func (h *held) close(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	r, ok := h.issuer.(revoker)
	if !ok {
		return nil
	}
	var errs []error
	for _, t := range append(h.past, h.current) {
		if t.value.IsEmpty() {
			continue
		}
		e := event.CredentialRevoked{Name: h.label(), TokenSHA256: t.digest(), Status: event.RevocationExpired}
		if t.expires.IsZero() || h.now().Before(t.expires) {
			status, err := r.revoke(ctx, t.value)
			e.Status = status
			if err != nil {
				e.Detail = err.Error()
				errs = append(errs, fmt.Errorf("revoke credential %s: %w", h.label(), err))
			}
		}
		h.emit(e)
		if e.Status != event.RevocationFailed && h.keep != nil {
			h.keep.drop(r.kept(t.value))
		}
	}
	return errors.Join(errs...)
}

// Set is the credentials of a run.
type Set struct {
	Grants []Grant
	held   []*held
}

// Aged says how old the secret of a credential is, for its announcement.
func (s *Set) Aged(name string, age *event.CredentialAge) {
	for _, h := range s.held {
		if h.name == name {
			h.mu.Lock()
			h.issued.Age = age
			h.mu.Unlock()
		}
	}
}

// Announce tells the record what the run has.
func (s *Set) Announce() {
	if s == nil {
		return
	}
	for _, h := range s.held {
		h.announce()
	}
}

// Close revokes what was issued, and says of each token how that went. It outlives the cancellation of ctx.
func (s *Set) Close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTime)
	defer cancel()
	errs := make([]error, len(s.held))
	var all sync.WaitGroup
	for i, h := range s.held { // at one time: all of them have one deadline
		all.Go(func() { errs[i] = h.close(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// issuedBy is what is known of a credential before there is a token.
func issuedBy(c piece, grants []Grant) event.CredentialIssued {
	e := event.CredentialIssued{
		Name: label(c.Name, c.part), Source: c.From.Kind, Deliver: string(c.Deliver), Broker: c.Broker, Identity: c.Identity, Broad: grants[0].Broad, Env: grants[0].Env,
	}
	for _, g := range grants {
		for _, host := range g.Hosts {
			e.Hosts = append(e.Hosts, host.String())
		}
	}
	if isGitHub(c.Credential) {
		e.Requested = &event.CredentialScope{Permissions: c.Permissions, Push: c.Push}
		for _, name := range c.Repositories {
			e.Requested.Repositories = append(e.Requested.Repositories, event.CredentialRepository{Name: name})
		}
	}
	return e
}
