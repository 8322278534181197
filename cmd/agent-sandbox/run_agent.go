package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
)

// maxTask bounds a task in bytes: as one argument of a program it may have 128 KiB (execve(2)).
const maxTask = 100 << 10

// start is what a run starts.
type start struct {
	argv   []string
	input  io.Reader      // nil: none
	policy *policy.Policy // with what the kit needs
	kit    *policy.KitUse // nil: it is a command of the caller's own
	task   string         // in words; empty: there is none
}

// startOf tells whether the arguments are a task for an agent or a command.
func (a *app) startOf(f runFlags, p *policy.Policy, args []string) (start, error) {
	name := f.agent
	if name == "" && !f.command {
		name = p.Agent
	}
	switch {
	case name != "":
		return a.startAgent(f, p, name, args)
	case len(args) == 0:
		return start{}, usage("no command\nhint: agent-sandbox run -- COMMAND [ARG...], or run --agent NAME TASK; `agent-sandbox agents` lists them")
	case f.task, !f.command && len(args) == 1 && strings.ContainsAny(args[0], " \t\n"):
		return start{}, usage("a task takes an agent, and neither --agent nor the policy names one\n" +
			"hint: --agent NAME (in a workflow the input agent), or `agent:` in the policy; `agent-sandbox agents` lists them. A command and its arguments are words of their own: run -- COMMAND [ARG...]")
	}
	return start{argv: args, input: a.stdin, policy: p}, nil
}

func (a *app) startAgent(f runFlags, p *policy.Policy, name string, args []string) (start, error) {
	k, ok := p.Kit(name)
	if !ok {
		return start{}, usage("--agent: there is no agent %q\nhint: `agent-sandbox agents` lists them", name)
	}
	if f.tty && len(args) == 1 && args[0] == "-" {
		return start{}, usage("-t: the terminal is for the conversation, so the task can't be read from standard input\nhint: give it as an argument")
	}
	task, err := a.task(args)
	if err != nil {
		return start{}, err
	}
	s := start{task: task}
	switch {
	case f.tty:
		if s.argv, s.input = k.InteractiveArgv(task), a.stdin; len(s.argv) == 0 {
			return start{}, usage("the agent %s has no start for a terminal\nhint: leave out -t, and give it a task", name)
		}
	case task == "":
		return start{}, usage("the agent %s has no task\nhint: agent-sandbox run \"what to do\"; with -t it is started for a conversation", name)
	default:
		// Our own standard input stays out: many agents would wait for its end.
		var input bool
		if s.argv, input = k.TaskArgv(task); input {
			s.input = strings.NewReader(task)
		}
	}
	merged, use, err := p.WithKit(k, a.isSet)
	if missing, ok := errors.AsType[*policy.MissingCredentialError](err); ok {
		return start{}, &runner.RefusedError{Reason: missing.Error(), Hint: missing.Hint()}
	}
	s.policy, s.kit = merged, &use
	return s, err
}

// task is the one argument, or what standard input has.
func (a *app) task(args []string) (string, error) {
	switch {
	case len(args) == 0:
		return "", nil
	case len(args) > 1:
		return "", usage("%d arguments, and a task is one\nhint: put the task in quotes; before a command goes --", len(args))
	}
	task := args[0]
	if task == "-" {
		b, err := io.ReadAll(io.LimitReader(a.stdin, maxTask+1))
		if err != nil {
			return "", fmt.Errorf("read the task: %w", err)
		}
		task = string(b)
	}
	switch {
	case len(task) > maxTask:
		return "", usage("the task has more than %d bytes\nhint: put it into a file of the project, and name that in the task", maxTask)
	case strings.TrimSpace(task) == "":
		return "", usage("the task is empty")
	case strings.ContainsRune(task, 0):
		return "", usage("the task has a NUL byte")
	}
	return task, nil
}

// isSet tells whether a variable has a value.
func (a *app) isSet(name string) bool { return a.env(name) != "" }

// withAgent is the policy with what the agent that it names would add here: for explanations, so a credential that is missing does
// not matter.
func (a *app) withAgent(p *policy.Policy) *policy.Policy {
	k, ok := p.Kit(p.Agent)
	if !ok {
		return p
	}
	out, _, err := p.WithKit(k, a.isSet)
	if err != nil {
		out, _, err = p.WithKit(k, func(string) bool { return true })
	}
	if err != nil {
		return p
	}
	return out
}

// withKitOf is the policy with what the agent that it names brings. A credential that is not there is none: a run would be refused.
func (a *app) withKitOf(p *policy.Policy) (*policy.Policy, *policy.KitUse, error) {
	k, ok := p.Kit(p.Agent)
	if !ok {
		return p, nil, nil
	}
	merged, use, err := p.WithKit(k, a.isSet)
	if _, missing := errors.AsType[*policy.MissingCredentialError](err); missing {
		return p, nil, nil
	}
	return merged, &use, err
}

// agentLine names an agent, the version that its kit is for, and its credential.
func agentLine(name, version, credential string) string {
	line := strings.TrimSpace(name + " " + version)
	if credential != "" {
		line += ", with the credential " + credential
	}
	return line
}

// kitLine is a kit's part in a plan, for people.
func kitLine(k *runner.KitPlan) string {
	line := agentLine(k.Name, k.Version, k.Credential)
	if k.Credential != "" && !k.Added {
		line += " of the policy"
	}
	for i, h := range k.Hosts {
		if i == 0 {
			line += "; hosts added:"
		}
		line += " " + h.String()
	}
	return line
}
