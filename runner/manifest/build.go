package manifest

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/runner/event"
)

// The files of a run that a statement is made from, besides its events.
const (
	planFile   = "plan.json"
	patchFile  = "changes.patch"
	eventsFile = "events.jsonl"
)

// maxPlan bounds the plan that is read; a policy file has at most 64 KiB.
const maxPlan = 8 << 20

// Input is the record of a run, of one that ended or of one whose runner died.
type Input struct {
	Summary event.Summary // with Log
	Files   fs.FS         // the run's directory
	// Policy is the compiled policy, for a run that ended before there was a plan; nil: nobody knows it any more.
	Policy json.RawMessage
	// Redact takes the run's secrets out of a text; nil: nobody knows them any more.
	Redact func(string) string
	// Prompt is what the agent was given in words, for a policy whose evidence.include has it.
	Prompt string

	Weakened Weakened
}

// Build makes the canonical statement of a run. It is a pure function of the record: the runner at the end of a run and whoever
// meets the record of a dead one later get the same fields. An error means that the record could not be read.
func Build(in Input) ([]byte, error) {
	// Texts come from inside, and may be long and full of escapes. What they are cut to is found by trying.
	for _, limit := range []int{1024, 256, 64} {
		b := &builder{in: in, s: in.Summary, limit: limit}
		statement, err := b.build()
		if err != nil {
			return nil, err
		}
		encoded, err := statement.Encode()
		if err != nil {
			return nil, err
		}
		if len(encoded) > MaxSize {
			continue
		}
		// What is signed must be what a verifier takes.
		if _, err := Decode(encoded); err != nil {
			return nil, fmt.Errorf("the statement of run %s: %w", in.Summary.Run, err)
		}
		return encoded, nil
	}
	return nil, fmt.Errorf("the statement of run %s does not fit into %d bytes", in.Summary.Run, MaxSize)
}

// builder fills in one statement.
type builder struct {
	in    Input
	s     event.Summary
	limit int // of one text in bytes, before it is encoded
	plan  *plan
	sum   string // SHA-256 of the plan
	p     Predicate
}

func (b *builder) build() (Statement, error) {
	b.p = Predicate{
		Run: b.s.Run, Credentials: []Credential{}, Logs: []Log{}, Included: []Included{}, Missing: []Missing{}, Clipped: []string{},
	}
	if err := b.readPlan(); err != nil {
		return Statement{}, err
	}
	b.outcome()
	b.invocation()
	b.source()
	b.environment()
	b.policy()
	b.isolation()
	b.credentials()
	b.egress()
	b.workspace()
	b.resources()
	b.logs()
	b.events()
	b.warnings()
	subjects, err := b.subjects()
	if err != nil {
		return Statement{}, err
	}
	if err := b.include(); err != nil {
		return Statement{}, err
	}
	slices.Sort(b.p.Clipped)
	b.p.Clipped = slices.Compact(b.p.Clipped)
	b.p.Provenance = Provenance()
	return Statement{Type: StatementType, Subject: subjects, PredicateType: PredicateType, Predicate: b.p}, nil
}

// missing marks a field that can't be filled in.
func (b *builder) missing(field, why string) {
	b.p.Missing = append(b.p.Missing, Missing{field, why})
}

// text makes what may come from inside safe to show in any reader, and short.
func (b *builder) text(field, text string) string {
	const marker = "..."
	cut := text[:min(len(text), b.limit)]
	if b.in.Weakened.long() {
		cut = text
	}
	safe := event.Printable(cut)
	if b.in.Weakened.raw() {
		safe = cut
	}
	if b.in.Weakened.long() || len(text) <= b.limit && len(safe) <= b.limit {
		return safe
	}
	b.p.Clipped = append(b.p.Clipped, field)
	return strings.ToValidUTF8(safe[:min(len(safe), b.limit-len(marker))], "") + marker
}

func (b *builder) texts(field string, list []string) []string {
	const most = 100
	if len(list) > most {
		b.p.Clipped = append(b.p.Clipped, field)
		list = list[:most]
	}
	out := []string{}
	for _, text := range list {
		out = append(out, b.text(field, text))
	}
	return out
}

// agentRan tells whether the agent was let go.
func (b *builder) agentRan() bool {
	return slices.ContainsFunc(b.s.Phases, func(p event.PhaseTime) bool { return p.Name == event.Agent })
}

func (b *builder) readPlan() error {
	content, _, err := b.read(planFile, maxPlan)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var p plan
	if err := json.Unmarshal(content, &p); err != nil {
		b.missing("isolation.planned", "the plan of the run can't be read: "+b.text("missing", err.Error()))
		return nil
	}
	b.plan, b.sum = &p, hexSum(content)
	return nil
}

