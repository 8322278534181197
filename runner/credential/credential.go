package credential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// Config is what sources draw on.
type Config struct {
	// LookupEnv finds a variable of the caller's environment; required.
	LookupEnv func(string) (string, bool)
	// Env is what else gets into the agent's environment by the policy.
	Env []policy.EnvVar
	// Visible tells whether the agent can read a file of the host; nil: it can read none.
	Visible func(path string) bool
	// Dry has nothing issued and starts no command: the grants have made-up secrets where one would be.
	Dry bool
	// CI: nobody is there to take the responsibility for a credential that reaches too far.
	CI bool
	// Dir is where files and commands with a relative path are looked for: the project.
	Dir string
	// Self is the owner and name of the project's repository, which `self` stands for; empty: nobody knows.
	Self string
	// OIDC gets the identity of this CI job for an audience; nil: this process has none.
	OIDC func(ctx context.Context, audience string) (secret.Value, error)
	// HTTP makes the connections to brokers and to GitHub; nil: a client of ours.
	HTTP *http.Client
	// GitHubAPI is the base URL of GitHub's API; empty: that of github.com.
	GitHubAPI string
	// Permissions are those that an organisation's ceiling allows for credentials by name of the permission, the dangerous ones among them.
	Permissions map[string]string
	// Run is the id of the run, for the records of those who issue.
	Run string
	// Keeper has what is to be revoked if this process is killed; nil: nothing is kept.
	Keeper *Keeper
	// Emit is told what becomes of the credentials; nil: nobody is.
	Emit func(event.Event)
	// Now is the clock; nil: the system's.
	Now func() time.Time
}

func (cfg Config) api() string {
	return strings.TrimSuffix(cmp.Or(cfg.GitHubAPI, DefaultGitHubAPI), "/")
}

func (cfg Config) now() func() time.Time {
	if cfg.Now != nil {
		return cfg.Now
	}
	return time.Now
}

// Grant is a credential of this run, for one group of hosts. A service that takes its credential in two ways has two
// grants of one name, with one placeholder, and so has each part of a credential that takes several tokens. One that the policy wants inside has neither
// hosts nor a placeholder.
type Grant struct {
	Name        string // of the credential in the policy
	Part        string // the repository or the owner that its token is for, if the policy's credential takes several; else empty
	Deliver     policy.Deliver
	Placeholder string   // what is inside: of the secret's length and beginning, and otherwise random
	Env         []string // variables inside that have the placeholder; with DeliverEnv the secret, with DeliverFile the file's path
	// Inside has what is delivered: with DeliverEnv the value of each of Env, with DeliverFile the file's content. Expires is when it ends;
	// zero: nobody knows.
	Inside  []secret.Value
	Expires time.Time

	Hosts    []policy.Host
	Shared   bool // GitHub's API and git are on one host, and another grant is for the other of them
	Header   string
	Scheme   string // bearer, basic or raw
	Username string // for basic
	Rules    []policy.HTTPRule
	// Broad says why the credential reaches further than it should, and was accepted; empty for one that doesn't.
	Broad string
	// Repositories are those that the token was granted for, or, of a secret that was there before, what it is held to.
	Repositories []event.CredentialRepository
	// Value is the secret, as it is now.
	Value func(context.Context) (secret.Value, error)
}

// Label is what the record calls the credential: its name, and which part of it.
func (g Grant) Label() string { return label(g.Name, g.Part) }

// mendError is an error with a hint.
type mendError struct{ message, hint string }

func (e *mendError) Error() string { return e.message }

func refuse(hint, format string, args ...any) error {
	return &mendError{fmt.Sprintf(format, args...), hint}
}

// open finds the issuer of a credential. Its errors are for people: they say what is missing, and a mendError how to get it.
func (cfg Config) open(ctx context.Context, c policy.Credential) (issuer, error) {
	switch c.From.Kind {
	case "github-app":
		return cfg.openGitHubApp(c)
	case "github-oidc":
		return cfg.openGitHubOIDC(c)
	case "vault":
		return cfg.openVault(c)
	case "aws":
		return cfg.openAWS(c)
	case "gcp":
		return cfg.openGCP(c)
	case "exec":
		if cfg.Dry {
			return sample(c), nil
		}
		value, err := cfg.command(ctx, c.From.Argument)
		return fixed{value: value}, err
	}
	value, err := cfg.static(c.From)
	return fixed{value: value}, err
}

