package actions

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/runner/event"
)

// maxRows bounds each list of the summary; the record has all.
const maxRows = 25

// Report is what the job's summary says about a run.
type Report struct {
	Summary  event.Summary
	Applied  string   // what became of the changes, for people; empty: nothing was done with them
	Files    string   // directory of the run's files, relative to the workspace
	Artifact Artifact // with the same files; no id: there is none
	URL      string   // of the artifact's page; empty: it has none
	Verify   []string // command lines that check the record
	Local    []string // command lines that do the same on one's own machine
}

// Markdown is the job's summary, for a reviewer. What comes from inside is in code, in which nothing but a backquote has a meaning, and
// that is taken out, or met with a longer fence: no link, image or HTML of an agent's gets onto the page.
func (r Report) Markdown() string {
	var b strings.Builder
	s := r.Summary
	fmt.Fprintf(&b, "### agent-sandbox: %s\n\n", escape(string(s.Outcome)))
	r.facts(&b)
	list(&b, "Reached", s.Hosts, hostRow)
	list(&b, "Refused", s.Refused, refusalRow)
	list(&b, "Protected paths that changed", s.Protected, func(p event.ProtectedTouched) string {
		return fmt.Sprintf("%s (%s): %s", Code(p.Path), Code(p.Tier), Code(p.Reason))
	})
	list(&b, "Rights", s.Credentials, rightRow)
	list(&b, "Taken out of the output", s.Redacted, func(x event.Redacted) string { return Code(x.Text()) })
	list(&b, "Protections that were lowered", s.Lowered, func(l event.Lowered) string { return Code(l.What) + ": " + Code(l.Why) })
	commands(&b, "To verify the record", r.Verify)
	commands(&b, "To do the same locally", r.Local)
	return b.String()
}

// facts is the table at the top.
func (r Report) facts(b *strings.Builder) {
	s := r.Summary
	b.WriteString("| | |\n|---|---|\n")
	row := func(name, value string) { fmt.Fprintf(b, "| %s | %s |\n", name, value) }
	if s.Start != nil {
		row("Ran", ran(*s.Start))
	}
	row("Verdict", fmt.Sprintf("%s, exit status %d after %s", escape(string(s.Outcome)), s.ExitCode, s.Duration.Round(100*time.Millisecond)))
	if s.Reason != "" {
		row("Reason", Code(s.Reason))
	}
	if c := s.Changes; c != nil {
		row("Changes", fmt.Sprintf("%d added, %d modified, %d deleted, %d renamed", c.Added, c.Modified, c.Deleted, c.Renamed))
	}
	if r.Applied != "" {
		row("Applied", Code(r.Applied))
	}
	refused := s.Counts.RefusedConnections + s.Counts.RefusedNames + s.Counts.RefusedRequests
	row("Network", fmt.Sprintf("%d allowed hosts tried, %d refusals", s.HostCount, refused))
	row("Rights", fmt.Sprintf("%d credentials", len(s.Credentials)))
	row("Run", Code(s.Run))
	if s.Start != nil && s.Start.Policy.Digest != "" {
		row("Policy", Code(s.Start.Policy.Digest))
	}
	if s.Plan != nil {
		row("Image", Code(s.Plan.Image.Reference)+" "+Code(s.Plan.Image.ID))
		row("Workspace", Code(s.Plan.Mode))
	}
	row("Record", record(s.Manifest))
	if r.Artifact.ID != 0 {
		link := Code(r.Artifact.Name)
		if r.URL != "" {
			link = "[" + link + "](" + r.URL + ")"
		}
		row("Artifact", link)
	}
	if r.Files != "" {
		row("Files", Code(r.Files)+" of the workspace")
	}
}

// ran is the command, or the agent: what a task says is not repeated here.
func ran(start event.RunStarted) string {
	switch {
	case start.Kit != "":
		return "the agent " + Code(start.Kit)
	case len(start.Argv) == 0:
		return "nothing"
	}
	return Code(strings.Join(start.Argv, " "))
}

