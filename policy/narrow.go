package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Narrowing is one value of the project's file that the ceiling has lowered.
type Narrowing struct {
	Path    string // key or item of the project's file
	Place   Place  // where the project says it; the default has none
	From    string // what the project has
	To      string // what holds
	Ceiling Place  // where the ceiling says so; its defaults have none
}

// String is one line for people.
func (n Narrowing) String() string {
	return fmt.Sprintf("%s: %s: %s becomes %s, by the ceiling (%s)", n.Place, n.Path, n.From, n.To, n.Ceiling)
}

// Narrow gives the policy that holds when an organisation's ceiling stands over a project's policy: whatever it
// allows, both allow. Neither argument is changed. A nil ceiling is none.
//
// What a project asks for beyond the ceiling is an error of type [Problems], since the task would fail later: a host, a
// mount, a variable of the host, a cache, a credential, another image or agent than the ceiling names. A ceiling
// without such a section allows nothing of the kind; only image and agent are free when the ceiling is silent. The ceiling's
// own agents are there for the project.
// What can be lowered is lowered and reported:
//   - user, seccomp, workspace.mode, network.capture and deliver: the stricter of the two; a silent ceiling has its defaults
//   - resources, limits and rotate: the smaller, where the ceiling sets one
//   - evidence: the ceiling's sign unless that is none or auto, the longer retain, the ceiling's include if it has one, and attest if it asks for that
//   - hide and protect: both lists; a project's "!pattern" counts only if the ceiling has it too
//   - network.deny: both lists; an allow rule without `rules` gets those of the ceiling's rule, and so does a host that a credential opens
func Narrow(project, ceiling *Policy) (*Policy, []Narrowing, error) {
	if ceiling == nil {
		return project, nil, nil
	}
	out := *project
	n := &narrower{project: project, ceiling: ceiling, out: &out}
	n.scalars()
	n.workspace()
	n.lists()
	n.network()
	n.credentials()
	n.credentialHosts()
	n.resources()
	n.evidence()
	if err := n.problems.asError(); err != nil {
		return nil, nil, err
	}
	return &out, n.narrowings, nil
}

type narrower struct {
	project, ceiling, out *Policy
	narrowings            []Narrowing
	problems              Problems
}

func (n *narrower) refuse(path, message, hint string) {
	n.problems = append(n.problems, Problem{Place: n.project.placeOrFile(path), Path: path, Message: message, Hint: hint})
}

func (n *narrower) lowered(path, from, to string) {
	n.narrowings = append(n.narrowings, Narrowing{
		Path: path, Place: n.project.Place(path), From: from, To: to, Ceiling: n.ceiling.placeOrFile(path),
	})
}

// sets reports whether the ceiling's file has the key.
func (n *narrower) sets(path string) bool { return !n.ceiling.Place(path).IsZero() }

// stricter gives the earlier of two words in an order from strict to loose.
func stricter[T ~string](n *narrower, path string, project, ceiling T, order ...T) T {
	if slices.Index(order, project) <= slices.Index(order, ceiling) {
		return project
	}
	n.lowered(path, string(project), string(ceiling))
	return ceiling
}

func (n *narrower) scalars() {
	p, c := n.project, n.ceiling
	n.out.User = stricter(n, "user", p.User, c.User, UserAgent, UserRoot)
	n.out.Seccomp = stricter(n, "seccomp", p.Seccomp, c.Seccomp, SeccompStrict, SeccompDefault)
	switch {
	case c.Image.IsZero() || p.Image.equal(c.Image):
	case p.Image.IsZero():
		n.out.Image = c.Image
		n.lowered("image", "the default", c.Image.String())
	default:
		n.refuse("image", fmt.Sprintf("the ceiling allows %s alone", c.Image), "")
	}
	if c.Agent != "" && p.Agent != "" && p.Agent != c.Agent {
		n.refuse("agent", fmt.Sprintf("the ceiling allows %s alone", c.Agent), "")
	}
	n.agents()
}