// Features are the sources that there are, with their deliveries.
func Features() []policy.CredentialFeature {
	var all []policy.CredentialFeature
	for _, kind := range policy.OriginKinds() {
		for _, deliver := range []policy.Deliver{policy.DeliverInject, policy.DeliverEnv, policy.DeliverFile} {
			if kind != "aws" || deliver != policy.DeliverInject { // its requests are signed
				all = append(all, policy.CredentialFeature{Kind: kind, Deliver: deliver})
			}
		}
	}
	return all
}

// Resolve obtains every credential. The error is a [policy.Problems] with all that is wrong; then there are none, and what was issued is
// revoked. Close must be called.
func Resolve(ctx context.Context, all []policy.Credential, cfg Config) (*Set, error) {
	if cfg.Emit == nil {
		cfg.Emit = func(event.Event) {}
	}
	set := &Set{}
	var problems policy.Problems
	for _, c := range all {
		more, held, err := resolve(ctx, c, cfg)
		set.held = append(set.held, held...)
		if err == nil {
			err = distinct(set.Grants, more)
		}
		if err != nil {
			problems = append(problems, problem(c, err))
			continue
		}
		set.Grants = append(set.Grants, more...)
	}
	if len(problems) > 0 {
		if err := set.Close(ctx); err != nil {
			problems = append(problems, policy.Problem{Path: "credentials", Message: err.Error()})
		}
		return nil, problems
	}
	return set, nil
}

func problem(c policy.Credential, err error) policy.Problem {
	p := policy.Problem{Place: c.Place, Path: "credentials." + c.Name, Message: err.Error()}
	if m, ok := errors.AsType[*mendError](err); ok {
		p.Hint = m.hint
	}
	return p
}

// resolve obtains one credential, with as many tokens as it takes. What is held after an error is to be closed as well.
func resolve(ctx context.Context, c policy.Credential, cfg Config) ([]Grant, []*held, error) {
	if !slices.Contains(Features(), policy.CredentialFeature{Kind: c.From.Kind, Deliver: c.Deliver}) {
		return nil, nil, refuse("", "this version can't deliver credentials from %s as %s", c.From.Kind, c.Deliver)
	}
	service, known := policy.ServiceOf(c)
	if !known && len(c.Hosts) == 0 && c.Deliver == policy.DeliverInject {
		return nil, nil, refuse("add `host:`, or call it "+strings.Join(policy.Services(), ", "), "nobody knows which host it is for")
	}
	if err := cfg.checkHosts(c); err != nil {
		return nil, nil, err
	}
	c, err := cfg.named(c)
	if err != nil {
		return nil, nil, err
	}
	pieces := split(c)
	if len(pieces) > maxPieces {
		return nil, nil, refuse("name fewer, or use a github-app, which takes one for all repositories of an owner", "it takes %d tokens, and at most %d are issued for a run", len(pieces), maxPieces)
	}
	if len(pieces) > 1 && c.Deliver != policy.DeliverInject {
		return nil, nil, refuse("use `deliver: inject`, or make a credential of each", "`deliver: %s` has room for one token, and %s and %s take one each", c.Deliver, pieces[0].part, pieces[1].part)
	}
	var grants []Grant
	var all []*held
	for _, p := range pieces {
		h, err := cfg.begin(ctx, p)
		if err == nil {
			all = append(all, h)
			grants, err = h.grants(p, service, cfg, grants)
		}
		if err != nil && p.part != "" {
			err = fmt.Errorf("%s: %w", p.part, err)
		}
		if err != nil {
			return nil, all, err
		}
	}
	return grants, all, nil
}

// begin obtains the first token of a piece.
func (cfg Config) begin(ctx context.Context, p piece) (*held, error) {
	from, err := cfg.open(ctx, p.Credential)
	if err != nil {
		return nil, err
	}
	if cfg.Dry && isIssued(p.Credential) {
		from = sample(p.Credential)
	}
	h := &held{name: p.Name, part: p.part, issuer: from, now: cfg.now(), emit: cfg.Emit, keep: cfg.Keeper}
	return h, h.begin(ctx)
}

