package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// agentName is the form of a kit's name.
func agentName() nameRule {
	return nameRule{`[a-z][a-z0-9-]{0,62}`, "a name of small letters, digits and hyphens"}
}

func agentsKind() kind[[]OwnAgent] {
	return converted(mapping(agentName(), ownAgentKind(), 20), func(_ *decoder, _ string, m map[string]OwnAgent) []OwnAgent {
		var all []OwnAgent
		for _, name := range slices.Sorted(maps.Keys(m)) {
			a := m[name]
			a.Name = name
			all = append(all, a)
		}
		return all
	})
}

func ownAgentKind() kind[OwnAgent] {
	argument := text(nameRule{`[^\n\r]{1,1000}`, "an argument of at most 1000 characters"}, func(s string) (string, error) {
		if strings.ContainsRune(s, 0) {
			return "", errors.New("an argument can't have a NUL")
		}
		return s, nil
	})
	argv := list(argument, 100)
	return object(
		key("command", argv, func(a *OwnAgent) *[]string { return &a.Command },
			"Program and arguments that do a task. "+TaskWord+" stands for it; without that the task is the program's standard input.").must(),
		key("interactive", argv, func(a *OwnAgent) *[]string { return &a.Interactive },
			"Program and arguments for a terminal. An argument with "+TaskWord+" is left out when there is no task."),
		key("credential", oneOf(Services()...), func(a *OwnAgent) *string { return &a.Credential },
			"Service that it works with: the credential of this name, and the service's host, are added to the policy."),
	).checked(checkOwnAgent)
}

func checkOwnAgent(d *decoder, n *yaml.Node, path string, a *OwnAgent) bool {
	ok := true
	name := path[strings.LastIndexByte(path, '.')+1:]
	if slices.Contains(Agents(), name) {
		ok = d.failAt(n, path, fmt.Sprintf("%s is a kit of the program's own", name), "choose another name")
	}
	if len(a.Command) == 0 {
		ok = d.failAt(n, path+".command", "the command is empty", "name a program")
	}
	if len(a.Command) > 0 && strings.Contains(a.Command[0], TaskWord) {
		ok = d.failAt(n, path+".command[0]", "the task can't be the program", "name a program first")
	}
	return ok
}

// knownAgents adds to the file's schema that `agent` is a kit of the program's, unless the file defines some of its own.
func knownAgents(k kind[Policy]) kind[Policy] {
	s := maps.Clone(k.schema)
	s["if"] = schema{"required": []string{"agents"}}
	s["else"] = schema{"patternProperties": schema{"^agent$": schema{"enum": Agents()}}}
	return kind[Policy]{s, func(d *decoder, n *yaml.Node, path string, p *Policy) bool {
		ok := k.read(d, n, path, p)
		return checkAgent(d, n, p) && ok
	}}
}

// checkAgent finds the kit. One of the file's own that is not right has been reported already.
func checkAgent(d *decoder, n *yaml.Node, p *Policy) bool {
	_, known := p.Kit(p.Agent)
	if _, own := d.places["agents."+p.Agent]; p.Agent == "" || known || own {
		return true
	}
	names := p.Kits()
	for key, value := range pairs(n) {
		if key.Value == "agent" {
			n = value
		}
	}
	return d.fail(n, "agent", fmt.Sprintf("unknown value %q: want one of %s", p.Agent, strings.Join(names, ", ")), didYouMean(p.Agent, names))
}