// agents compares definitions: what the ceiling means by a name is not for the project to change.
func (n *narrower) agents() {
	n.out.Agents = slices.Clone(n.project.Agents)
	for _, own := range n.ceiling.Agents {
		at := slices.IndexFunc(n.project.Agents, func(a OwnAgent) bool { return a.Name == own.Name })
		switch {
		case at < 0:
			n.out.Agents = append(n.out.Agents, own)
		case !n.project.Agents[at].equal(own):
			n.refuse("agents."+own.Name, "the ceiling defines this agent otherwise", "choose another name")
		}
	}
	slices.SortFunc(n.out.Agents, func(a, b OwnAgent) int { return cmp.Compare(a.Name, b.Name) })
}

// String is the reference, or "build PATH", with "#STAGE" where one is named; and then "with AGENT, AGENT".
func (i Image) String() string {
	text := cmp.Or(i.Reference, "the default")
	if i.Build != "" {
		text = "build " + i.Build
	}
	if i.Target != "" {
		text += "#" + i.Target
	}
	if len(i.Agents) > 0 {
		text += " with " + strings.Join(i.Agents, ", ")
	}
	return text
}

func (n *narrower) workspace() {
	p, c := n.project.Workspace, n.ceiling.Workspace
	n.out.Workspace.Mode = n.mode(p.Mode, c.Mode)
	n.out.Workspace.Hide = n.hide(p.Hide, c.Hide)
	n.out.Workspace.Protect = Protect{Reject: both(p.Protect.Reject, c.Protect.Reject), Warn: both(p.Protect.Warn, c.Protect.Warn)}
}

// Within tells whether this mode lets an agent write no more than another does: nothing is written, something is written to a copy, the
// host's files are written.
func (m WorkspaceMode) Within(other WorkspaceMode) bool {
	step := map[WorkspaceMode]int{ModeReadonly: 1, ModeOverlay: 2, ModeCopy: 2, ModeAuto: 2, ModeBind: 3}
	return step[m] > 0 && step[m] <= step[other]
}

func (n *narrower) mode(project, ceiling WorkspaceMode) WorkspaceMode {
	if project.Within(ceiling) {
		return project
	}
	n.lowered("workspace.mode", string(project), string(ceiling))
	return ceiling
}

// hide gives a list that hides whatever one of the two hides. Both start with the defaults. Only negations that both
// have stay, and the ceiling's other patterns come last: what either list took in as its last match is then
// still taken in.
func (n *narrower) hide(project, ceiling []Pattern) []Pattern {
	defaults := len(DefaultHide())
	own := ceiling[defaults:]
	out := slices.Clone(project[:defaults])
	for i, p := range project[defaults:] {
		if p.Negated() && !slices.ContainsFunc(own, p.Equal) {
			n.lowered(fmt.Sprintf("workspace.hide[%d]", i), p.String(), "nothing")
			continue
		}
		out = append(out, p)
	}
	for _, p := range own {
		if !p.Negated() {
			out = append(out, p)
		}
	}
	return out
}

func both(a, b []Pattern) []Pattern {
	out := slices.Clone(a)
	for _, p := range b {
		if !slices.ContainsFunc(out, p.Equal) {
			out = append(out, p)
		}
	}
	return out
}

