package runner

import (
	"bytes"
	"encoding/json"
	"path"
	"slices"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/link"
)

const (
	// insidePolicyFile has an InsidePolicy, and insidePolicyVariable its path.
	insidePolicyFile     = "policy.json"
	insidePolicyVariable = "AGENT_SANDBOX_POLICY"
	// insideSize bounds link.FilesDir, a file system of its own in memory. The certificates that the guest writes are bounded
	// to less.
	insideSize = 16 << 20
)

// InsidePolicyVersion is the version of an InsidePolicy's JSON. Fields may be added to it.
const InsidePolicyVersion = 1

// InsidePolicy is what /run/agent-sandbox/policy.json has: what the agent may do, so that it need not find out by trying.
// It decides nothing, and has neither secrets nor anything about the host.
type InsidePolicy struct {
	Version     int                `json:"version"`
	Network     InsideNetwork      `json:"network"`
	Credentials []InsideCredential `json:"credentials"`
	Workspace   InsideWorkspace    `json:"workspace"`
	Limits      InsideLimits       `json:"limits"`
}

// InsideNetwork says what may be reached. A connection is made if a rule of Allow takes it in and none of Deny does.
type InsideNetwork struct {
	Allow  []InsideRule   `json:"allow"`
	Deny   []InsideRule   `json:"deny"`
	Limits *InsideTraffic `json:"limits,omitempty"` // of all connections together
	// Otherwise says, for people and models, what happens to everything else.
	Otherwise string `json:"otherwise"`
}

// InsideRule is one host, or all below "*.".
type InsideRule struct {
	Host  policy.Host        `json:"host"`
	Ports []policy.PortRange `json:"ports"` // "443", "8000-8010"
	// Protocol is "http" for HTTP and TLS, whose first bytes must name the host, and "tcp" for any; left out of Deny, where it
	// makes no difference.
	Protocol string            `json:"protocol,omitempty"`
	Requests []policy.HTTPRule `json:"requests,omitempty"` // only these, as "GET /path/**"; none: every request
	Limits   *InsideTraffic    `json:"limits,omitempty"`
	Bundle   string            `json:"bundle,omitempty"` // the list of hosts that it comes from
}

// InsideTraffic bounds traffic; what is left out has no bound of its own.
type InsideTraffic struct {
	UploadBytes   int64   `json:"upload_bytes,omitempty"`
	DownloadBytes int64   `json:"download_bytes,omitempty"`
	IdleSeconds   float64 `json:"idle_seconds,omitempty"`
}

// InsideCredential is a credential that requests get on their way out. The variables have a placeholder, to be used as if
// it were the secret; sent anywhere but to Hosts, it is refused. One that is delivered otherwise is the secret itself, and goes wherever the agent
// sends it.
type InsideCredential struct {
	Name      string            `json:"name"`
	Deliver   policy.Deliver    `json:"deliver"`        // inject, env or file
	File      string            `json:"file,omitempty"` // path of the secret; the variables have it too
	Variables []string          `json:"variables"`
	Hosts     []policy.Host     `json:"hosts"`
	Header    string            `json:"header,omitempty"`
	Requests  []policy.HTTPRule `json:"requests,omitempty"` // only these; none: every request
}

// InsideWorkspace says what the agent may write.
type InsideWorkspace struct {
	Path     string   `json:"path"`
	Writable bool     `json:"writable"`
	Scratch  []string `json:"scratch"`          // writable directories that are gone afterwards
	Caches   []string `json:"caches,omitempty"` // writable directories that the next run of this project finds as they are
}

// InsideLimits bound the run.
type InsideLimits struct {
	CPUs           float64 `json:"cpus"`
	MemoryBytes    int64   `json:"memory_bytes"`
	Processes      int64   `json:"processes"`
	TimeoutSeconds float64 `json:"timeout_seconds"`
}

const otherwise = "Everything else is refused at once and recorded: names do not resolve (NXDOMAIN), TCP connections are reset, " +
	"UDP and ICMP are rejected. " + ask

// otherwiseLoopback is the same where nothing is captured.
const otherwiseLoopback = "Everything else fails at once: names do not resolve (NXDOMAIN), other ports and all other addresses can't be connected to, " +
	"not even addresses that the rules allow, and there is no UDP. Names have loopback addresses (127.x). " + ask