// record says who answers for it.
func record(m *event.Manifest) string {
	if m == nil {
		return "none"
	}
	by := map[string]string{"keyless": "signed by the job", "key": "signed with a key"}[m.Signed]
	if by == "" {
		by = "**signed by nobody**: " + Code(cmp.Or(m.Detail, "no reason is known"))
	}
	return Code("sha256:"+m.SHA256) + ", " + by
}

func hostRow(h event.Host) string {
	text := fmt.Sprintf("%s: %d connections, %d bytes up, %d down", Code(fmt.Sprintf("%s:%d", h.Host, h.Port)), h.Connections, h.Up, h.Down)
	if h.Failed > 0 {
		text += fmt.Sprintf("; %d failed: %s", h.Failed, Code(h.Reason))
	}
	return text
}

func refusalRow(x event.Refusal) string {
	text := fmt.Sprintf("%s, %d times: %s", Code(Target(x)), x.Count, Code(cmp.Or(x.Reason, "the policy does not allow it")))
	if x.Add != "" {
		text += "; to allow it, add " + Code(x.Add) + " to `network.allow`"
	}
	return text
}

// rightRow is one credential: what it was for, and how it ended.
func rightRow(c event.CredentialState) string {
	text := Code(c.Name) + " from " + Code(c.Source)
	if g := c.Granted; g != nil {
		for _, r := range g.Repositories {
			text += ", " + Code(r.Name)
		}
		for _, name := range slices.Sorted(maps.Keys(g.Permissions)) {
			text += ", " + Code(name+": "+g.Permissions[name])
		}
	}
	if len(c.Hosts) > 0 {
		text += ", for " + Code(strings.Join(c.Hosts, " "))
	}
	if c.Used != nil {
		text += fmt.Sprintf(", used by %d requests", c.Used.Requests)
	}
	if c.Revoked != "" {
		text += ", revocation " + escape(string(c.Revoked))
	}
	return text
}

// maxCommands bounds a block of command lines, in bytes.
const maxCommands = 4 << 10

// commands is a block to copy from. Its fence is longer than any that is in it.
func commands(b *strings.Builder, title string, lines []string) {
	text := printableLines(strings.Join(lines, "\n"))
	if len(lines) == 0 || len(text) > maxCommands {
		return
	}
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	fmt.Fprintf(b, "\n**%s**\n\n%s\n%s\n%s\n", title, fence, text, fence)
}

func list[T any](b *strings.Builder, title string, all []T, text func(T) string) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(b, "\n**%s**\n\n", title)
	for _, x := range all[:min(len(all), maxRows)] {
		b.WriteString("- " + text(x) + "\n")
	}
	if rest := len(all) - maxRows; rest > 0 {
		fmt.Fprintf(b, "- and %d more\n", rest)
	}
}

// Target is what a refusal was of.
func Target(x event.Refusal) string {
	name := x.Name
	if name == "" {
		name = x.Address
	}
	if x.Port != 0 {
		name = fmt.Sprintf("%s:%d", name, x.Port)
	}
	if x.Method != "" {
		name = x.Method + " " + name + x.Path
	}
	return x.Proto + " " + name
}

// maxCode bounds a code span, in bytes.
const maxCode = 300

// Code is text as a code span, also in a table.
func Code(text string) string {
	text = event.Printable(text)
	if len(text) > maxCode {
		text = strings.ToValidUTF8(text[:maxCode], "") + "..."
	}
	// A backquote ends the span, and GitHub's tables are cut at bars before spans are found.
	text = strings.NewReplacer("`", "'", "|", "\u00a6").Replace(text)
	if strings.TrimSpace(text) == "" {
		return "(empty)"
	}
	return "`" + text + "`"
}

// escape is text outside of a code span.
func escape(text string) string {
	var b strings.Builder
	for _, r := range event.Printable(text) {
		if strings.ContainsRune("\\`*_{}[]<>()#+-.!|~&@:/", r) {
			fmt.Fprintf(&b, "&#%d;", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
