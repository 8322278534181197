package image

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Agent is a coding agent that is installed on top of what a Dockerfile builds.
type Agent struct {
	Name    string // of its kit
	From    string // npm; nothing else can be installed
	Package string
	Version string
}

// agentFiles are a package-lock.json for each agent, which holds integrity hashes and no download addresses, one for Node itself,
// and the script that installs them.
//
//go:embed agents
var agentFiles embed.FS

// Where the agents are: in the image, and in the context of the build.
const (
	agentsDir     = "/opt/agents"
	agentsContext = ".agent-sandbox-agents"
	installStage  = "agent-sandbox-install"
	baseStage     = "agent-sandbox-base"
)

// refusal begins the line with which the script says that a base can't have the agents.
const refusal = "agent-sandbox-refuses: "

// packageJSON is what npm wants beside a lock file; it is made from that, so that the two agree.
type packageJSON struct {
	Private              bool              `json:"private"`
	Dependencies         map[string]string `json:"dependencies,omitempty"`
	OptionalDependencies map[string]string `json:"optionalDependencies,omitempty"`
}

// files are what installs the agent.
func (a Agent) files() ([]extraFile, error) {
	if a.From != "npm" {
		return nil, fmt.Errorf("the agent %s is not a package of npm, and nothing else can be installed with integrity hashes\n"+
			"hint: install it in the Dockerfile; `agent-sandbox agents %s` says where it comes from", a.Name, a.Name)
	}
	lock, p, err := readAgentLock(a.Name)
	if err != nil {
		return nil, err
	}
	if have := p.Dependencies[a.Package]; have != a.Version {
		return nil, fmt.Errorf("the agent %s is pinned to %s, and its lock file has %q", a.Name, a.Version, have)
	}
	files := agentLockFiles(a.Name, lock, p)
	// Where the program of the platform's package goes, of agents whose own scripts would put it there.
	native, err := fs.ReadFile(agentFiles, path.Join("agents", a.Name, "native"))
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	return append(files, extraFile{path.Join(agentsContext, a.Name, "native"), native}), err
}

func readAgentLock(name string) (lock []byte, p packageJSON, err error) {
	if lock, err = fs.ReadFile(agentFiles, path.Join("agents", name, "package-lock.json")); err != nil {
		return nil, p, fmt.Errorf("the agent %s has no lock file\nhint: install it in the Dockerfile", name)
	}
	var file struct {
		Packages map[string]packageJSON `json:"packages"`
	}
	if err := json.Unmarshal(lock, &file); err != nil {
		return nil, p, fmt.Errorf("lock file of the agent %s: %w", name, err)
	}
	p = file.Packages[""]
	p.Private = true
	return lock, p, nil
}

func agentLockFiles(name string, lock []byte, p packageJSON) []extraFile {
	b, err := json.Marshal(p)
	if err != nil {
		panic("image: a package.json has no JSON: " + err.Error())
	}
	dir := path.Join(agentsContext, name)
	return []extraFile{{path.Join(dir, "package-lock.json"), lock}, {path.Join(dir, "package.json"), b}}
}

// install adds stages that put the agents on top of what the Dockerfile builds. What it takes to install them stays in a stage that is
// no part of the image; users, commands and working directory are those of the Dockerfile.
func (in *Inputs) install(agents []Agent) error {
	if len(agents) == 0 {
		return nil
	}
	agents = slices.Clone(agents)
	slices.SortFunc(agents, func(a, b Agent) int { return strings.Compare(a.Name, b.Name) })
	agents = slices.Compact(agents)
	for _, a := range agents {
		files, err := a.files()
		if err != nil {
			return err
		}
		in.agents = append(in.agents, files...)
		if in.Agents == nil {
			in.Agents = map[string]AgentLock{}
		}
		in.Agents[a.Name] = AgentLock{a.Version, digestOf(files[0].content)}
	}
	lock, p, err := readAgentLock("node")
	if err != nil {
		return err
	}
	in.agents = append(in.agents, agentLockFiles("node", lock, p)...)
	script, err := fs.ReadFile(agentFiles, "agents/install")
	if err != nil {
		return err
	}
	in.agents = append(in.agents, extraFile{path.Join(agentsContext, "install"), script})
	name, text := in.Dockerfile.nameLast(baseStage)
	text += fmt.Sprintf("\nFROM %[1]s AS %[2]s\nUSER root\nCOPY %[3]s %[4]s\nARG npm_config_registry\nRUN [\"/bin/sh\", \"%[4]s/install\"]\n"+
		"FROM %[1]s\nCOPY --from=%[2]s %[4]s %[4]s\nENV PATH=%[4]s/bin:${PATH:-%[5]s}\n",
		name, installStage, agentsContext, agentsDir, strings.TrimPrefix(defaultPath, "PATH="))
	d, err := parseDockerfile([]byte(text))
	if err != nil {
		return err
	}
	in.built = d
	return nil
}

// nameLast is the Dockerfile's text with a name for its last stage, unless it has one.
func (d *Dockerfile) nameLast(name string) (stage, text string) {
	if last := d.stages[len(d.stages)-1]; last.name != "" {
		return last.name, string(d.source)
	}
	at := slices.IndexFunc(d.instructions, func(in instruction) bool { return in.name == "FROM" })
	for i, in := range d.instructions {
		if in.name == "FROM" {
			at = i
		}
	}
	from := d.instructions[at]
	lines := strings.SplitAfter(string(d.source), "\n")
	return name, strings.Join(lines[:from.line-1], "") + "FROM " + from.rest + " AS " + name + "\n" + strings.Join(lines[min(from.end, len(lines)):], "")
}
