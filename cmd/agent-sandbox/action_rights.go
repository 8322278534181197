package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/secret"
)

// allowed refuses a policy that hands the job's own secrets inside, and credentials where the files may be a stranger's.
func (s *step) allowed(p *policy.Policy) error {
	for _, v := range p.Env {
		if actions.IsPrivate(v.Name) && v.FromHost {
			return fmt.Errorf("the policy gives the variable %s of the job to the agent: it is for the step alone\nhint: remove it from `env:`", v.Name)
		}
	}
	for _, c := range p.Credentials {
		if c.From.Kind == "env" && actions.IsPrivate(c.From.Argument) {
			return fmt.Errorf("the credential %s is the variable %s of the job, which is for the step alone", c.Name, c.From.Argument)
		}
		for _, from := range []policy.Origin{c.From, c.Key} {
			if from.Kind == "env" {
				s.log.Mask(secret.New(s.app.env(from.Argument)))
			}
		}
	}
	if who := s.job.Foreign(); who != "" && len(p.Credentials) > 0 {
		return fmt.Errorf("the files of this job may be a stranger's (%s), and the policy has credentials\n"+
			"hint: run it for such a pull request with `policy:` naming a file without credentials", who)
	}
	return nil
}

// rights has what the inputs say about who signs, and about the broker: they fill in what the policy leaves open, and change nothing that it says.
func (s *step) rights(a *app, cfg *runner.Config) error {
	p := *cfg.Policy
	if sign := s.in.Sign; sign != "" && sign != p.Evidence.Sign {
		if p.Evidence.Sign != "auto" {
			return fmt.Errorf("the input sign is %s, and the policy says evidence.sign: %s\nhint: an input can choose only where the policy says auto", sign, p.Evidence.Sign)
		}
		p.Evidence.Sign = sign
		var err error
		if cfg.Signer, err = a.signer(&p, ""); err != nil {
			return err
		}
	}
	if s.in.Broker != "" {
		p.Credentials = slices.Clone(p.Credentials)
		used := false
		for i := range p.Credentials {
			c := &p.Credentials[i]
			if c.From.Kind != "github-oidc" {
				continue
			}
			if c.Broker != "" && c.Broker != s.in.Broker {
				return fmt.Errorf("the input broker-url is %s, and the policy's credential %s has the broker %s", s.in.Broker, c.Name, c.Broker)
			}
			c.Broker, used = s.in.Broker, true
		}
		if !used {
			return errors.New("the input broker-url is given, and the policy has no credential `from: github-oidc`")
		}
	}
	cfg.Policy = &p
	cfg.Credentials.KeepWith = s.keepTokens(stateTokens)
	return nil
}
