package manifest

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Section is a part of a manifest's page.
type Section struct {
	Title string
	Rows  []Row
}

// Row is a labelled line. Its text is not made safe to show: see [github.com/org/agent-sandbox/runner/event.Printable].
type Row struct {
	Label string
	Text  string
}

func (s *Section) row(label, format string, args ...any) {
	s.Rows = append(s.Rows, Row{label, fmt.Sprintf(format, args...)})
}

// Verdict is one line for somebody who reads nothing else; good tells whether there is nothing to look at.
func Verdict(p Predicate) (line string, good bool) {
	var look []string
	add := func(is bool, text string) {
		if is {
			look = append(look, text)
		}
	}
	refused := p.Egress.RefusedConnections + p.Egress.RefusedNames + p.Egress.RefusedRequests
	add(p.Outcome.Partial, "the record ends before the run did")
	add(len(p.Policy.Problems) > 0, "the policy was refused")
	add(p.Isolation.LoweredCount > 0, count(p.Isolation.LoweredCount, "lowered protection"))
	add(len(p.Egress.Leaks) > 0, "a credential was on its way to where it does not belong, and was refused")
	add(refused > 0, count(refused, "refused attempt")+" to leave")
	add(p.Workspace != nil && p.Workspace.ProtectedReject > 0, "changes to paths that run code elsewhere")
	add(p.Events.State != "complete", "the audit log is "+p.Events.State)
	for _, c := range p.Credentials {
		add(c.Revocation == "failed", "the credential "+c.Name+" could not be revoked")
		add(c.Age != nil && c.Age.State == "overdue", "the credential "+c.Name+" was older than the policy wants")
	}
	line = "outcome: " + p.Outcome.Result
	if p.Isolation.Verified {
		line += "; the sandbox was as planned"
	}
	if len(look) > 0 {
		line += "; look at: " + strings.Join(look, ", ")
	}
	return line, len(look) == 0 && p.Outcome.Result == "success"
}

func count[N int | uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// Sections are the page of a manifest, for a terminal or for [Markdown].
func Sections(f File) []Section {
	p := f.Statement.Predicate
	all := []Section{ran(p), where(p), rights(p), touched(p), evidence(f)}
	return slices.DeleteFunc(all, func(s Section) bool { return len(s.Rows) == 0 })
}

func ran(p Predicate) Section {
	s := Section{Title: "What ran"}
	i := p.Invocation
	s.row("command", "%s", strings.Join(i.Command, " "))
	if i.Agent != "" {
		s.row("agent", "%s", strings.TrimSpace(i.Agent+" "+i.AgentVersion))
	}
	if i.TaskSHA256 != "" {
		s.row("task", "sha256 %s", i.TaskSHA256)
	}
	who := strings.TrimSpace(i.Actor + ", " + i.Trigger)
	s.row("started by", "%s", strings.TrimPrefix(who, ", "))
	if i.RunURL != "" {
		s.row("job", "%s", i.RunURL)
	}
	s.row("started", "%s, took %s", p.Outcome.Started.Format(time.RFC3339), time.Duration(p.Outcome.DurationNS).Round(time.Millisecond))
	s.row("ended", "%s, exit status %d", p.Outcome.Result, p.Outcome.ExitCode)
	if p.Outcome.Reason != "" {
		s.row("reason", "%s", p.Outcome.Reason)
	}
	return s
}

func where(p Predicate) Section {
	s := Section{Title: "Where"}
	if src := p.Source; src != nil {
		for _, r := range src.Repositories {
			s.row("repository", "%s", r.URL)
		}
		switch {
		case src.Commit == "":
			s.row("commit", "none: the project %s is no git repository, or has no commit", p.Invocation.Project)
		case src.Dirty == nil:
			s.row("commit", "%s %s; nobody could tell whether files differed", src.Commit, src.Ref)
		case *src.Dirty:
			s.row("commit", "%s %s, and %s that differed", src.Commit, src.Ref, count(src.DirtyFiles, "file"))
		default:
			s.row("commit", "%s %s", src.Commit, src.Ref)
		}
	}
	if i := p.Environment.Image; i != nil {
		s.row("image", "%s (%s), %s", i.Reference, cmp.Or(i.Digest, i.ID), i.Lock)
	}
	if e := p.Environment.Engine; e != nil {
		s.row("engine", "%s, %s, kernel %s, %s", e.Version, e.Runtime, e.Kernel, e.Platform)
	}
	s.row("runner", "%s, sha256 %s", p.Environment.Runner.Version, cmp.Or(p.Environment.Runner.SHA256, "not known"))
	return s
}

func rights(p Predicate) Section {
	s := Section{Title: "With which rights"}
	s.row("policy", "%s (%s)", cmp.Or(p.Policy.Path, p.Policy.Origin), cmp.Or(p.Policy.Digest, "not loaded"))
	if p.Policy.CeilingDigest != "" {
		s.row("ceiling", "%s", p.Policy.CeilingDigest)
	}
	for _, problem := range p.Policy.Problems {
		s.row("refused", "%s", problem)
	}
	if i := p.Isolation.Planned; i != nil {
		s.row("isolation", "user %s (%d), network %s, seccomp %s, workspace %s", i.User, i.UID, i.Network, i.Seccomp, i.Workspace)
		for _, c := range i.Caches {
			state := "as an earlier run left it"
			if c.New {
				state = "new"
			}
			s.row("cache", "%s at %s, %s", c.Kind, c.Target, state)
		}
	}
	held := 0
	for _, probe := range p.Isolation.Probes {
		if probe.Held {
			held++
		} else {
			s.row("probe", "did not hold: %s: %s", probe.Name, probe.Detail)
		}
	}
	if len(p.Isolation.Probes) > 0 {
		s.row("probes", "%d of %d held, before the agent existed", held, len(p.Isolation.Probes))
	}
	for _, l := range p.Isolation.Lowered {
		s.row("lowered", "%s: %s", l.What, l.Why)
	}
	if l := p.Resources; l.MemoryLimit > 0 {
		s.row("limits", "%d MiB memory, %g CPUs, %d processes, %s", l.MemoryLimit>>20, l.CPULimit, l.PIDsLimit, time.Duration(p.Invocation.TimeoutNS))
	}
	for _, c := range p.Credentials {
		text := fmt.Sprintf("%s from %s, delivered by %s, %s", c.Name, c.Source, c.Deliver, count(c.Requests, "request"))
		if c.Granted != nil {
			text += ", granted " + permissions(c.Granted.Permissions)
		}
		if c.Revocation != "" {
			text += ", revocation " + c.Revocation
		}
		if c.Age != nil {
			text += ", age " + c.Age.State
		}
		s.row("credential", "%s", text)
	}
	return s
}

func permissions(m map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, name+":"+m[name])
	}
	return cmp.Or(strings.Join(all, " "), "nothing")
}

