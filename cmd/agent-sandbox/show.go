package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

func (a *app) showCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show RUN",
		Short: "Show what a run was, did and tried",
		Long: `show tells everything about a run on one page: the command and where it ran, what the
sandbox measured of itself before the command started, which hosts it reached, what was
refused and what would allow it, what changed, and what needs a look before "apply".`,
		Example: `  agent-sandbox show last
  agent-sandbox show last --json | jq .summary.refused`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeRuns(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withRun(args[0], func(r *runs.Run) error { return a.showRun(r, asJSON) })
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the plan and the summary as JSON")
	return c
}

// shownRun is `show --json`: a contract, to which fields are only added.
type shownRun struct {
	ID      string          `json:"id"`
	State   runs.State      `json:"state"`
	Dir     string          `json:"dir"`
	Plan    json.RawMessage `json:"plan"` // null when the run ended before it had one
	Summary event.Summary   `json:"summary"`
}

func (a *app) showRun(r *runs.Run, asJSON bool) error {
	state, err := r.State()
	if err != nil {
		return err
	}
	s, err := r.Summary()
	if err != nil {
		return err
	}
	shown := shownRun{ID: string(r.ID), State: state, Dir: r.Dir(), Summary: s}
	if err := r.ReadJSON(runs.PlanFile, &shown.Plan); err != nil && !errors.Is(err, runs.ErrNotFound) {
		return err
	}
	if asJSON {
		return a.answerJSON(shown)
	}
	var p shownPlan
	if shown.Plan != nil {
		if err := json.Unmarshal(shown.Plan, &p); err != nil {
			return fmt.Errorf("read %s: %w", r.Path(runs.PlanFile), err)
		}
	}
	return a.answer(func(w io.Writer) error {
		page := newPage(painter(a.color(a.stdout)))
		page.run(r, shown, p)
		page.sandbox(s, p)
		page.measured(s.Measured)
		page.events(s)
		page.changes(r, s)
		page.files(r, s)
		_, err := io.WriteString(w, page.String())
		return err
	})
}

// shownPlan is what the page shows of plan.json.
type shownPlan struct {
	Dir   string            `json:"dir"`
	Agent struct{ UID int } `json:"agent"`
	Env   []struct{ Name, Source string }
	Image struct{ ID string }

	Container struct {
		Limits engine.Limits
		Mounts []struct {
			Source, Target string
			ReadOnly       bool `json:"read_only"`
		}
	}
	Workspace struct{ Mode, Target string }
	Seccomp   struct{ Profile string }
	Kit       struct{ Version, Credential string }
	Timeout   string
}

// page is a list of labelled lines in sections.
type page struct {
	strings.Builder
	paint painter
}

func newPage(p painter) *page { return &page{paint: p} }

func (p *page) section(title string) { fmt.Fprintf(p, "\n%s\n", p.paint.paint(bold, title)) }

// row writes a line. Everything in it is made safe to show.
func (p *page) row(label, format string, args ...any) {
	fmt.Fprintf(p, "  %s %s\n", p.paint.paint(dim, fmt.Sprintf("%-11s", label)), printableLine(fmt.Sprintf(format, args...)))
}

// rows writes a line for each of a list, and how many more there are in all.
func rows[T any](p *page, label string, list []T, total uint64, text func(T) string) {
	for _, x := range list {
		p.row(label, "%s", text(x))
	}
	if n := uint64(len(list)); total > n {
		p.row(label, "and %d more", total-n)
	}
}

func (p *page) run(r *runs.Run, shown shownRun, plan shownPlan) {
	s := shown.Summary
	fmt.Fprintf(p, "%s\n", p.paint.paint(bold, "run "+string(r.ID)))
	p.row("outcome", "%s, exit %d, after %s", outcomeOf(s), s.ExitCode, event.Span(s.Duration))
	if s.Reason != "" {
		p.row("reason", "%s", s.Reason)
	}
	p.row("started", "%s", s.Started.Local().Format(time.RFC3339))
	if s.Start == nil {
		return
	}
	fmt.Fprintf(p, "  %s %s\n", p.paint.paint(dim, fmt.Sprintf("%-11s", "command")), commandLine(s.Start.Argv))
	if s.Start.Kit != "" {
		p.row("agent", "%s", agentLine(s.Start.Kit, plan.Kit.Version, plan.Kit.Credential))
	}
	p.row("project", "%s", s.Start.Project)
	if plan.Dir != "" {
		p.row("directory", "%s, inside", plan.Dir)
	}
	p.row("policy", "%s (%s)", policyName(s.Start.Policy.Path), s.Start.Policy.Digest)
	if a := s.Agent; a != nil {
		p.row("ended", "%s", endText(*a))
	}
	var times []string
	for _, t := range s.Phases {
		times = append(times, fmt.Sprintf("%s %s", t.Name, event.Span(t.Duration)))
	}
	if len(times) > 0 {
		p.row("phases", "%s", strings.Join(times, ", "))
	}
}

