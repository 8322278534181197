package runner

import (
	"fmt"
	"path"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// KitPlan is what a kit has brought into a run.
type KitPlan struct {
	Name       string        `json:"name"`
	Version    string        `json:"version,omitempty"`    // that the kit was written for; what is in the image may be another
	Credential string        `json:"credential,omitempty"` // that the agent works with
	Added      bool          `json:"credential_added"`     // the credential is the kit's choice; else the policy names it
	Hosts      []policy.Host `json:"hosts"`                // added to network.allow
	Env        []string      `json:"env"`                  // variables that it sets
	Files      []string      `json:"files"`
}

// kitPlan is nil for a run without a kit.
func (r *run) kitPlan() *KitPlan {
	use := r.cfg.Kit
	if use == nil {
		return nil
	}
	p := &KitPlan{
		Name: use.Kit.Name, Version: use.Kit.Version, Credential: use.Credential, Added: use.Added,
		Hosts: append([]policy.Host{}, use.Hosts...), Env: []string{}, Files: []string{},
	}
	for _, v := range use.Env {
		p.Env = append(p.Env, v.Name)
	}
	for _, f := range use.Kit.Files {
		if f.Variable != "" {
			p.Env = append(p.Env, f.Variable)
		}
		p.Files = append(p.Files, path.Join(link.FilesDir, f.Name))
		if f.Home != "" {
			p.Files = append(p.Files, path.Join(engine.Home, f.Home))
		}
	}
	return p
}

func (r *run) kitName() string {
	if r.cfg.Kit == nil {
		return ""
	}
	return r.cfg.Kit.Kit.Name
}

// kitEnvironment sets the kit's variables.
func (r *run) kitEnvironment(vars *variables) {
	if r.cfg.Kit == nil {
		return
	}
	for _, f := range r.cfg.Kit.Kit.Files {
		if f.Variable == "" {
			continue
		}
		vars.set(f.Variable, path.Join(link.FilesDir, f.Name), "kit")
	}
	for _, v := range r.cfg.Kit.Env {
		vars.set(v.Name, v.Value, "kit")
	}
}

func (r *run) kitFiles() []link.File {
	if r.cfg.Kit == nil {
		return nil
	}
	var files []link.File
	for _, f := range r.cfg.Kit.Kit.Files {
		file := link.File{Name: f.Name, Content: []byte(strings.ReplaceAll(f.Content, policy.PlaceholderEnd, r.placeholderEnd()))}
		if f.Home != "" {
			file.Copy = path.Join(engine.Home, f.Home)
		}
		files = append(files, file)
	}
	return files
}

// placeholderEnd are the last 20 characters of what the kit works with: of a placeholder, unless the policy wants the secret itself inside.
func (r *run) placeholderEnd() string {
	for _, g := range r.grants {
		if g.Name == r.cfg.Kit.Credential {
			text := g.Placeholder
			if g.Deliver == policy.DeliverEnv {
				text = g.Inside[0].Reveal()
			}
			return text[max(0, len(text)-20):]
		}
	}
	return ""
}

// exitMeaning is what the kit knows of the agent's exit status.
func (r *run) exitMeaning(end ending) string {
	if r.cfg.Kit == nil || end.reason != event.Exited {
		return ""
	}
	meaning := r.cfg.Kit.Kit.ExitMeaning(end.exit.Code)
	if meaning == "" {
		return ""
	}
	return fmt.Sprintf("%s ended with %d: %s", r.cfg.Kit.Kit.Name, end.exit.Code, meaning)
}

// exitNotFound is the guest's exit status for a program that is not there.
const exitNotFound = 127

// lacksProgram is the refusal of a run whose image has no such agent.
func (r *run) lacksProgram(end ending) error {
	if r.cfg.Kit == nil || end.reason != event.NotStarted || end.exit.Code != exitNotFound {
		return nil
	}
	k := r.cfg.Kit.Kit
	hint := "install it in the image"
	if source := k.Install.String(); source != "" {
		hint += " (" + source + ")"
	}
	if k.Install.From == "npm" && !k.Own {
		hint = "`image: {from: REFERENCE, agents: [" + k.Name + "]}` in the policy installs it"
	}
	return &RefusedError{
		Reason: fmt.Sprintf("the agent %s is not in the image: %s has no program %s", k.Name, r.cfg.Image, k.Program()),
		Hint:   hint + ", or name one that has it with `image:` or --image",
	}
}
