package rotate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// Options are what the caller says beside the policy.
type Options struct {
	OldID string       // of the present key at the provider, where nothing else tells
	Say   func(string) // is told of each step; nil: nobody is
}

// Result is a rotation that was finished: a contract, to which fields are only added. Nothing in it is secret.
type Result struct {
	Contract   int              `json:"contract"` // 1
	Credential string           `json:"credential"`
	OldID      string           `json:"old_id,omitempty"`
	NewID      string           `json:"new_id,omitempty"`
	Stores     []StoreResult    `json:"stores"`
	Revocation event.Revocation `json:"revocation"` // of the old key
	Resumed    bool             `json:"resumed"`    // an earlier one was gone on with
	Orphans    []string         `json:"orphans"`    // ids of keys that earlier tries made, and that were revoked now
	Lost       int              `json:"lost"`       // keys that earlier tries may have made, whose ids nobody knows
}

// StoreResult is a place that got the new key.
type StoreResult struct {
	Store    string `json:"store"`
	Verified bool   `json:"verified"` // it was seen to have it
}

// rotation is one at work. At each moment a key that works is in every place: the old one, or the new one after it was proved. What is done
// is written down before it begins, so that the next call knows what a killed one may have left.
type rotation struct {
	cfg     Config
	c       policy.Credential
	opts    Options
	v       values
	stores  []place
	j       *journal
	before  *journal // that an earlier call left; comes back if this one changes nothing
	orphans []string // ids of keys of earlier tries
	lost    int      // as in journal
	late    bool     // what is left to do is to revoke
	hide    secret.Set
	result  Result
	at      func(point string) // for tests: called between any two steps
}

type place struct {
	name string
	store
}

// Rotate replaces the key of a credential by the policy's recipe. Cancelling ctx stops it before its next step.
func Rotate(ctx context.Context, c policy.Credential, cfg Config, opts Options) (Result, error) {
	r := &rotation{cfg: cfg, c: c, opts: opts}
	return r.rotate(ctx)
}

func (r *rotation) rotate(ctx context.Context) (Result, error) {
	switch {
	case r.c.Rotation.Create.IsZero():
		return Result{}, mend("see `rotation` in docs/rotation.md", "the policy has no recipe for a new key of %s", r.c.Name)
	case r.cfg.Book == nil:
		return Result{}, errors.New("a rotation needs the book of credentials")
	}
	unlock, err := r.cfg.Book.lock()
	if err != nil {
		return Result{}, err
	}
	r.result = Result{Contract: 1, Credential: r.c.Name, Stores: []StoreResult{}, Orphans: []string{}}
	err = r.run(ctx)
	return r.result, r.hidden(errors.Join(err, unlock()))
}

// hidden takes secrets out of an error: what a provider or a program said may have them.
func (r *rotation) hidden(err error) error {
	if err == nil {
		return nil
	}
	var hint string
	if h := hintOf(err); h != "" {
		hint = r.hide.Redact(h, nil)
	}
	text, _, _ := strings.Cut(err.Error(), "\nhint: ")
	return &MendError{r.hide.Redact(text, nil), hint}
}

