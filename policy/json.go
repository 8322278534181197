package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Digest is "sha256:" and the hex SHA-256 of the canonical JSON of the policy: that of [Policy.MarshalJSON] with the keys
// of every object in byte order, no white space, and no escapes but those that JSON requires. It depends on what the policy means
// after defaults and normalisation, not on comments, order of keys, places or the name of the file.
func (p *Policy) Digest() string {
	canonical, err := p.canonicalJSON()
	if err != nil {
		panic(fmt.Sprintf("policy: bug: a valid policy has no JSON: %v", err))
	}
	sum := sha256.Sum256(canonical)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (p *Policy) canonicalJSON() ([]byte, error) {
	plain, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(plain))
	decoder.UseNumber()
	var tree any // maps are written with sorted keys
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(tree); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// MarshalJSON is the compiled policy as the plan and the manifest have it: every default filled in, sizes in bytes, times as
// in the file. Empty sections are there, so that a reader sees that nothing is allowed.
func (p *Policy) MarshalJSON() ([]byte, error) {
	return json.Marshal(planPolicy{
		Version:     p.Version,
		Image:       planImage(p.Image),
		Agent:       p.Agent,
		Agents:      convert(p.Agents, func(a OwnAgent) planAgent { return planAgent(a) }),
		User:        p.User,
		Seccomp:     p.Seccomp,
		Workspace:   planWorkspace{p.Workspace.Mode, list0(p.Workspace.Hide), planProtect{list0(p.Workspace.Protect.Reject), list0(p.Workspace.Protect.Warn)}},
		Mounts:      convert(p.Mounts, func(m Mount) planMount { return planMount(m) }),
		Env:         convert(p.Env, func(e EnvVar) planEnv { return planEnv(e) }),
		Network:     planNetwork{p.Network.Capture, convert(p.Network.Allow, planRuleOf), convert(p.Network.Deny, planRuleOf), planLimitsOf(p.Network.Limits)},
		Credentials: convert(p.Credentials, planCredentialOf),
		Caches:      list0(p.Caches),
		Resources:   planResourcesOf(p.Resources),
		Evidence:    planEvidenceOf(p.Evidence),
	})
}

type planPolicy struct {
	Version     int              `json:"version"`
	Image       planImage        `json:"image"`
	Agent       string           `json:"agent,omitempty"`
	Agents      []planAgent      `json:"agents,omitempty"`
	User        User             `json:"user"`
	Seccomp     Seccomp          `json:"seccomp"`
	Workspace   planWorkspace    `json:"workspace"`
	Mounts      []planMount      `json:"mounts"`
	Env         []planEnv        `json:"env"`
	Network     planNetwork      `json:"network"`
	Credentials []planCredential `json:"credentials"`
	Caches      []string         `json:"caches"`
	Resources   planResources    `json:"resources"`
	Evidence    planEvidence     `json:"evidence"`
}

type planAgent struct {
	Name        string   `json:"name"`
	Command     []string `json:"command"`
	Interactive []string `json:"interactive,omitempty"`
	Credential  string   `json:"credential,omitempty"`
}

type planImage struct {
	Reference string   `json:"reference,omitempty"`
	Build     string   `json:"build,omitempty"`
	Target    string   `json:"target,omitempty"`
	Agents    []string `json:"agents,omitempty"`
}

type planWorkspace struct {
	Mode    WorkspaceMode `json:"mode"`
	Hide    []Pattern     `json:"hide"`
	Protect planProtect   `json:"protect"`
}

type planProtect struct {
	Reject []Pattern `json:"reject"`
	Warn   []Pattern `json:"warn"`
}

type planMount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readonly"`
}

type planEnv struct {
	Name     string `json:"name"`
	Value    string `json:"value,omitempty"`
	FromHost bool   `json:"from_host,omitempty"`
}

type planNetwork struct {
	Capture Capture     `json:"capture"`
	Allow   []planRule  `json:"allow"`
	Deny    []planRule  `json:"deny"`
	Limits  *planLimits `json:"limits,omitempty"`
}

type planRule struct {
	Bundle  string      `json:"bundle,omitempty"`
	Host    string      `json:"host,omitempty"`
	Port    []PortRange `json:"port,omitempty"`
	TCP     bool        `json:"tcp,omitempty"`
	Private bool        `json:"private,omitempty"`
	To      string      `json:"to,omitempty"`
	Rules   []HTTPRule  `json:"rules,omitempty"`
	Limits  *planLimits `json:"limits,omitempty"`
}

