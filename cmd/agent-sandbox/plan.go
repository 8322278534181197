package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/engine"
)

// printPlan shows a plan to people; the JSON has all of it.
func printPlan(out io.Writer, p *runner.Plan) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("command", "%s", strings.Join(p.Argv, " "))
	if k := p.Kit; k != nil {
		row("kit", "%s", kitLine(k))
	}
	row("project", "%s as %s (%s)", p.Project, p.Workspace.Target, p.Workspace.Mode)
	row("image", "%s (%s)%s", p.Image.Reference, p.Image.ID, lockWord(p.Lock.Locked, p.Lock.Override))
	row("agent", "%s, uid %d, gid %d, no capabilities", p.Agent.User, p.Agent.UID, p.Agent.GID)
	if p.Network.Capture {
		row("network", "no interface; the policy decides every dial, and each is recorded")
	} else {
		row("network", "no interface; allowed names lead to listeners, all else fails unrecorded")
	}
	row("seccomp", "%s", p.Seccomp.Profile)
	l := p.Container.Limits
	row("limits", "%s memory, %g CPUs, %d processes, %s", engine.ByteSize(l.Memory), l.CPUs, l.PIDs, time.Duration(p.Timeout))
	for _, t := range p.Container.Tmpfs {
		row("tmpfs", "%s, %s", t.Target, engine.ByteSize(t.Size))
	}
	for _, m := range p.Container.Mounts[1:] {
		access := "read-write"
		if m.ReadOnly {
			access = "read-only"
		}
		row("mount", "%s at %s, %s", m.Source, m.Target, access)
	}
	for _, c := range p.Caches {
		state := "as an earlier run left it"
		if c.New {
			state = "empty"
		}
		row("cache", "%s of %s, %s", c.Kind, c.For, state)
	}
	if p.Cacheless != "" {
		row("cache", "none: %s", p.Cacheless)
	}
	var names []string
	for _, v := range p.Env {
		names = append(names, v.Name)
	}
	row("environment", "%s", strings.Join(names, " "))
	row("policy", "%s (%s)", policyName(p.Policy.Path), p.Policy.Digest)
	for _, l := range p.Lowered {
		row("lowered", "%s: %s", l.What, l.Why)
	}
	return w.Flush()
}

func policyName(path string) string {
	if path == "" {
		return "the default"
	}
	return path
}

// lockWord says how sure it is that the image is the one that was meant.
func lockWord(locked, override bool) string {
	switch {
	case locked:
		return ", locked"
	case override:
		return ", given for this run"
	}
	return ""
}
