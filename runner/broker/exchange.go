package broker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// attempt is an exchange on its way through the checks. Each fills in what the next ones need.
type attempt struct {
	trace         string
	authorization []string // values of the header
	query         url.Values
	looking       bool // nothing is counted or used up

	token           string
	signed          *jose.JSONWebSignature
	keys            *keySet
	claims          *claims // of a signature that was verified
	scope, identity string  // of the right form
	counted         bool    // within the repository's rate: a refusal is recorded from here on
	used            bool    // the token's jti
	minting         bool    // GitHub may have issued something
	app             *githubApp
	installation    int64
	target          repository
	ids             []int64 // of the repositories that the token is to be for: the target's
	trust           *trustPolicy
	ref             policyRef
	permissions     map[string]string
}

// check is one of those that every exchange passes. A refusal is a *refusal; any other error is our failure.
type check struct {
	name string
	run  func(context.Context, *attempt) error
	// apart tells that the checks after it don't need it: whoever explains a token goes on.
	apart bool
}

// allChecks are in the order in which they are made. What costs least and needs nothing verified comes first.
func (b *Broker) allChecks() []check {
	return []check{
		{name: "size", run: b.checkSize},
		{name: "authorization", run: b.checkBearer},
		{name: "algorithm", run: b.checkAlgorithm},
		{name: "issuer", run: b.checkIssuer},
		{name: "signature", run: b.checkSignature},
		{name: "audience", run: b.checkAudience, apart: true},
		{name: "expiry", run: b.checkExpiry, apart: true},
		{name: "age", run: b.checkAge, apart: true},
		{name: "claims", run: b.checkClaims, apart: true},
		{name: "scope", run: b.checkScope},
		{name: "rate", run: b.checkRate, apart: true},
		{name: "first use", run: b.checkFirstUse, apart: true},
		{name: "installation", run: b.checkInstallation},
		{name: "trust policy", run: b.checkTrustPolicy},
		{name: "job", run: b.checkJob, apart: true},
		{name: "repository", run: b.checkRepository, apart: true},
		{name: "event", run: b.checkEvent, apart: true},
		{name: "permissions", run: b.checkPermissions},
	}
}

// grant makes the checks, mints, and records.
func (b *Broker) grant(ctx context.Context, a *attempt) (*answer, error) {
	for _, c := range b.checks {
		if err := c.run(ctx, a); err != nil {
			return nil, err
		}
	}
	a.minting = true
	tok, err := b.mint(ctx, a)
	if err != nil {
		return nil, err
	}
	ans := newAnswer(tok, a)
	if err := b.store.write(ctx, b.recordOf(a, codeGranted, "", ans)); err != nil {
		b.metrics.unrecorded.inc()
		b.revoke(ctx, a.app, tok.Token)
		return nil, fmt.Errorf("audit record: %w", err)
	}
	return ans, nil
}

func (b *Broker) recordOf(a *attempt, code int, reason string, ans *answer) record {
	return record{at: b.now(), trace: a.trace, code: code, reason: reason, claims: a.claims, scope: a.scope, identity: a.identity, answer: ans}
}

// errNothingMinted is of an answer with which GitHub says so.
var errNothingMinted = errors.New("GitHub issued nothing")

// settle does what is left to do about an exchange that failed: the token may be tried again if nothing was issued for it and nobody refused it, and a
// refusal is recorded. Both also when the client has gone.
func (b *Broker) settle(ctx context.Context, a *attempt, no *refusal) {
	if !a.counted {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if a.used && no.code == codeInternal && (!a.minting || errors.Is(no.detail, errNothingMinted)) {
		if err := b.store.giveBack(ctx, a.claims); err != nil {
			b.log.Error("token not given back", "trace_id", a.trace, "error", err)
		} else {
			b.metrics.givenBack.inc()
		}
	}
	if err := b.store.write(ctx, b.recordOf(a, no.code, no.reason, nil)); err != nil {
		b.metrics.unrecorded.inc()
		b.log.Error("refusal not recorded", "trace_id", a.trace, "error", err)
	}
}

// form tells whether a name has at most that many characters, all of them letters and digits of ASCII or among rest, and the first, if not a letter or
// digit, among first.
func form(name string, most int, first, rest string) bool {
	for i := range len(name) {
		also := rest
		if i == 0 {
			also = first
		}
		c := name[i]
		if alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'; !alnum && strings.IndexByte(also, c) < 0 {
			return false
		}
	}
	return name != "" && len(name) <= most
}

// isIdentity and isScope let through what can stand in a path.
func isIdentity(name string) bool { return form(name, 100, "_-", "._-") }

func isScope(name string) bool {
	owner, repository, ok := strings.Cut(name, "/")
	return ok && form(owner, 39, "", "-") && form(repository, 100, "_-", "._-")
}

func (b *Broker) checkScope(_ context.Context, a *attempt) error {
	scopes, identities := a.query["scope"], a.query["identity"]
	if len(scopes) != 1 || len(identities) != 1 || !isScope(scopes[0]) || !isIdentity(identities[0]) {
		return refuse(codeInvalid, "scope or identity is malformed", "scope %.200q, identity %.200q", scopes, identities)
	}
	a.scope, a.identity = scopes[0], identities[0]
	return nil
}

func (b *Broker) checkRate(_ context.Context, a *attempt) error {
	a.counted = a.looking || b.byRepository.take(a.claims.RepositoryID, b.now())
	if !a.counted {
		return refuse(codeExhausted, "too many exchanges", "repository %s", a.claims.RepositoryID)
	}
	return nil
}

func (b *Broker) checkFirstUse(ctx context.Context, a *attempt) error {
	var used bool
	var err error
	if a.looking {
		used, err = b.store.seen(ctx, a.claims)
	} else {
		a.used, err = b.store.once(ctx, a.claims, b.now())
		used = !a.used
	}
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if used {
		return refuse(codeUnauthenticated, "token was used before", "jti %.200q", a.claims.ID)
	}
	return nil
}

func (b *Broker) checkJob(_ context.Context, a *attempt) error {
	return a.admitted(a.trust.admitsJob(a.claims, b.cfg.Audience))
}

func (b *Broker) checkRepository(_ context.Context, a *attempt) error {
	return a.admitted(a.trust.admitsRepository(a.claims, a.target))
}

func (b *Broker) checkEvent(_ context.Context, a *attempt) error {
	return a.admitted(a.trust.admitsEvent(a.claims))
}

func (a *attempt) admitted(err error) error {
	if err != nil {
		return refuse(codeDenied, "the trust policy does not admit this token", "%s: %w", a.ref.Path, err)
	}
	return nil
}

// checkPermissions narrows the policy by the ceiling. An empty list would mean all to GitHub, of repositories as well.
func (b *Broker) checkPermissions(_ context.Context, a *attempt) error {
	a.permissions = narrowed(a.trust.Permissions, b.cfg.Ceiling)
	if len(a.ids) == 0 {
		return errors.New("bug: there is no repository that the token would be for")
	}
	if len(a.permissions) == 0 {
		return refuse(codeDenied, "nothing is left to grant", "%s: permissions and ceiling have nothing in common", a.ref.Path)
	}
	return nil
}