func touched(p Predicate) Section {
	s := Section{Title: "What it touched"}
	e := p.Egress
	s.row("network", "%s, %s, %d bytes out, %d in", count(e.Connections, "connection"), count(e.HostCount, "host"), e.Up, e.Down)
	for _, h := range e.Hosts {
		s.row("reached", "%s:%d, %d bytes out, %d in, by %s", h.Host, h.Port, h.Up, h.Down, h.Rule)
	}
	for _, r := range e.Refused {
		s.row("refused", "%s %s%s, %s", strings.TrimSpace(r.Proto+" "+r.Method), r.Host, r.Path, count(r.Count, "time"))
	}
	for _, l := range e.Leaks {
		s.row("leak", "%s on its way to %s, refused, %s", l.Credential, l.Host, count(l.Count, "time"))
	}
	if w := p.Workspace; w != nil {
		s.row("changes", "%d added, %d modified, %d deleted, %d renamed, %d mode", w.Added, w.Modified, w.Deleted, w.Renamed, w.ModeOnly)
		if w.Recovered != nil {
			s.row("recovered", "another process read them on %s: the runner had died, or no room for them", w.Recovered.Format(time.RFC3339))
		}
		if w.Tree != "" {
			s.row("git tree", "%s", w.Tree)
		}
		for _, o := range w.Outputs {
			s.row("output", "%s: %s, %s", o.Name, o.Path, cmp.Or(o.SHA256, "not there"))
		}
		for _, c := range w.Protected {
			s.row("protected", "%s (%s: %s)", c.Path, c.Tier, c.Reason)
		}
	}
	return s
}

func evidence(f File) Section {
	p := f.Statement.Predicate
	s := Section{Title: "Evidence"}
	if f.Mode == None {
		s.row("signature", "NONE: whoever could write the file could change it")
		if f.Why != "" {
			s.row("unsigned", "%s", f.Why)
		}
	} else {
		s.row("signature", "%s; not checked here", f.Mode)
	}
	for _, sub := range f.Statement.Subject {
		for _, algorithm := range slices.Sorted(maps.Keys(sub.Digest)) {
			s.row("subject", "%s %s %s", sub.Name, algorithm, sub.Digest[algorithm])
		}
	}
	s.row("audit log", "%s, %s, head %s", p.Events.State, count(p.Events.Count, "event"), p.Events.Head)
	for _, l := range p.Logs {
		s.row("log", "%s, %d bytes, sha256 %s", l.Stream, l.Bytes, l.SHA256)
	}
	for _, m := range p.Missing {
		s.row("missing", "%s: %s", m.Field, m.Why)
	}
	if len(p.Clipped) > 0 {
		s.row("shortened", "%s", strings.Join(p.Clipped, " "))
	}
	return s
}

// Markdown writes the page for a pull request or a report. Nothing of a run's texts becomes markup.
func Markdown(w io.Writer, f File) error {
	verdict, _ := Verdict(f.Statement.Predicate)
	var b strings.Builder
	fmt.Fprintf(&b, "# Run %s\n\n%s\n", literal(f.Statement.Predicate.Run), literal(verdict))
	for _, s := range Sections(f) {
		fmt.Fprintf(&b, "\n## %s\n\n| | |\n|---|---|\n", s.Title)
		for _, r := range s.Rows {
			fmt.Fprintf(&b, "| %s | %s |\n", r.Label, literal(r.Text))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
