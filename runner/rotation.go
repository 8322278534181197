package runner

import (
	"context"
	"fmt"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/credential/rotate"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

func (r *run) rotationConfig() rotate.Config {
	return rotate.Config{Sources: r.credentialConfig(), Book: r.cfg.Credentials.Book}
}

// ages tells how old the credentials are that somebody keeps, and refuses those that are not known to be as young as the policy insists on.
func (r *run) ages(ctx context.Context) error {
	cfg := r.rotationConfig()
	r.kept = map[string]secret.Value{}
	var problems policy.Problems
	for _, c := range r.cfg.Policy.Credentials {
		if !credential.IsKept(c) || r.dry && c.From.Kind == "exec" { // nothing was started, so there is no secret
			continue
		}
		value, err := r.secretOf(ctx, c.Name)
		if err != nil {
			return err
		}
		r.kept[c.Name] = value
		age, err := cfg.Age(ctx, c, value)
		if err != nil { // nobody knows, then
			r.rec.Emit(event.Warning{Message: "the age of the credential " + c.Name + ": " + err.Error()})
			age = &event.CredentialAge{State: event.AgeUnknown, Limit: c.Rotate, Enforced: c.RotateEnforce, Provenance: "unknown"}
		}
		if age == nil {
			continue
		}
		r.issued.Aged(c.Name, age)
		message, hint := aged(c, *age, time.Now())
		switch {
		case age.State == event.AgeFresh:
		case c.RotateEnforce:
			problems = append(problems, policy.Problem{Place: c.Place, Path: "credentials." + c.Name, Message: message, Hint: hint})
		case age.State == event.AgeOverdue:
			r.rec.Emit(event.Warning{Message: message, Mend: hint})
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// secretOf is the present secret of a credential.
func (r *run) secretOf(ctx context.Context, name string) (secret.Value, error) {
	for _, g := range r.grants {
		if g.Name == name {
			return g.Value(ctx)
		}
	}
	return secret.Value{}, nil
}

// aged says what is wrong with an age, and what mends it.
func aged(c policy.Credential, age event.CredentialAge, now time.Time) (message, hint string) {
	hint = "replace it, and write `rotated: DATE` into the policy"
	if !c.Rotation.Create.IsZero() {
		hint = "`agent-sandbox credentials rotate " + c.Name + "` replaces it"
	}
	limit := policy.FormatDuration(c.Rotate)
	switch {
	case age.State == event.AgeOverdue && age.Detail != "":
		message = fmt.Sprintf("the credential %s is overdue: %s", c.Name, age.Detail)
	case age.State == event.AgeOverdue && age.Since != nil:
		least := map[bool]string{true: "at least "}[age.AtLeast]
		message = fmt.Sprintf("the credential %s is overdue: it is %s%s old, and the policy lets it become %s", c.Name, least, ageText(now.Sub(*age.Since)), limit)
	default:
		message = fmt.Sprintf("nobody knows whether the credential %s is younger than %s, as the policy insists", c.Name, limit)
	}
	return message, hint
}

// ageText is in days, or in hours for the first two.
func ageText(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// usedKept remembers which of the kept credentials were used.
func (r *run) usedKept(ctx context.Context, name string) {
	for _, c := range r.cfg.Policy.Credentials {
		value, kept := r.kept[name]
		if c.Name != name || !kept {
			continue
		}
		if err := r.rotationConfig().Used(ctx, c, value); err != nil {
			r.rec.Emit(event.Warning{Message: "the use of the credential " + name + " is not remembered: " + err.Error()})
		}
	}
}
