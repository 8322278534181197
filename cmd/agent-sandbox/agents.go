package main

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/link"
)

func (a *app) agentsCommand() *cobra.Command {
	var file string
	var asJSON bool
	c := &cobra.Command{
		Use:   "agents [NAME]",
		Short: "List the agents, or explain one",
		Long: `agents lists what --agent and "agent:" take: the program's kits, and those that the project's policy
defines under "agents:". With a name it shows how the agent is started, what it works with, and
which settings it gets.

A run installs nothing: the image has to have the agent's program. "image lock" and "image build" put
it there, of the kits that the column INSTALL has npm for; where the policy says nothing about its image
they do so with the agent that it names. TRIED are those that our tests run, at this version; the
others are written down from their documentation.`,
		Example: `  agent-sandbox agents
  agent-sandbox agents claude
  agent-sandbox agents --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			project, _, err := a.project("")
			if err != nil {
				return err
			}
			p, err := a.policy(file, project)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return a.listAgents(p, asJSON)
			}
			return a.explainAgent(p, args[0], asJSON)
		},
		ValidArgsFunction: cobra.FixedCompletions(policy.Agents(), cobra.ShellCompDirectiveNoFileComp),
	}
	c.Flags().StringVar(&file, "policy", "", "policy file, instead of the project's "+policyFile)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// agentJSON is a kit in `agents --json`: a contract, to which fields are only added.
type agentJSON struct {
	Name        string                `json:"name"`
	About       string                `json:"about"`
	Version     string                `json:"version,omitempty"`
	Source      string                `json:"source,omitempty"`
	Tried       bool                  `json:"tried"` // our tests run the real program
	Own         bool                  `json:"own"`   // the project's policy defines it
	Install     string                `json:"install,omitempty"`
	Command     []string              `json:"command"`
	Interactive []string              `json:"interactive"`
	Credentials []agentCredentialJSON `json:"credentials"`
	Env         []string              `json:"env"`
	Files       []agentFileJSON       `json:"files"`
	State       string                `json:"state,omitempty"`
	Exits       []agentExitJSON       `json:"exits"`
}

// agentCredentialJSON is a service that an agent can work with.
type agentCredentialJSON struct {
	Service string   `json:"service"`
	From    []string `json:"from"` // variables of the caller
	Inside  []string `json:"inside"`
	Hosts   []string `json:"hosts"`
	Header  string   `json:"header"`
	BaseURL string   `json:"base_url,omitempty"`
	Env     []string `json:"env,omitempty"`
}

type agentFileJSON struct {
	Path     string `json:"path"`
	Variable string `json:"variable,omitempty"` // that has the path
	Home     string `json:"home,omitempty"`     // below the home directory: a copy for the agent
	Content  string `json:"content"`
}

type agentExitJSON struct {
	Code    int    `json:"code"`
	Meaning string `json:"meaning"`
}

func newAgentJSON(k policy.Kit) agentJSON {
	out := agentJSON{
		Name: k.Name, About: k.About, Version: k.Version, Source: k.Source, Tried: k.Tried, Own: k.Own, Install: k.Install.String(),
		Command: k.Command, Interactive: append([]string{}, k.Interactive...), Credentials: []agentCredentialJSON{}, Env: assignments(k.Env),
		Files: []agentFileJSON{}, State: k.State, Exits: []agentExitJSON{},
	}
	for _, c := range k.Credentials {
		out.Credentials = append(out.Credentials, newAgentCredentialJSON(c))
	}
	for _, f := range k.Files {
		out.Files = append(out.Files, agentFileJSON{path.Join(link.FilesDir, f.Name), f.Variable, f.Home, f.Content})
	}
	for _, e := range k.Exits {
		out.Exits = append(out.Exits, agentExitJSON(e))
	}
	return out
}

func newAgentCredentialJSON(c policy.KitCredential) agentCredentialJSON {
	service, _ := policy.LookupService(c.Service)
	out := agentCredentialJSON{Service: c.Service, From: c.From, Inside: service.Env, BaseURL: c.BaseURL, Env: assignments(c.Set)}
	if c.Env != "" {
		out.Inside = []string{c.Env}
	}
	for i, place := range service.Attach {
		if i == 0 {
			out.Header = place.Header
		}
		for _, h := range place.Hosts {
			out.Hosts = append(out.Hosts, h.String())
		}
	}
	return out
}

func assignments(env []policy.EnvVar) []string {
	all := []string{}
	for _, v := range env {
		all = append(all, v.Name+"="+v.Value)
	}
	return all
}

// hosts are those of all services, each once.
func (j agentJSON) hosts() []string {
	var all []string
	for _, c := range j.Credentials {
		all = append(all, c.Hosts...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (a *app) listAgents(p *policy.Policy, asJSON bool) error {
	list := []agentJSON{}
	for _, name := range p.Kits() {
		k, _ := p.Kit(name)
		list = append(list, newAgentJSON(k))
	}
	if asJSON {
		return a.answerJSON(list)
	}
	return a.answer(func(out io.Writer) error {
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "AGENT\tVERSION\tTRIED\tINSTALL\tCREDENTIAL\tHOSTS\tABOUT")
		for _, j := range list {
			var services []string
			for _, c := range j.Credentials {
				services = append(services, c.Service)
			}
			from, _, _ := strings.Cut(j.Install, " ")
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", j.Name, orDash(j.Version), triedWord(j), orDash(from), orDash(strings.Join(services, " | ")), orDash(short(j.hosts())), j.About)
		}
		return w.Flush()
	})
}

func triedWord(j agentJSON) string {
	switch {
	case j.Tried:
		return "yes"
	case j.Own:
		return "-"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short keeps a line of the list on one line of a screen.
func short(hosts []string) string {
	if len(hosts) > 1 {
		return fmt.Sprintf("%d, one for each", len(hosts))
	}
	return strings.Join(hosts, "")
}

func (a *app) explainAgent(p *policy.Policy, name string, asJSON bool) error {
	k, ok := p.Kit(name)
	if !ok {
		return usage("there is no agent %q\nhint: `agent-sandbox agents` lists them", name)
	}
	if asJSON {
		return a.answerJSON(newAgentJSON(k))
	}
	return a.answer(func(w io.Writer) error { return printAgent(w, newAgentJSON(k)) })
}

func printAgent(out io.Writer, j agentJSON) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, printableLine(text))
		}
	}
	row(j.Name, j.About)
	if j.Version != "" {
		tried := "not run by our tests"
		if j.Tried {
			tried = "run by our tests"
		}
		row("version", j.Version+", "+tried)
	}
	row("install", j.Install)
	row("task", commandLine(j.Command))
	row("terminal", commandLine(j.Interactive))
	for i, c := range j.Credentials {
		name := "credential"
		if i > 0 {
			name = "or"
		}
		row(name, fmt.Sprintf("%s, from %s, for %s (%s); inside a placeholder in %s",
			c.Service, strings.Join(c.From, " or "), strings.Join(c.Hosts, ", "), c.Header, strings.Join(c.Inside, ", ")))
		row("", strings.Join(c.Env, " "))
	}
	for _, v := range j.Env {
		row("setting", v)
	}
	for _, f := range j.Files {
		text := f.Path
		if f.Variable != "" {
			text += ", named by " + f.Variable
		}
		if f.Home != "" {
			text += ", copied to ~/" + f.Home
		}
		row("file", text)
	}
	if j.State != "" {
		row("state", "~/"+j.State+", gone after the run")
	}
	for _, e := range j.Exits {
		row(fmt.Sprintf("exit %d", e.Code), e.Meaning)
	}
	row("source", j.Source)
	return w.Flush()
}
