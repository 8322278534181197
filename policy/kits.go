package policy

import (
	"slices"
	"strings"
)

// Kit is how one agent is run: what a policy's `agent:` and --agent name.
type Kit struct {
	Name    string
	About   string
	Version string  // that the rest was written for; empty for a program of the image or the project
	Source  string  // URL of the maker's own documentation
	Tried   bool    // our tests run the real program at this version
	Own     bool    // the project's policy defines it
	Install Install // zero: it is in every image, or up to the project

	// Command is the start with a task, for nobody to answer questions. The argument that has [TaskWord] gets the task; without
	// one the task is the program's standard input.
	Command []string
	// Interactive is the start on a terminal. An argument with TaskWord is left out when there is no task. Empty: there is no such start.
	Interactive []string

	// Credentials are those that the agent can work with, each enough by itself, the usual one first. Empty: it needs none.
	Credentials []KitCredential
	// Env has the settings that switch off what has no place in a sandbox: updates, statistics, questions, a sandbox of its own.
	Env []EnvVar
	// Files are configuration that no variable or argument can give.
	Files []KitFile
	State string    // where it keeps sessions and settings, below the home directory, which is gone afterwards
	Exits []KitExit // what its exit statuses mean, beyond 0 for success
}

// TaskWord stands for the task in a kit's commands.
const TaskWord = "{task}"

// Install says where a kit's program comes from.
type Install struct {
	From    string // npm, pip or release
	Package string // name of the package, or URL of the releases
	Version string
}

// String is "npm NAME@VERSION" or "pip NAME==VERSION".
func (i Install) String() string {
	switch i.From {
	case "":
		return ""
	case "pip":
		return "pip " + i.Package + "==" + i.Version
	}
	return i.From + " " + i.Package + "@" + i.Version
}

// KitCredential is one service that an agent can work with.
type KitCredential struct {
	Service string   // name of a [Service], and of the credential in the policy
	From    []string // variables of the caller in which the secret is looked for, in this order
	Env     string   // the only variable that has the placeholder inside; empty: all of the service
	BaseURL string   // variable that would send the agent to another address than the service's
	Set     []EnvVar // further variables that choose this service
}

// KitFile is a file of configuration. The sandbox puts it where the agent can read and not change it.
type KitFile struct {
	Name     string // of the file
	Variable string // that has its path; may be empty
	Home     string // path below the home directory where the agent gets a copy of its own; may be empty
	Content  string // in which PlaceholderEnd is replaced
}

// PlaceholderEnd stands, in a [KitFile], for the last 20 characters of the credential's placeholder: by them Claude Code knows a key that
// was agreed to.
const PlaceholderEnd = "{placeholder-end}"

// KitExit is what an exit status means.
type KitExit struct {
	Code    int
	Meaning string
}

// LookupKit finds a kit by its name, one of [Agents].
func LookupKit(name string) (Kit, bool) {
	all := kitData()
	at := slices.IndexFunc(all, func(k Kit) bool { return k.Name == name })
	if at < 0 {
		return Kit{}, false
	}
	return all[at], true
}

// Installable are the names of the kits that can be installed in an image, sorted: those of npm, since only a lock file of npm has the
// integrity hashes of all that is fetched.
func Installable() []string {
	var names []string
	for _, k := range kitData() {
		if k.Install.From == "npm" {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	return names
}

// ImageAgents are the kits that the image of a run gets installed, when the run starts the agent of this name. What the policy says
// about its image is all that is in it. Where it says nothing, the image is the program's default, which has no agent, and gets that
// one if it can be installed.
func (p *Policy) ImageAgents(started string) []string {
	if p.Image.IsZero() && slices.Contains(Installable(), started) {
		return []string{started}
	}
	return p.Image.Agents
}

// Kit finds a kit: one of the program's, or one that the policy defines.
func (p *Policy) Kit(name string) (Kit, bool) {
	if k, ok := LookupKit(name); ok {
		return k, true
	}
	at := slices.IndexFunc(p.Agents, func(a OwnAgent) bool { return a.Name == name })
	if at < 0 {
		return Kit{}, false
	}
	return p.Agents[at].kit(), true
}

// Kits are the names of all kits that the policy can use, sorted.
func (p *Policy) Kits() []string {
	names := append(Agents(), convert(p.Agents, func(a OwnAgent) string { return a.Name })...)
	slices.Sort(names)
	return names
}

// OwnAgent is a kit that a project defines for itself.
type OwnAgent struct {
	Name        string
	Command     []string
	Interactive []string
	Credential  string // name of a [Service]; empty: it needs none
}

func (a OwnAgent) kit() Kit {
	k := Kit{Name: a.Name, About: "defined by the project", Own: true, Command: a.Command, Interactive: a.Interactive}
	if service, ok := LookupService(a.Credential); ok {
		k.Credentials = []KitCredential{{Service: a.Credential, From: service.Env}}
	}
	return k
}

func (a OwnAgent) equal(o OwnAgent) bool {
	return a.Name == o.Name && slices.Equal(a.Command, o.Command) && slices.Equal(a.Interactive, o.Interactive) && a.Credential == o.Credential
}

// TaskArgv is the command that does the task. When input is true, the task has to be its standard input.
func (k Kit) TaskArgv(task string) (argv []string, input bool) {
	argv = fill(k.Command, task)
	return argv, !slices.ContainsFunc(k.Command, func(arg string) bool { return strings.Contains(arg, TaskWord) })
}

// InteractiveArgv is the command for a terminal, beginning with the task unless that is empty. It is empty for a kit without one.
func (k Kit) InteractiveArgv(task string) []string {
	args := k.Interactive
	if task == "" {
		args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.Contains(arg, TaskWord) })
	}
	return fill(args, task)
}

// fill puts the task into its place: as a part of one argument, whatever is in it.
func fill(args []string, task string) []string {
	return convert(args, func(arg string) string { return strings.ReplaceAll(arg, TaskWord, task) })
}

// Program is what the image must have.
func (k Kit) Program() string {
	if len(k.Command) == 0 {
		return ""
	}
	return k.Command[0]
}

// ExitMeaning says what an exit status means; empty for one that nothing is known of.
func (k Kit) ExitMeaning(code int) string {
	for _, e := range k.Exits {
		if e.Code == code {
			return e.Meaning
		}
	}
	return ""
}
