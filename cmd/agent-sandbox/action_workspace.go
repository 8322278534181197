package main

import (
	"context"
	"fmt"

	"github.com/org/agent-sandbox/policy"
)

// judged is the policy with the mode of the workspace that the step has, if the job may run under it and what is to be done with the changes can be
// done: after the agent's work it would be too late.
func (s *step) judged(ctx context.Context, p *policy.Policy) (*policy.Policy, error) {
	p, err := withMode(p, policy.WorkspaceMode(s.in.Mode))
	if err == nil {
		err = s.allowed(p)
	}
	if err == nil {
		err = s.canApply(ctx, p)
	}
	return p, err
}

// withMode is the policy with the mode that the workflow asks for. Without one, a copy of the project is taken where an overlay can't be
// had: the workspace may be where the engine does not see it, or root's. That is recorded as lowered; what the agent changes still does not
// reach the files.
func withMode(p *policy.Policy, mode policy.WorkspaceMode) (*policy.Policy, error) {
	if mode == "" {
		if p.Workspace.Mode != policy.ModeOverlay {
			return p, nil
		}
		mode = policy.ModeAuto
	}
	if !mode.Within(p.Workspace.Mode) {
		return nil, fmt.Errorf("workspace-mode: %s lets the agent write more than the policy's %s does\nhint: set workspace.mode in the policy", mode, p.Workspace.Mode)
	}
	changed := *p
	changed.Workspace.Mode = mode
	return &changed, nil
}