const ask = "To have a host allowed, ask for it to be added to network.allow of .agent-sandbox.yaml."

// insidePolicy says what was decided. The policy has its bundles expanded.
func (r *run) insidePolicy() InsidePolicy {
	p := r.expanded
	in := InsidePolicy{
		Version: InsidePolicyVersion,
		Network: InsideNetwork{
			Allow: insideRules(p.Network.Allow, insideProtocol), Deny: insideRules(p.Network.Deny, noProtocol), Limits: insideTraffic(p.Network.Limits), Otherwise: otherwise,
		},
		Credentials: []InsideCredential{},
		Workspace: InsideWorkspace{
			Path: WorkspaceTarget, Writable: p.Workspace.Mode != policy.ModeReadonly, Scratch: []string{"/tmp", "/run", engine.Home},
			Caches: cacheTargets(r.caches),
		},
		Limits: InsideLimits{
			CPUs: p.Resources.CPUs, MemoryBytes: int64(p.Resources.Memory), Processes: p.Resources.PIDs, TimeoutSeconds: r.timeout().Seconds(),
		},
	}
	if r.fallback != "" {
		in.Network.Otherwise = otherwiseLoopback
	}
	for i, g := range r.grants {
		if !slices.ContainsFunc(r.grants[:i], func(o credential.Grant) bool {
			return o.Name == g.Name && o.Scheme == g.Scheme && slices.Equal(o.Hosts, g.Hosts)
		}) {
			in.Credentials = append(in.Credentials, insideCredential(g)) // the tokens of several repositories are one credential to the agent
		}
	}
	return in
}

func insideCredential(g credential.Grant) InsideCredential {
	c := InsideCredential{Name: g.Name, Deliver: g.Deliver, Variables: g.Env, Hosts: g.Hosts, Header: g.Header, Requests: g.Rules}
	if g.Deliver == policy.DeliverFile {
		c.File = credentialPath(g.Name)
	}
	return c
}

func insideRules(rules []policy.Rule, protocol func(policy.Rule) string) []InsideRule {
	all := []InsideRule{}
	for _, rule := range rules {
		all = append(all, InsideRule{rule.Host, rule.Ports, protocol(rule), rule.HTTP, insideTraffic(rule.Limits), rule.Bundle})
	}
	return all
}

func insideProtocol(r policy.Rule) string {
	if r.TCP {
		return "tcp"
	}
	return "http"
}

func noProtocol(policy.Rule) string { return "" }

func insideTraffic(l policy.Limits) *InsideTraffic {
	t := InsideTraffic{int64(l.Upload), int64(l.Download), l.Idle.Seconds()}
	if t == (InsideTraffic{}) {
		return nil
	}
	return &t
}

// inside adds to a plan what the sandbox is given in link.FilesDir, and the variables that go with it. They come after
// those of image and policy, since they count whatever these say.
func (r *run) inside(p *Plan, vars *variables) error {
	p.files = r.kitFiles()
	for _, g := range r.grants {
		for i, name := range g.Env {
			switch g.Deliver {
			case policy.DeliverEnv:
				vars.set(name, g.Inside[i].Reveal(), "secret")
			case policy.DeliverFile:
				vars.set(name, credentialPath(g.Name), "credential")
			default:
				vars.set(name, g.Placeholder, "credential")
			}
		}
		if g.Deliver == policy.DeliverFile {
			p.files = append(p.files, link.File{Name: "credential-" + g.Name, Content: []byte(g.Inside[0].Reveal()), Copy: credentialPath(g.Name), Private: true})
		}
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r.insidePolicy()); err != nil {
		return err
	}
	p.files = append(p.files, link.File{Name: insidePolicyFile, Content: text.Bytes()})
	p.trust, p.Files = nil, nil
	vars.set(insidePolicyVariable, path.Join(link.FilesDir, insidePolicyFile), "sandbox")
	if r.authority != nil {
		var more []link.File
		p.trust, more = trust(r.authority, vars)
		p.files = append(p.files, more...)
		p.Files = []string{caPath, bundlePath, storePath}
	}
	for _, f := range p.files {
		if f.Private {
			p.Files = append(p.Files, f.Copy)
			continue
		}
		p.Files = append(p.Files, path.Join(link.FilesDir, f.Name))
	}
	slices.Sort(p.Files)
	return (&link.Start{Files: p.files, Trust: p.trust}).CheckFiles()
}