// lists are mounts, env and caches.
func (n *narrower) lists() {
	n.out.Mounts = slices.Clone(n.project.Mounts)
	for i, m := range n.out.Mounts {
		path := fmt.Sprintf("mounts[%d]", i)
		j := slices.IndexFunc(n.ceiling.Mounts, func(c Mount) bool { return m.Source == c.Source || strings.HasPrefix(m.Source, c.Source+"/") })
		switch {
		case j < 0:
			n.refuse(path, fmt.Sprintf("the ceiling does not allow %s to be mounted", m.Source), "")
		case n.ceiling.Mounts[j].ReadOnly && !m.ReadOnly:
			n.out.Mounts[i].ReadOnly = true
			n.narrowings = append(n.narrowings, Narrowing{
				Path: path, Place: n.project.Place(path), From: "writable", To: "read-only", Ceiling: n.ceiling.Place(fmt.Sprintf("mounts[%d]", j)),
			})
		}
	}
	for i, e := range n.project.Env {
		same := func(c EnvVar) bool { return c.FromHost && c.Name == e.Name }
		if e.FromHost && !slices.ContainsFunc(n.ceiling.Env, same) {
			n.refuse(fmt.Sprintf("env[%d]", i), fmt.Sprintf("the ceiling does not pass on %s", e.Name), "a value can be set: "+e.Name+"=value")
		}
	}
	for _, kind := range n.project.Caches {
		if !slices.Contains(n.ceiling.Caches, kind) {
			n.refuse("caches", fmt.Sprintf("the ceiling does not allow the cache %s", kind), "")
		}
	}
}

func (n *narrower) resources() {
	r, c := &n.out.Resources, n.ceiling.Resources
	smaller(n, "resources.cpus", &r.CPUs, c.CPUs, func(v float64) string { return fmt.Sprint(v) })
	smaller(n, "resources.pids", &r.PIDs, c.PIDs, func(v int64) string { return fmt.Sprint(v) })
	for _, b := range []struct {
		name    string
		value   *Bytes
		ceiling Bytes
	}{
		{"memory", &r.Memory, c.Memory},
		{"tmp", &r.Tmp, c.Tmp},
		{"run", &r.Run, c.Run},
		{"home", &r.Home, c.Home},
		{"shm", &r.Shm, c.Shm},
		{"disk", &r.Disk, c.Disk},
		{"output", &r.Output, c.Output},
	} {
		smaller(n, "resources."+b.name, b.value, b.ceiling, Bytes.String)
	}
	smaller(n, "resources.timeout", &r.Timeout, c.Timeout, FormatDuration)
	smaller(n, "resources.grace", &r.Grace, c.Grace, FormatDuration)
}

// smaller lowers a value to the ceiling's, if the ceiling's file sets one.
func smaller[T cmp.Ordered](n *narrower, path string, value *T, ceiling T, show func(T) string) {
	if n.sets(path) && *value > ceiling {
		n.lowered(path, show(*value), show(ceiling))
		*value = ceiling
	}
}

func (n *narrower) evidence() {
	e, c := &n.out.Evidence, n.ceiling.Evidence
	if c.Sign != "none" && c.Sign != "auto" && e.Sign != c.Sign || c.Sign == "auto" && e.Sign == "none" {
		n.lowered("evidence.sign", e.Sign, c.Sign)
		e.Sign = c.Sign
	}
	if n.sets("evidence.retain") && e.Retain < c.Retain {
		n.lowered("evidence.retain", FormatDuration(e.Retain), FormatDuration(c.Retain))
		e.Retain = c.Retain
	}
	if n.sets("evidence.include") && !slices.Equal(e.Include, c.Include) {
		n.lowered("evidence.include", strings.Join(e.Include, ", "), strings.Join(c.Include, ", "))
		e.Include = slices.Clone(c.Include)
	}
	if c.Attest && !e.Attest {
		n.lowered("evidence.attest", "false", "true")
		e.Attest = true
	}
}

// smallerLimit treats zero as no limit.
func smallerLimit[T Bytes | time.Duration](a, b T) T {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

func (l Limits) narrow(o Limits) Limits {
	return Limits{
		Upload:   smallerLimit(l.Upload, o.Upload),
		Download: smallerLimit(l.Download, o.Download),
		Idle:     smallerLimit(l.Idle, o.Idle),
		Connect:  smallerLimit(l.Connect, o.Connect),
	}
}
