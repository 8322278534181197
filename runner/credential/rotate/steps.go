package rotate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// create makes the new key.
func (r *rotation) create(ctx context.Context) error {
	j := &journal{
		Credential: r.c.Name, Begun: r.cfg.now(), Phase: creating, OldPrint: r.cfg.Book.Fingerprint(r.v.old), OldID: r.v.oldID,
		Orphans: r.orphans, Lost: r.lost,
	}
	r.j = j
	if err := r.cfg.save(r.c, j); err != nil {
		return err
	}
	r.passed("creating is recorded")
	step := r.c.Rotation.Create
	answer, err := r.cfg.do(ctx, step, r.v)
	r.keep(answer)
	r.passed("the key is made")
	switch {
	case refused(err):
		return errors.Join(fmt.Errorf("the provider made no new key: %w", err), r.restore())
	case err != nil:
		return mend("call again; if the provider shows a key too many then, it is from this try", "make a new key: %s\nthe old key works", message(err))
	}
	text, err := pick(answer, step.Value)
	id := ""
	if step.ID != "" {
		var idErr error
		id, idErr = pick(answer, step.ID)
		err = errors.Join(err, idErr)
	}
	if err == nil {
		err = r.newKey(text, id)
	}
	if err != nil {
		r.j.NewID = id
		return r.unusable(ctx, err)
	}
	j.Phase, j.NewID, j.NewPrint = created, id, r.cfg.Book.Fingerprint(r.v.new)
	err = r.cfg.Book.Note(r.v.new, r.c.Name, r.cfg.now(), func(e *Entry) { e.Made, e.KeyID = r.cfg.now(), id })
	if err == nil {
		err = r.cfg.save(r.c, j)
	}
	if err != nil {
		return r.unusable(ctx, err)
	}
	r.result.NewID = id
	r.say("made a new key %s", id)
	return nil
}

// newKey takes the key out of the provider's answer.
func (r *rotation) newKey(text, id string) error {
	switch {
	case text == "" || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && c != '\n' || c == 0x7f }):
		return errors.New("the answer has no key")
	case text == r.v.old.Reveal():
		return errors.New("the provider gave the old key")
	}
	r.v.new, r.v.newID = r.keep(secret.New(text)), id
	return nil
}

// unusable is for a key that was made and can't be gone on with.
func (r *rotation) unusable(ctx context.Context, cause error) error {
	if err := r.drop(ctx, r.j.NewID, r.v.new); err != nil {
		return mend("look for it at the provider", "%v\nthe old key works; the new one could not be revoked: %v", cause, err)
	}
	return errors.Join(fmt.Errorf("%w: it was revoked, and the old key works", cause), r.restore())
}

// proveWaits are the times between tries: a new key may take a while to be known everywhere.
func proveWaits() []time.Duration {
	return []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second}
}

// prove uses the new key.
func (r *rotation) prove(ctx context.Context) error {
	err := r.try(ctx, func() error {
		_, err := r.cfg.do(ctx, r.c.Rotation.Prove, values{new: r.v.new, newID: r.v.newID})
		return err
	})
	if err != nil {
		return r.abandon(ctx, mend(hintOf(err), "the new key does not work: %s", message(err)))
	}
	r.passed("the key is proved")
	r.say("proved the new key")
	return nil
}

// try does something until it succeeds, or has failed too often.
func (r *rotation) try(ctx context.Context, do func() error) error {
	err := do()
	for _, wait := range proveWaits() {
		if err == nil {
			return nil
		}
		if waitErr := r.cfg.wait(ctx, wait); waitErr != nil {
			return errors.Join(err, waitErr)
		}
		err = do()
	}
	return err
}

