package broker

import (
	"context"
	"net/url"
)

// Verdict is what a check says of a token.
type Verdict string

// The zero Verdict is none of these.
const (
	Passed     Verdict = "passed"
	Refused    Verdict = "refused"
	Failed     Verdict = "failed" // the check could not be made
	NotReached Verdict = "not reached"
)

// Finding is one check of an exchange that was not made. Reason is what a client would hear, Detail what the log would have.
type Finding struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Code    int     `json:"code,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	Detail  string  `json:"detail,omitempty"`
}

// Explanation is what came of all checks. Permissions are those that would be asked for; Policy is the file that decided, once it was read.
type Explanation struct {
	Admitted    bool              `json:"admitted"`
	Findings    []Finding         `json:"findings"`
	Subject     string            `json:"subject,omitempty"`
	Policy      *policyRef        `json:"policy,omitempty"`
	Permissions map[string]string `json:"permissions,omitempty"`
}

// Explain makes the checks of an exchange and goes on after a refusal where the next checks don't depend on it. It issues nothing and uses nothing up. To read the
// trust policy it has a token of the App for a moment, which reads that one repository, and revokes it.
func (b *Broker) Explain(ctx context.Context, token, scope, identity string) Explanation {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a := &attempt{trace: randomID(), looking: true, authorization: []string{"Bearer " + token}, query: url.Values{"scope": {scope}, "identity": {identity}}}
	e := Explanation{Admitted: true}
	stopped := false
	for _, c := range b.checks {
		f := Finding{Check: c.name, Verdict: NotReached}
		if !stopped {
			f = explained(c.name, c.run(ctx, a))
			stopped = f.Verdict != Passed && !c.apart
		}
		e.Admitted = e.Admitted && f.Verdict == Passed
		e.Findings = append(e.Findings, f)
	}
	if a.claims != nil {
		e.Subject = a.claims.Subject
	}
	if a.ref.Path != "" {
		e.Policy = &a.ref
	}
	if e.Admitted {
		e.Permissions = a.permissions
	}
	return e
}

func explained(name string, err error) Finding {
	if err == nil {
		return Finding{Check: name, Verdict: Passed}
	}
	no := refusalOf(err)
	verdict := Refused
	if no.code == codeInternal {
		verdict = Failed
	}
	return Finding{name, verdict, no.code, no.reason, no.detail.Error()}
}