func hexSum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// read gives the first bytes of a file of the run, and the size of all of it.
func (b *builder) read(name string, limit int64) (content []byte, size int64, err error) {
	f, err := b.in.Files.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	content, err = io.ReadAll(io.LimitReader(f, limit))
	return content, info.Size(), err
}

// digest is that of a file of the run; an empty one if there is none.
func (b *builder) digest(name string) (sum string, size int64, err error) {
	f, err := b.in.Files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return hexSum(nil), 0, err
	}
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

func (b *builder) outcome() {
	s := b.s
	o := Outcome{
		Result: string(s.Outcome), Partial: s.Partial, ExitCode: s.ExitCode, Reason: b.text("outcome.reason", s.Reason),
		Started: s.Started, Finished: s.Finished, DurationNS: int64(s.Duration), Phases: []Phase{},
	}
	for _, p := range s.Phases {
		o.Phases = append(o.Phases, Phase{Name: string(p.Name), DurationNS: int64(p.Duration), Open: p.Open})
	}
	switch a := s.Agent; {
	case a != nil:
		o.Agent = &AgentEnd{Code: a.Code, Signal: a.Signal, Reason: string(a.Reason), Error: b.text("outcome.agent.error", a.Error)}
		if a.Silent {
			b.missing("outcome.agent.code", "the sandbox ended before the guest could say it; the number is that of the run")
		}
	case b.agentRan():
		b.missing("outcome.agent", "the runner died before the agent's end")
	}
	b.p.Outcome = o
}

// maxCommand bounds the arguments of the command in all, and taskWord stands for the task among them.
const (
	maxCommand = 64 << 10
	taskWord   = "{task}"
)

