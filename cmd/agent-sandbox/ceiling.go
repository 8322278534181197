package main

import (
	"cmp"
	"errors"
	"io/fs"

	"github.com/org/agent-sandbox/policy"
)

// ceilingVariable names the ceiling where no flag does, for machines that have one for every run.
const ceilingVariable = "AGENT_SANDBOX_CEILING"

// bounded is a policy under the organisation's, which is nil if there is none.
type bounded struct {
	policy     *policy.Policy
	ceiling    *policy.Policy
	narrowings []policy.Narrowing
}

// digest is the ceiling's, empty without one.
func (b bounded) digest() string {
	if b.ceiling == nil {
		return ""
	}
	return b.ceiling.Digest()
}

// underCeiling bounds a policy, what a kit has added included. A ceiling that names the kit's agent grants what the kit needs; one that
// is silent has to have it among its hosts and credentials.
func (a *app) underCeiling(file string, p *policy.Policy, kit *policy.KitUse) (bounded, error) {
	if file = cmp.Or(file, a.env(ceilingVariable)); file == "" {
		return bounded{policy: p}, nil
	}
	src, err := readLimited(file, policy.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return bounded{}, usage("--ceiling: %w", err)
	}
	if err != nil {
		return bounded{}, err
	}
	ceiling, err := policy.Load(displayPath(file), src)
	if err != nil {
		return bounded{}, err
	}
	over := ceiling
	if kit != nil && ceiling.Agent == kit.Kit.Name {
		if over, _, err = ceiling.WithKit(kit.Kit, a.isSet); err != nil {
			return bounded{}, err
		}
	}
	narrowed, narrowings, err := policy.Narrow(p, over)
	return bounded{narrowed, ceiling, narrowings}, err
}
