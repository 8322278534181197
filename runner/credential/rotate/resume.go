package rotate

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// resume decides where to begin: with a new key, or where an earlier call was stopped.
func (r *rotation) resume(ctx context.Context) (phase, error) {
	if r.before == nil {
		return creating, r.identify(ctx, nil)
	}
	r.result.Resumed = true
	j := *r.before
	switch j.Phase {
	case creating:
		j.Lost++
		r.say("an earlier rotation, of %s, may have made a key whose id nobody knows: look for it at the provider", j.Begun.Format(time.DateTime))
		return r.anew(ctx, j)
	case created:
		// Nothing has it. The provider may not give another one beside it.
		if err := r.drop(ctx, j.NewID, secret.Value{}); err != nil {
			return "", mend("revoke it at the provider, then: agent-sandbox credentials rotate "+r.c.Name+" --forget",
				"an earlier rotation made the key %s, which nothing has and which can't be revoked: %s", j.NewID, message(err))
		}
		r.say("revoked the key %s, which an earlier rotation had made and nothing had", j.NewID)
		r.result.Orphans = append(r.result.Orphans, j.NewID)
		return r.anew(ctx, j)
	case storing:
		return r.resumeStoring(ctx, j)
	case left:
		return r.anew(ctx, j)
	}
	r.goOn(j, r.recover(ctx, j.NewPrint))
	return revoking, nil
}

// goOn takes up the journal of an earlier call.
func (r *rotation) goOn(j journal, key secret.Value) {
	if r.cfg.Book.Fingerprint(r.v.old) != j.OldPrint {
		r.v.old = secret.Value{} // what the source gives is not the old one any more
	}
	r.j, r.v.new, r.v.newID, r.v.oldID = &j, r.keep(key), j.NewID, cmp.Or(j.OldID, r.opts.OldID)
	r.result.NewID, r.result.OldID, r.result.Lost = j.NewID, r.v.oldID, j.Lost
}

// resumeStoring goes on with the key that some places may have, if one of them gives it back. Else another takes its place everywhere.
func (r *rotation) resumeStoring(ctx context.Context, j journal) (phase, error) {
	if key := r.recover(ctx, j.NewPrint); !key.IsEmpty() {
		r.goOn(j, key)
		r.say("going on with the key %s, which an earlier rotation had made", j.NewID)
		return created, nil // it is proved again: nobody knows what was done meanwhile
	}
	e, err := r.cfg.Book.Entry(r.v.old)
	if err != nil {
		return "", err
	}
	if ours := e.KeyID != "" && slices.Contains(j.Orphans, e.KeyID); !ours && r.cfg.Book.Fingerprint(r.v.old) != j.OldPrint {
		return "", mend("see to both at the provider and to the places where the key is kept, then: agent-sandbox credentials rotate "+r.c.Name+" --forget",
			"%s gives neither the old key %s nor the new key %s of an earlier rotation: somebody else changed it", r.c.From, j.OldID, j.NewID)
	}
	if j.NewID == "" {
		j.Lost++
	} else {
		j.Orphans = append(slices.Clone(j.Orphans), j.NewID)
	}
	return r.anew(ctx, j)
}

// recover finds a key by its fingerprint, in its source and in the places that give back what they have; empty: none does.
func (r *rotation) recover(ctx context.Context, print string) secret.Value {
	if !r.v.old.IsEmpty() && r.cfg.Book.Fingerprint(r.v.old) == print {
		return r.v.old
	}
	for _, s := range r.stores {
		from, ok := s.store.(reader)
		if !ok {
			continue
		}
		if v, err := from.read(ctx); err == nil && r.cfg.Book.Fingerprint(v) == print {
			return v
		}
	}
	return secret.Value{}
}

// anew makes another key. Those of earlier tries are revoked when it is in all places, since some may have one of them.
func (r *rotation) anew(ctx context.Context, j journal) (phase, error) {
	r.orphans, r.lost, r.result.Lost = j.Orphans, j.Lost, j.Lost
	if err := r.identify(ctx, &j); err != nil {
		return "", err
	}
	switch {
	case j.Phase == storing: // it stays so until another key is there
	case len(r.orphans) == 0:
		r.before = nil // that keys were lost has been said
	default:
		r.before = &journal{Credential: j.Credential, Begun: j.Begun, Phase: left, OldPrint: j.OldPrint, OldID: j.OldID, Orphans: r.orphans, Lost: j.Lost}
	}
	return creating, nil
}

// identify finds the id of the present key: the caller's, the book's, that of an earlier try, or the provider's.
func (r *rotation) identify(ctx context.Context, earlier *journal) error {
	e, err := r.cfg.Book.Entry(r.v.old)
	if err != nil {
		return err
	}
	r.v.oldID = cmp.Or(r.opts.OldID, e.KeyID)
	if earlier != nil && r.v.oldID == "" && earlier.OldPrint == r.cfg.Book.Fingerprint(r.v.old) {
		r.v.oldID = earlier.OldID
	}
	recipe := r.c.Rotation
	if r.v.oldID == "" && !recipe.Identify.IsZero() {
		answer, err := r.cfg.do(ctx, recipe.Identify, r.v)
		if err == nil {
			r.v.oldID, err = pick(answer, recipe.Identify.ID)
		}
		if err != nil {
			return mend(hintOf(err), "identify the present key: %s", message(err))
		}
	}
	if r.v.oldID == "" && (recipe.Revoke.Uses(policy.WordOldID) || recipe.Create.Uses(policy.WordOldID)) {
		return mend("give it with --old-id, or add `identify` to the policy's rotation", "nobody knows the id of the present key of %s", r.c.Name)
	}
	if earlier != nil && earlier.OldID != "" && earlier.OldID != r.v.oldID {
		r.orphans = append(slices.Clone(r.orphans), earlier.OldID) // one of the earlier tries has come into use
	}
	r.orphans = slices.DeleteFunc(slices.Clone(r.orphans), func(id string) bool { return id == r.v.oldID })
	r.result.OldID = r.v.oldID
	return nil
}