func (b *builder) invocation() {
	start := b.s.Start
	if start == nil {
		b.missing("invocation", "the log has no first event")
		b.p.Invocation = Invocation{Trigger: string(event.TriggerLocal), Command: []string{}, CommandSHA256: CommandSHA256(nil)}
		return
	}
	i := start.Invocation
	b.p.Invocation = Invocation{
		Trigger: cmp.Or(string(i.Trigger), string(event.TriggerLocal)), Actor: b.text("invocation.actor", i.Actor), ActorID: b.text("invocation.actor_id", i.ActorID),
		Repository: b.text("invocation.repository", i.Repository), RepositoryID: b.text("invocation.repository_id", i.RepositoryID),
		RepositoryOwnerID: b.text("invocation.repository_owner_id", i.RepositoryOwnerID),
		Workflow:          b.text("invocation.workflow", i.Workflow), WorkflowSHA: b.text("invocation.workflow_sha", i.WorkflowSHA), Job: b.text("invocation.job", i.Job),
		Event: b.text("invocation.event", i.Event), Ref: b.text("invocation.ref", i.Ref), SHA: b.text("invocation.sha", i.SHA), RunURL: b.text("invocation.run_url", i.RunURL),
		Project: b.text("invocation.project", path.Base(strings.ReplaceAll(start.Project, `\`, "/"))),
		Command: b.command(start), CommandSHA256: CommandSHA256(start.Argv),
		Agent: start.Kit, Terminal: start.TTY, TimeoutNS: int64(start.Timeout),
	}
	if t := start.Task; t != nil {
		b.p.Invocation.TaskSHA256, b.p.Invocation.PromptSHA256 = t.SHA256, t.PromptSHA256
	}
	if b.plan != nil && b.plan.Kit != nil {
		b.p.Invocation.AgentVersion = b.plan.Kit.Version
	}
}

// command is exact, so that `replay` can start it again, but for a task in words and for what does not fit.
func (b *builder) command(start *event.RunStarted) []string {
	out, left := []string{}, min(maxCommand, b.limit*64)
	for i, arg := range start.Argv {
		if start.Task != nil && slices.Contains(start.Task.Args, i) {
			arg = taskWord
		}
		if left -= len(arg) + 1; left < 0 {
			b.p.Clipped = append(b.p.Clipped, "invocation.command")
			break
		}
		out = append(out, strings.ToValidUTF8(arg, "\ufffd"))
	}
	return out
}

// CommandSHA256 is the digest that a statement has of a command.
func CommandSHA256(argv []string) string {
	var all strings.Builder
	for _, arg := range argv {
		all.WriteString(arg)
		all.WriteByte(0)
	}
	return hexSum([]byte(all.String()))
}

func (b *builder) source() {
	s := b.s.Source
	if s == nil {
		b.missing("source", "the run ended before the project was looked at")
		return
	}
	out := &Source{
		Repositories: []Repository{}, Commit: b.text("source.commit", s.Commit), Ref: b.text("source.ref", s.Ref),
		Dirty: s.Dirty, DirtySHA256: s.DirtySHA256, DirtyFiles: s.DirtyFiles,
	}
	for _, r := range s.Repositories {
		out.Repositories = append(out.Repositories, Repository{ID: r.ID, Name: b.text("source.repositories", r.Name), URL: b.text("source.repositories", r.URL)})
	}
	if s.Dirty == nil && s.Commit != "" {
		b.missing("source.dirty", b.text("missing", cmp.Or(s.Detail, "git did not tell")))
	}
	b.p.Source = out
}

func (b *builder) environment() {
	e := &b.p.Environment
	if b.s.Start != nil {
		e.Runner.Version = b.text("environment.runner.version", b.s.Start.Runner)
	}
	if r := b.s.Runner; r != nil && r.SHA256 != "" {
		e.Runner.SHA256 = r.SHA256
	} else {
		why := "the run ended before the program was identified"
		if r != nil {
			why = r.Detail
		}
		b.missing("environment.runner.sha256", b.text("missing", why))
	}
	if b.plan != nil && b.plan.Container.Guest.Digest != "" {
		e.Guest = &Program{Version: e.Runner.Version, SHA256: b.plan.Container.Guest.Digest} // it is part of the runner
	}
	p := b.s.Plan
	if p == nil {
		b.missing("environment.image", "the run ended before the image was settled")
		b.missing("environment.engine", "the run ended before the engine was settled")
		return
	}
	lock := "unlocked"
	switch {
	case p.Image.Locked:
		lock = "locked"
	case p.Image.Override:
		lock = "override"
	}
	e.Image = &Image{Reference: b.text("environment.image.reference", p.Image.Reference), ID: p.Image.ID, Digest: p.Image.Digest, Lock: lock}
	e.Engine = &Engine{
		Version: b.text("environment.engine", p.Engine.Version), API: b.text("environment.engine", p.Engine.API), Kernel: b.text("environment.engine", p.Engine.Kernel),
		Runtime: b.text("environment.engine", p.Engine.Runtime), Platform: b.text("environment.engine", p.Engine.Platform), Cgroup: p.Engine.Cgroup,
	}
}

// maxCompiled bounds a policy in the manifest.
const maxCompiled = 192 << 10

func (b *builder) policy() {
	b.p.Policy = Policy{Origin: "default", Found: []FoundHost{}, Problems: []string{}}
	p := &b.p.Policy
	if start := b.s.Start; start != nil {
		ref := start.Policy
		p.Loaded = len(ref.Problems) == 0
		p.Path, p.Digest, p.CeilingDigest, p.Commit = b.text("policy.path", ref.Path), ref.Digest, ref.CeilingDigest, ref.Commit
		p.Origin = cmp.Or(ref.Origin, map[bool]string{true: "default", false: "project"}[ref.Path == ""])
		p.Problems = b.texts("policy.problems", ref.Problems)
	}
	p.Compiled = b.in.Policy
	if b.plan != nil {
		p.Compiled = b.plan.Policy.Compiled
		for _, f := range b.plan.Network.Found[:min(len(b.plan.Network.Found), 100)] {
			p.Found = append(p.Found, FoundHost{
				Bundle: b.text("policy.found", f.Bundle), Host: b.text("policy.found", fmt.Sprintf("%s:%d", f.Host, f.Port)), Source: b.text("policy.found", f.Source),
			})
		}
	}
	switch {
	case len(p.Compiled) > maxCompiled:
		p.Compiled = nil
		b.missing("policy.compiled", "it is too large; plan.json of the run has it")
	case len(p.Compiled) == 0 && p.Loaded:
		b.missing("policy.compiled", "the run ended before there was a plan")
	}
}

// subjects are what the run made, sorted by name.
func (b *builder) subjects() ([]Subject, error) {
	log, _, err := b.digest(eventsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := []Subject{{Name: SubjectEvents, Digest: map[string]string{"sha256": log}}}
	if w := b.p.Workspace; w != nil {
		if w.PatchSHA256 != "" {
			all = append(all, Subject{Name: SubjectPatch, Digest: map[string]string{"sha256": w.PatchSHA256}})
		}
		if w.Tree != "" {
			all = append(all, Subject{Name: SubjectTree, Digest: map[string]string{digestTree: w.Tree}})
		}
		for _, o := range w.Outputs {
			if o.SHA256 != "" {
				all = append(all, Subject{Name: prefixOutput + o.Name, Digest: map[string]string{"sha256": o.SHA256}})
			}
		}
	}
	slices.SortFunc(all, func(x, y Subject) int { return cmp.Compare(x.Name, y.Name) })
	return all, nil
}