type planLimits struct {
	Upload   Bytes  `json:"upload,omitempty"`
	Download Bytes  `json:"download,omitempty"`
	Idle     string `json:"idle,omitempty"`
	Connect  string `json:"connect,omitempty"`
}

type planCredential struct {
	Name          string            `json:"name"`
	From          string            `json:"from"`
	Broker        string            `json:"broker,omitempty"`
	Identity      string            `json:"identity,omitempty"`
	Key           string            `json:"key,omitempty"`
	Repositories  []string          `json:"repositories,omitempty"`
	Permissions   map[string]string `json:"permissions,omitempty"`
	Push          []string          `json:"push,omitempty"`
	PublicRead    bool              `json:"public_read,omitempty"`
	Deliver       Deliver           `json:"deliver"`
	Env           string            `json:"env,omitempty"`
	Hosts         []Host            `json:"hosts,omitempty"`
	Header        string            `json:"header,omitempty"`
	Scheme        string            `json:"scheme,omitempty"`
	Username      string            `json:"username,omitempty"`
	Rules         []HTTPRule        `json:"rules,omitempty"`
	Rotate        string            `json:"rotate,omitempty"`
	RotateEnforce bool              `json:"rotate_enforce,omitempty"`
	Rotated       string            `json:"rotated,omitempty"`
	Rotation      *planRotation     `json:"rotation,omitempty"`
	AllowBroad    string            `json:"allow_broad,omitempty"`
}

type planResources struct {
	CPUs    float64 `json:"cpus"`
	Memory  Bytes   `json:"memory"`
	PIDs    int64   `json:"pids"`
	Timeout string  `json:"timeout"`
	Grace   string  `json:"grace"`
	Tmp     Bytes   `json:"tmp"`
	Run     Bytes   `json:"run"`
	Home    Bytes   `json:"home"`
	Shm     Bytes   `json:"shm"`
	Output  Bytes   `json:"output"`
}

type planEvidence struct {
	Sign    string   `json:"sign"`
	Retain  string   `json:"retain"`
	Include []string `json:"include"`
	// Left out if they are empty, so that policies of older versions keep their digests.
	Outputs map[string]string `json:"outputs,omitempty"`
	Attest  bool              `json:"attest,omitempty"`
}

func planEvidenceOf(e Evidence) planEvidence {
	out := planEvidence{Sign: e.Sign, Retain: FormatDuration(e.Retain), Include: list0(e.Include), Attest: e.Attest}
	for _, o := range e.Outputs {
		if out.Outputs == nil {
			out.Outputs = map[string]string{}
		}
		out.Outputs[o.Name] = o.Path
	}
	return out
}

func planRuleOf(r Rule) planRule {
	return planRule{
		Bundle: r.Bundle, Host: r.Host.String(), Port: r.Ports, TCP: r.TCP, Private: r.Private,
		To: r.To.String(), Rules: r.HTTP, Limits: planLimitsOf(r.Limits),
	}
}

func planLimitsOf(l Limits) *planLimits {
	if l == (Limits{}) {
		return nil
	}
	return &planLimits{l.Upload, l.Download, optionalDuration(l.Idle), optionalDuration(l.Connect)}
}

func planCredentialOf(c Credential) planCredential {
	return planCredential{
		Name: c.Name, From: c.From.String(), Broker: c.Broker, Identity: c.Identity, Key: c.Key.String(),
		Repositories: c.Repositories, Permissions: c.Permissions, Push: c.Push, PublicRead: c.PublicRead, Deliver: c.Deliver, Env: c.Env, Hosts: c.Hosts,
		Header: c.Header, Scheme: c.Scheme, Username: c.Username, Rules: c.Rules,
		Rotate: optionalDuration(c.Rotate), RotateEnforce: c.RotateEnforce, Rotated: optionalDate(c.Rotated), Rotation: planRotationOf(c.Rotation), AllowBroad: c.AllowBroad,
	}
}

func planResourcesOf(r Resources) planResources {
	return planResources{r.CPUs, r.Memory, r.PIDs, FormatDuration(r.Timeout), FormatDuration(r.Grace), r.Tmp, r.Run, r.Home, r.Shm, r.Output}
}

func optionalDuration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return FormatDuration(d)
}

func list0[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

func convert[A, B any](items []A, f func(A) B) []B {
	out := make([]B, 0, len(items))
	for _, item := range items {
		out = append(out, f(item))
	}
	return out
}