func (r *rotation) run(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	from, err := r.resume(ctx)
	if err != nil {
		return err
	}
	type step struct {
		phase phase
		do    func(context.Context) error
	}
	for _, s := range []step{{creating, r.create}, {created, r.prove}, {storing, r.store}, {revoking, r.revoke}} {
		if order(s.phase) < order(from) {
			continue
		}
		if err := r.pause(ctx, "before "+string(s.phase)); err != nil {
			return r.abandon(ctx, err)
		}
		// A step that has begun is finished: half a request helps nobody.
		if err := s.do(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// order is that of the phases.
func order(p phase) int { return map[phase]int{creating: 0, created: 1, storing: 2, revoking: 3}[p] }

// pause is between two steps.
func (r *rotation) pause(ctx context.Context, point string) error {
	if r.at != nil {
		r.at(point)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("stopped: %w", context.Cause(ctx))
	}
	return nil
}

// passed marks a point inside of a step.
func (r *rotation) passed(point string) {
	if r.at != nil {
		r.at(point)
	}
}

func (r *rotation) say(format string, args ...any) {
	if r.opts.Say != nil {
		r.opts.Say(r.hide.Redact(fmt.Sprintf(format, args...), nil))
	}
}

// keep notes a secret, so that nothing shows it.
func (r *rotation) keep(v secret.Value) secret.Value {
	if !v.IsEmpty() && len(v.Reveal()) <= maxKeyFile {
		r.hide.Add(r.c.Name, v)
	}
	return v
}

// prepare finds all that the rotation needs, before anything changes.
func (r *rotation) prepare(ctx context.Context) error {
	var err error
	if r.before, err = r.cfg.pending(r.c); err != nil {
		return err
	}
	r.late = r.before != nil && r.before.Phase == revoking
	present, err := r.cfg.Sources.Read(ctx, r.c)
	if err != nil && !r.late {
		return mend(hintOf(err), "the present key of %s: %v", r.c.Name, err)
	}
	r.v.old = r.keep(present)
	e, err := r.cfg.Book.Entry(present)
	if err != nil {
		return err
	}
	if !e.Revoked.IsZero() && !r.late {
		return mend("take the new one from where it is kept", "%s gives a key that was revoked on %s", r.c.From, e.Revoked.Format(time.DateTime))
	}
	if token := r.c.Rotation.Token; token != (policy.Origin{}) {
		if r.v.token, err = r.cfg.Sources.Read(ctx, policy.Credential{From: token}); err != nil {
			return mend(hintOf(err), "the token for the rotation: %v", err)
		}
		r.keep(r.v.token)
	}
	if r.late {
		return nil
	}
	return r.openStores(ctx)
}

// openStores insists that each place has a key already: one in a wrong place would leave the old one where it is used, and dead.
func (r *rotation) openStores(ctx context.Context) error {
	for _, s := range r.c.Rotation.Store {
		name := storeName(s, r.cfg.Sources.Self)
		opened, err := r.cfg.open(ctx, s)
		if err == nil {
			_, err = opened.written(ctx)
		}
		if err != nil {
			return mend(hintOf(err), "%s: %s", name, message(err))
		}
		r.stores = append(r.stores, place{name, opened})
	}
	return nil
}

// abandon ends this call. A new key that nothing has is revoked, and all is as it was; what has gone further is for the next call.
func (r *rotation) abandon(ctx context.Context, cause error) error {
	if r.j == nil {
		return cause // nothing has begun
	}
	ctx = context.WithoutCancel(ctx)
	again := "call `agent-sandbox credentials rotate " + r.c.Name + "` again: it goes on"
	switch r.j.Phase {
	case storing:
		return mend(again, "%s\nthe old key is not revoked, and some places may have the new key %s", message(cause), r.j.NewID)
	case revoking:
		return mend(again, "%s\nthe new key is in place; the old key %s may still work", message(cause), r.j.OldID)
	}
	if err := r.drop(ctx, r.j.NewID, r.v.new); err != nil {
		return mend(again, "%s\nthe old key works; the new key %s, which nothing has, could not be revoked: %s", message(cause), r.j.NewID, message(err))
	}
	if err := r.restore(); err != nil {
		return errors.Join(cause, err)
	}
	return mend(hintOf(cause), "%s\nthe old key works, and the new one was revoked", message(cause))
}

// drop revokes a key that nothing has. Its value may not be known.
func (r *rotation) drop(ctx context.Context, id string, value secret.Value) error {
	if id == "" && value.IsEmpty() {
		return errors.New("nobody knows its id")
	}
	_, err := r.cfg.do(ctx, r.c.Rotation.Revoke, values{token: r.v.token, new: r.v.old, old: value, newID: r.v.oldID, oldID: id})
	if status := statusOf(err); status == 404 || status == 410 {
		return nil // it is gone
	}
	return err
}

// restore brings the record back to what this call found.
func (r *rotation) restore() error {
	if r.before == nil {
		return r.cfg.forget(r.c)
	}
	return r.cfg.save(r.c, r.before)
}

// Forget drops the record of a rotation that was not finished: what it left was seen to by hand.
func (cfg Config) Forget(c policy.Credential) (err error) {
	unlock, err := cfg.Book.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return cfg.forget(c)
}