// named puts the project's repository in the place of `self`.
func (cfg Config) named(c policy.Credential) (policy.Credential, error) {
	c.Repositories = slices.Clone(c.Repositories)
	for i, name := range c.Repositories {
		if name != "self" {
			continue
		}
		if cfg.Self == "" {
			return c, refuse("write owner/name", "`self` stands for the project's repository, and the project has no remote on GitHub")
		}
		c.Repositories[i] = cfg.Self
	}
	return c, nil
}

// grants says where the credential goes, behind those of its other pieces, whose placeholder it has: clients know one token.
func (h *held) grants(p piece, service policy.Service, cfg Config, others []Grant) ([]Grant, error) {
	c, now := p.Credential, h.current.value.Reveal()
	broad, err := reach(c, now, cfg.CI)
	if err != nil {
		return nil, err
	}
	base := Grant{Name: c.Name, Part: p.part, Deliver: c.Deliver, Env: variables(c, service), Rules: c.Rules, Broad: broad, Value: h.value, Expires: h.current.expires}
	if c.Deliver != policy.DeliverInject {
		return h.inside(base, c, cfg)
	}
	if base.Placeholder, err = newPlaceholder(now); err != nil {
		return nil, err
	}
	if len(others) > 0 {
		base.Placeholder = others[0].Placeholder
	}
	if h.current.granted != nil {
		base.Repositories = h.current.granted.Repositories
	} else {
		for _, name := range c.Repositories {
			base.Repositories = append(base.Repositories, event.CredentialRepository{Name: name})
		}
	}
	if err := notInside(cfg, base.Env, now); err != nil {
		return nil, err
	}
	grants := attach(base, c, service)
	h.issued = issuedBy(p, grants)
	return append(others, grants...), nil
}

// variables are the names that have the placeholder: the policy's choice, what the service's clients look for, or the
// name that the secret has outside.
func variables(c policy.Credential, service policy.Service) []string {
	switch {
	case c.Env != "":
		return []string{c.Env}
	case len(service.Env) > 0:
		return service.Env
	case c.From.Kind == "env":
		return []string{c.From.Argument}
	}
	return nil
}

// attach makes a grant for each place where the credential goes. What the policy says counts before what is known.
func attach(base Grant, c policy.Credential, service policy.Service) []Grant {
	places := service.Attach
	if len(c.Hosts) > 0 && slices.Contains(service.Names, "github") && c.Header == "" && c.Scheme == "" {
		return attachGitHub(base, c.Hosts, places)
	}
	if len(c.Hosts) > 0 {
		place := policy.Attachment{Hosts: c.Hosts}
		if len(places) > 0 {
			place = places[0]
			place.Hosts = c.Hosts
		}
		places = []policy.Attachment{place}
	}
	var grants []Grant
	for _, place := range places {
		g := base
		g.Hosts, g.Header, g.Scheme, g.Username = place.Hosts, place.Header, place.Scheme, place.Username
		if c.Header != "" {
			g.Header, g.Scheme = c.Header, ""
		}
		g.Header = cmp.Or(g.Header, "Authorization")
		g.Scheme = cmp.Or(c.Scheme, g.Scheme, usualScheme(g.Header))
		g.Username = cmp.Or(c.Username, g.Username)
		if g.Scheme != "basic" {
			g.Username = ""
		}
		grants = append(grants, g)
	}
	return grants
}

// attachGitHub is for the hosts of a GitHub Enterprise Server, or of a tenant of ghe.com: git and the API are on one, unless the name says that it is
// the API's.
func attachGitHub(base Grant, hosts []policy.Host, places []policy.Attachment) []Grant {
	var api, both []policy.Host
	for _, h := range hosts {
		if name := h.String(); strings.HasPrefix(name, "api.") || strings.HasPrefix(name, "uploads.") {
			api = append(api, h)
		} else {
			both = append(both, h)
		}
	}
	var grants []Grant
	for _, place := range places {
		g := base
		g.Header, g.Scheme, g.Username = place.Header, place.Scheme, place.Username
		if len(api) > 0 && g.Scheme == "bearer" {
			g.Hosts = api
			grants = append(grants, g)
		}
		if len(both) > 0 {
			g.Hosts, g.Shared = both, true
			grants = append(grants, g)
		}
	}
	return grants
}

// usualScheme is how a header carries a credential when nobody says.
func usualScheme(header string) string {
	if strings.EqualFold(header, "Authorization") {
		return "bearer"
	}
	return "raw"
}