// endText says why the agent's process ended, and what it used.
func endText(a event.AgentExited) string {
	text := string(a.Reason)
	if a.Signal != "" {
		text += " by " + a.Signal
	}
	if a.Error != "" {
		text += ": " + a.Error
	}
	if a.PeakMemory >= 0 {
		text += ", peak memory " + engine.ByteSize(a.PeakMemory)
	}
	if a.PeakPIDs > 0 {
		text += fmt.Sprintf(", at most %d processes and threads", a.PeakPIDs)
	}
	if a.CPUMicros >= 0 {
		text += ", CPU time " + event.Span(time.Duration(a.CPUMicros)*time.Microsecond)
	}
	return text
}

func (p *page) sandbox(s event.Summary, plan shownPlan) {
	if s.Plan == nil {
		return // it ended before it was planned
	}
	p.section("Sandbox")
	e := s.Plan.Engine
	p.row("image", "%s (%s)%s", s.Plan.Image.Reference, s.Plan.Image.ID, lockWord(s.Plan.Image.Locked, s.Plan.Image.Override))
	p.row("engine", "%s, API %s, runtime %s, kernel %s, %s, cgroup version %d", e.Version, e.API, e.Runtime, e.Kernel, e.Platform, e.Cgroup)
	if plan.Workspace.Mode == "" {
		return // plan.json is not there
	}
	p.row("workspace", "%s at %s", plan.Workspace.Mode, plan.Workspace.Target)
	l := plan.Container.Limits
	p.row("limits", "%s memory, %g CPUs, %d processes, %s", engine.ByteSize(l.Memory), l.CPUs, l.PIDs, plan.Timeout)
	p.row("seccomp", "%s", plan.Seccomp.Profile)
	for _, m := range plan.Container.Mounts[min(1, len(plan.Container.Mounts)):] {
		access := "read-write"
		if m.ReadOnly {
			access = "read-only"
		}
		p.row("mount", "%s at %s, %s", m.Source, m.Target, access)
	}
	var names []string
	for _, v := range plan.Env {
		names = append(names, v.Name)
	}
	p.row("environment", "%s", strings.Join(names, " "))
}

// measured is what the guest read from the kernel, in words.
func (p *page) measured(m *event.GuestMeasured) {
	if m == nil {
		return
	}
	p.section("Measured inside, before the command started")
	p.row("agent", "uid %d, gid %d, effective capabilities %s, bounding set %s", m.Agent.UID[1], m.Agent.GID[1], m.Agent.CapEff, m.Agent.CapBnd)
	p.row("filter", "no_new_privs %v, seccomp %s", m.Agent.NoNewPrivs, [...]string{"off", "strict", "filter"}[min(max(m.Agent.Seccomp, 0), 2)])
	if m.Network.Listeners {
		p.row("network", "interfaces %s; not captured: allowed names lead to listeners, all else fails unrecorded", strings.Join(m.Interfaces, " "))
	} else {
		p.row("network", "interfaces %s; TCP captured %v, IPv6 %v, datagrams reported %v", strings.Join(m.Interfaces, " "), m.Network.TCP, m.Network.IPv6, m.Network.Datagrams)
	}
	p.row("cgroup", "version %d, memory %s, processes %s", m.Cgroup.Version, limitText(m.Cgroup.MemoryBytes, engine.ByteSize),
		limitText(m.Cgroup.PIDs, func(n int64) string { return fmt.Sprint(n) }))
	p.row("mounts", "%d", m.Mounts)
}

// limitText: -1 is no limit and 0 one that can't be seen.
func limitText(n int64, text func(int64) string) string {
	switch n {
	case -1:
		return "no limit"
	case 0:
		return "not visible"
	}
	return text(n)
}

func (p *page) events(s event.Summary) {
	p.network(s)
	p.section("What happened")
	n := s.Counts.RefusedConnections + s.Counts.RefusedNames + s.Counts.RefusedRequests
	if n == 0 && s.Counts == (event.Counts{}) && len(s.Truncated) == 0 && len(s.Redacted) == 0 {
		p.row("", "nothing was refused, lowered or warned of")
	}
	if n > 0 {
		p.row("refused", "%s, %s, %s", plural(s.Counts.RefusedConnections, "connection"), plural(s.Counts.RefusedNames, "lookup"), plural(s.Counts.RefusedRequests, "request"))
	}
	refused := event.PerName(s.Refused)
	rows(p, "refused", refused, uint64(len(refused)), refusalText)
	rows(p, "leak", s.Leaks, uint64(len(s.Leaks)), func(l event.Leak) string {
		return fmt.Sprintf("the placeholder of %s was on its way to %s, %d times; it was refused", l.Credential, l.Host, l.Count)
	})
	rows(p, "lowered", s.Lowered, s.Counts.Lowered, func(l event.Lowered) string { return withMend(l.What+": "+l.Why, l.Mend) })
	rows(p, "warning", s.Warnings, s.Counts.Warnings, func(w event.Warning) string { return withMend(w.Message, w.Mend) })
	rows(p, "redacted", s.Redacted, uint64(len(s.Redacted)), event.Redacted.Text)
	rows(p, "truncated", s.Truncated, uint64(len(s.Truncated)), func(t event.OutputTruncated) string {
		return fmt.Sprintf("%s: the log has %s of %s", t.Stream, engine.ByteSize(t.Limit), engine.ByteSize(t.Bytes))
	})
	rows(p, "dropped", s.Dropped, uint64(len(s.Dropped)), func(d event.EventsDropped) string {
		return fmt.Sprintf("%d events of kind %s", d.Count, d.Dropped)
	})
	if l := s.Log; l != nil && l.State != event.LogComplete {
		p.row("log", "%s: %s", l.State, l.Detail)
	}
}