func (cfg Config) wait(ctx context.Context, d time.Duration) error {
	if cfg.Wait != nil {
		return cfg.Wait(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// store puts the new key into every place, and sees that the source gives it.
func (r *rotation) store(ctx context.Context) error {
	first := r.j.Phase == created
	r.j.Phase = storing
	if err := r.cfg.save(r.c, r.j); err != nil {
		r.j.Phase = created
		return r.abandon(ctx, err)
	}
	for i, s := range r.stores {
		r.passed(fmt.Sprintf("store %d is next", i))
		verified, err := s.put(ctx, r.v.new)
		if err != nil {
			if i == 0 && first && untouched(err) {
				r.j.Phase = created // nothing has it
			}
			return r.abandon(ctx, mend(hintOf(err), "store the new key in %s: %s", s.name, message(err)))
		}
		r.result.Stores = append(r.result.Stores, StoreResult{s.name, verified})
		r.say("stored the new key in %s%s", s.name, map[bool]string{true: ", and saw it there"}[verified])
	}
	r.passed("all places have it")
	if err := r.arrived(ctx); err != nil {
		return err
	}
	r.j.Phase = revoking
	if err := r.cfg.save(r.c, r.j); err != nil {
		r.j.Phase = storing
		return r.abandon(ctx, err)
	}
	return nil
}

// arrived reads the key again where a run would. A variable can't be: it is the caller's.
func (r *rotation) arrived(ctx context.Context) error {
	if r.c.From.Kind == "env" || r.c.From.Kind == "github-app" && r.c.Key.Kind == "env" {
		return nil
	}
	now, err := r.cfg.Sources.Read(ctx, r.c)
	if err == nil && now.Reveal() != r.v.new.Reveal() {
		err = errors.New("it is still another one")
	}
	if err != nil {
		return mend("name that place under `rotation.store`, then call again: it goes on",
			"the new key is stored, and %s does not give it: %v\nthe old key works, so it is not revoked", r.c.From, err)
	}
	return nil
}

// revoke ends the old key, and those that earlier tries left.
func (r *rotation) revoke(ctx context.Context) error {
	byHand := "call again; or revoke it at the provider yourself, then: agent-sandbox credentials rotate " + r.c.Name + " --forget"
	_, err := r.cfg.do(ctx, r.c.Rotation.Revoke, r.v)
	if status := statusOf(err); r.late && (status == 404 || status == 410) {
		err = nil // an earlier call did it
	}
	if err != nil {
		return mend(byHand, "the new key is in place; the old key %s could not be revoked: %s", r.v.oldID, message(err))
	}
	r.passed("the old key is revoked")
	if r.result.Revocation, err = r.dead(ctx); err != nil {
		return mend(byHand, "the new key is in place; %v", err)
	}
	r.say("revoked the old key %s: %s", r.v.oldID, r.result.Revocation)
	for len(r.j.Orphans) > 0 {
		id := r.j.Orphans[0]
		if err := r.drop(ctx, id, secret.Value{}); err != nil {
			return mend(byHand, "the key %s of an earlier rotation could not be revoked: %s", id, message(err))
		}
		r.say("revoked the key %s of an earlier rotation", id)
		r.result.Orphans, r.j.Orphans = append(r.result.Orphans, id), r.j.Orphans[1:]
	}
	if err := r.cfg.Book.Note(r.v.old, r.c.Name, r.cfg.now(), func(e *Entry) { e.Revoked = r.cfg.now() }); err != nil {
		return err
	}
	return r.cfg.forget(r.c)
}

// dead tries the old key, which must fail where the new one just now succeeds.
func (r *rotation) dead(ctx context.Context) (event.Revocation, error) {
	if r.v.old.IsEmpty() || r.v.new.IsEmpty() {
		return event.RevocationAccepted, nil
	}
	works := func(v secret.Value, id string) error {
		_, err := r.cfg.do(ctx, r.c.Rotation.Prove, values{new: v, newID: id})
		return err
	}
	err := r.try(ctx, func() error {
		if works(r.v.old, r.v.oldID) == nil {
			return errors.New("the provider says that the old key is revoked, and still takes it")
		}
		return nil
	})
	if err != nil {
		return event.RevocationFailed, err
	}
	if works(r.v.new, r.v.newID) != nil {
		return event.RevocationAccepted, nil // the provider takes neither: that proves nothing
	}
	return event.RevocationVerified, nil
}
