package credential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// Config is what sources draw on.
type Config struct {
	// LookupEnv finds a variable of the caller's environment; required.
	LookupEnv func(string) (string, bool)
	// Env is what else gets into the agent's environment by the policy.
	Env []policy.EnvVar
	// CI: nobody is there to take the responsibility for a credential that reaches too far.
	CI bool
}

// Grant is a credential of this run, for one group of hosts. A service that takes its credential in two ways has two
// grants of one name, with one placeholder.
type Grant struct {
	Name        string   // of the credential in the policy
	Placeholder string   // what is inside: of the secret's length and beginning, and otherwise random
	Env         []string // variables inside that have the placeholder
	Hosts       []policy.Host
	Header      string
	Scheme      string // bearer, basic or raw
	Username    string // for basic
	Rules       []policy.HTTPRule
	// Broad says why the credential reaches further than it should, and was accepted; empty for one that doesn't.
	Broad string
	// Value is the secret, as it is now.
	Value func(context.Context) (secret.Value, error)
}

// source obtains the secrets of one kind of origin.
type source interface {
	// open checks that there is a secret, and returns the function that Grant.Value is. Its errors are for people: they
	// say what is missing, and a mendError how to get it.
	open(ctx context.Context, c policy.Credential) (func(context.Context) (secret.Value, error), error)
}

// mendError is an error with a hint.
type mendError struct{ message, hint string }

func (e *mendError) Error() string { return e.message }

func refuse(hint, format string, args ...any) error {
	return &mendError{fmt.Sprintf(format, args...), hint}
}

func sources(cfg Config) map[string]source {
	return map[string]source{"env": environment{cfg.LookupEnv}}
}

// Features are the sources that there are, with their deliveries.
func Features() []policy.CredentialFeature {
	return []policy.CredentialFeature{{Kind: "env", Deliver: policy.DeliverInject}}
}

// Resolve obtains every credential. The error is a [policy.Problems] with all that is wrong; then there are no grants.
func Resolve(ctx context.Context, all []policy.Credential, cfg Config) ([]Grant, error) {
	var grants []Grant
	var problems policy.Problems
	from := sources(cfg)
	for _, c := range all {
		more, err := resolve(ctx, c, from, cfg)
		if err == nil {
			err = distinct(grants, more)
		}
		if err != nil {
			problems = append(problems, problem(c, err))
			continue
		}
		grants = append(grants, more...)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return grants, nil
}

func problem(c policy.Credential, err error) policy.Problem {
	p := policy.Problem{Place: c.Place, Path: "credentials." + c.Name, Message: err.Error()}
	if m, ok := errors.AsType[*mendError](err); ok {
		p.Hint = m.hint
	}
	return p
}

func resolve(ctx context.Context, c policy.Credential, from map[string]source, cfg Config) ([]Grant, error) {
	if !slices.Contains(Features(), policy.CredentialFeature{Kind: c.From.Kind, Deliver: c.Deliver}) {
		return nil, refuse("", "this version can't deliver credentials from %s as %s", c.From.Kind, c.Deliver)
	}
	service, known := policy.LookupService(c.Name)
	if !known && len(c.Hosts) == 0 {
		return nil, refuse("add `host:`, or call it "+strings.Join(policy.Services(), ", "), "nobody knows which host it is for")
	}
	value, err := from[c.From.Kind].open(ctx, c)
	if err != nil {
		return nil, err
	}
	now, err := value(ctx)
	if err != nil {
		return nil, err
	}
	placeholder, err := newPlaceholder(now.Reveal())
	if err != nil {
		return nil, err
	}
	broad, err := reach(c, now.Reveal(), cfg.CI)
	if err != nil {
		return nil, err
	}
	base := Grant{Name: c.Name, Placeholder: placeholder, Env: variables(c, service), Rules: c.Rules, Broad: broad, Value: value}
	if err := notInside(cfg, base.Env, now.Reveal()); err != nil {
		return nil, err
	}
	return attach(base, c, service), nil
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

// usualScheme is how a header carries a credential when nobody says.
func usualScheme(header string) string {
	if strings.EqualFold(header, "Authorization") {
		return "bearer"
	}
	return "raw"
}

// notInside refuses a secret that the policy's own variables would take inside, under whatever name, and a variable that
// would have two values.
func notInside(cfg Config, placeholders []string, text string) error {
	for _, v := range cfg.Env {
		if slices.Contains(placeholders, v.Name) {
			return refuse("remove it from `env`", "the variable %s is to have the placeholder, and `env` sets it as well", v.Name)
		}
		value := v.Value
		if v.FromHost {
			value, _ = cfg.LookupEnv(v.Name)
		}
		if strings.Contains(value, text) {
			return refuse("remove it from `env`", "the variable %s would take the secret itself inside", v.Name)
		}
	}
	return nil
}

// distinct refuses two credentials for one variable, or for the same header of one host: which of them is meant would be
// anybody's guess.
func distinct(grants, more []Grant) error {
	for _, g := range more {
		for _, o := range grants {
			for _, name := range g.Env {
				if slices.Contains(o.Env, name) {
					return refuse("give one of them another variable with `env:`", "the variable %s is that of the credential %s already", name, o.Name)
				}
			}
			for _, h := range g.Hosts {
				if slices.Contains(o.Hosts, h) && len(g.Rules) == 0 && len(o.Rules) == 0 {
					return refuse("say with `rules:` which requests get which", "the credential %s is for every request to %s already", o.Name, h)
				}
			}
		}
	}
	return nil
}
