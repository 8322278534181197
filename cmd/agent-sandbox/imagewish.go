package main

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/policy/convert"
	"github.com/org/agent-sandbox/runner/image"
)

// wish is the image that a policy or flags ask for.
type wish struct {
	file   string   // path of the Dockerfile or devcontainer.json to build; empty: none
	target string   // the stage of it
	base   string   // without a file: a reference
	agents []string // kits to install on top, sorted
}

// wishOf is the image of a policy whose agent is the one that is started.
func wishOf(p *policy.Policy) wish {
	w := wish{file: filepath.FromSlash(p.Image.Build), target: p.Image.Target, agents: p.ImageAgents(p.Agent)}
	if w.file == "" {
		w.base = cmp.Or(p.Image.Reference, defaultImage)
	}
	return w
}

// with is the image that flags of `image build` make of it.
func (w wish) with(f imageFlags) (wish, error) {
	if f.file != "" {
		file, err := filepath.Abs(f.file)
		if err != nil {
			return w, err
		}
		w = wish{file: file} // the policy's agents are for the policy's image
	}
	w.target = cmp.Or(f.target, w.target)
	w.agents = slices.Compact(slices.Sorted(slices.Values(slices.Concat(w.agents, f.agents))))
	switch {
	case f.target != "" && w.file == "":
		return w, usage("--target: only a Dockerfile has stages\nhint: name it with --file")
	case !w.isBuilt():
		return w, usage("nothing to build: the policy has no `image: {build: Dockerfile}`\nhint: name a Dockerfile with --file, or an agent to install with --agent")
	}
	return w, nil
}

// isBuilt tells that it is more than a reference.
func (w wish) isBuilt() bool { return w.file != "" || len(w.agents) > 0 }

// String is for messages.
func (w wish) String() string {
	text := cmp.Or(filepath.ToSlash(w.file), w.base)
	if len(w.agents) > 0 {
		text += " with " + strings.Join(w.agents, ", ")
	}
	return text
}

// key is what the lock calls the image.
func (w wish) key(project string) string {
	switch {
	case w.file != "":
		file := w.file
		if rel, err := filepath.Rel(project, file); err == nil && filepath.IsAbs(file) {
			file = rel
		}
		return image.BuildKey(file, w.target, w.agents)
	case w.isBuilt():
		return image.FromKey(w.base, w.agents)
	}
	return w.base
}

// source is what is built. Arguments of an earlier build are in the lock, but those of a devcontainer.json in that file.
func (w wish) source(p *policy.Policy, project string, locks *image.Lock) (src image.Source, err error) {
	if w.file == "" {
		src.Base = w.base
	} else if src, err = w.fromFile(p, project); err != nil {
		return src, err
	}
	for _, name := range w.agents {
		k, ok := p.Kit(name)
		if !ok {
			return src, usage("--agent: there is no agent %q\nhint: `agent-sandbox agents` lists them", name)
		}
		src.Agents = append(src.Agents, image.Agent{Name: name, From: k.Install.From, Package: k.Install.Package, Version: k.Install.Version})
	}
	if e, ok := locks.Images[w.key(project)]; ok && !isDevcontainer(w.file) {
		src.Args = e.Build.Args
	}
	return src, nil
}

// fromFile is for a Dockerfile or a devcontainer.json. What the policy hides from agents does not get into the image that they see.
func (w wish) fromFile(p *policy.Policy, project string) (image.Source, error) {
	file := w.file
	if !filepath.IsAbs(file) {
		file = filepath.Join(project, file)
	}
	src := image.Source{File: file, Target: w.target}
	if isDevcontainer(file) {
		if err := readDevcontainer(file, &src); err != nil || src.Base != "" {
			return src, err
		}
		src.Target = cmp.Or(w.target, src.Target)
	}
	hidden := policy.NewPatternSet(p.Workspace.Hide)
	prefix, err := filepath.Rel(project, cmp.Or(src.Context, filepath.Dir(src.File)))
	outside := err != nil || strings.HasPrefix(prefix, "..")
	src.Hidden = func(name string, dir bool) bool {
		if !outside {
			name = filepath.ToSlash(filepath.Join(prefix, filepath.FromSlash(name)))
		}
		return hidden.Match(name, dir)
	}
	return src, nil
}

// isDevcontainer tells a devcontainer.json, which may be called anything with that end, from a Dockerfile.
func isDevcontainer(file string) bool { return strings.HasSuffix(file, ".json") }

// maxDevcontainer bounds a devcontainer.json in bytes.
const maxDevcontainer = 1 << 20

// readDevcontainer puts into src what a devcontainer.json is built from: its paths are relative to itself.
func readDevcontainer(file string, src *image.Source) error {
	text, err := readLimited(file, maxDevcontainer)
	if err != nil {
		return err
	}
	if len(text) > maxDevcontainer {
		return usage("%s is larger than %d bytes", displayPath(file), maxDevcontainer)
	}
	b, err := convert.ParseDevBuild(text)
	if err != nil {
		return usage("%s: %w", displayPath(file), err)
	}
	if b.Image != "" {
		*src = image.Source{Base: b.Image}
		return nil
	}
	dir := filepath.Dir(file)
	*src = image.Source{File: filepath.Join(dir, filepath.FromSlash(b.Dockerfile)), Context: filepath.Join(dir, filepath.FromSlash(b.Context)), Target: b.Target, Args: maps.Clone(b.Args)}
	return nil
}