// network is what was reached, and what the policy lacks for the rest.
func (p *page) network(s event.Summary) {
	items := s.Additions()
	if s.HostCount == 0 && len(items) == 0 {
		return
	}
	p.section("Network")
	if s.HostCount > 0 {
		n := s.Counts
		p.row("connections", "%d made, %d failed; %s up, %s down", n.AllowedConnections, n.FailedConnections, engine.ByteSize(n.Up), engine.ByteSize(n.Down))
	}
	rows(p, "host", s.Hosts, uint64(s.HostCount), hostText)
	for i, item := range items {
		label := "to allow"
		if i > 0 {
			label = ""
		}
		p.row(label, "- %s", item)
	}
}

// hostText is what went to a host, and by which rule.
func hostText(h event.Host) string {
	text := fmt.Sprintf("%s port %d", h.Host, h.Port)
	if h.Connections > 0 {
		text += fmt.Sprintf(": %s, %s up, %s down", plural(int(min(h.Connections, math.MaxInt32)), "connection"), engine.ByteSize(h.Up), engine.ByteSize(h.Down))
	}
	if h.Requests > 0 {
		text += ", " + plural(int(min(h.Requests, math.MaxInt32)), "request")
	}
	if h.Failed > 0 {
		text += fmt.Sprintf(", %d failed (%s)", h.Failed, h.Reason)
	}
	if h.Via != "" {
		text += ", through " + h.Via
	}
	if h.Rule != "" {
		text += ", by the rule " + h.Rule
	}
	return text
}

func refusalText(r event.Refusal) string {
	var text string
	switch {
	case r.Proto == "dns":
		text = "name " + r.Name
		if r.Type != "A" && r.Type != "AAAA" {
			text += " " + r.Type
		}
	case r.Proto == "http":
		text = fmt.Sprintf("request %s %s port %d %s", r.Method, r.Name, r.Port, r.Path)
	case r.Port == 0:
		text = fmt.Sprintf("%s %s", r.Proto, r.Address)
	default:
		text = fmt.Sprintf("%s %s port %d", r.Proto, r.Address, r.Port)
	}
	if r.Proto != "dns" && r.Proto != "http" && r.Name != "" {
		text += " (" + r.Name + ")"
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	if r.Count > 1 {
		text += fmt.Sprintf(", %d times", r.Count)
	}
	return text
}

func withMend(text, mend string) string {
	if mend == "" {
		return text
	}
	return text + " (" + mend + ")"
}

func (p *page) changes(r *runs.Run, s event.Summary) {
	p.section("Changes")
	c := s.Changes
	switch {
	case c == nil:
		p.row("", "not known: the run ended before they were read")
		if runner.Unread(r) {
			p.row("recover", "agent-sandbox doctor --clean")
		}
		return
	case c.Total() == 0:
		p.row("", "none")
		return
	}
	p.row("files", "%s, %s of new contents", changesColumn(c), engine.ByteSize(c.Bytes))
	if rec := s.Recovered; rec != nil {
		p.row("recovered", "another process read them on %s: the runner had died, or no room for them", rec.Time.Local().Format(time.RFC3339))
	}
	rows(p, "protected", s.Protected, s.Counts.Protected, func(t event.ProtectedTouched) string {
		return fmt.Sprintf("%s (%s: %s)", t.Path, t.Tier, t.Reason)
	})
	cs, err := workspace.Load(r.Dir())
	if c.Git > 0 {
		text := plural(c.Git, "change") + " inside .git, which diff and apply leave out"
		if err == nil && cs.Committed() {
			text += "; `apply --commits --branch NAME` fetches the agent's commits"
		}
		p.row("git", "%s", text)
	}
	if err != nil {
		p.row("", "the change set is not there any more")
		return
	}
	p.row("review", "agent-sandbox diff %s", r.ID)
	p.row("accept", "agent-sandbox apply %s", r.ID)
}

func (p *page) files(r *runs.Run, s event.Summary) {
	p.section("Files")
	p.row("record", "%s", r.Dir())
	p.row("size", "%s", engine.ByteSize(r.Size()))
	if m := s.Manifest; m != nil {
		signed := "signed: " + m.Signed
		if m.Signed == "none" {
			signed = "not signed"
		}
		p.row("manifest", "%s, sha256 %s; agent-sandbox manifest show %s", signed, m.SHA256, r.ID)
	}
}
