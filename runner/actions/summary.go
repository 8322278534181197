package actions

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/org/agent-sandbox/runner/event"
)

// maxRows bounds each list of the summary; the record has all.
const maxRows = 25

// Report is what the job's summary says about a run.
type Report struct {
	Summary event.Summary
	Applied string // what became of the changes, for people; empty: nothing was done with them
	Files   string // directory of the run's files, relative to the workspace
	Argv    string // to reproduce it locally
}

// Markdown is the job's summary. What comes from inside is in code spans, in which nothing but a backquote has a meaning, and
// that is taken out: no link, image or HTML of an agent's gets onto the page.
func (r Report) Markdown() string {
	s := r.Summary
	var b strings.Builder
	fmt.Fprintf(&b, "### agent-sandbox: %s\n\n", Escape(string(s.Outcome)))
	b.WriteString("| | |\n|---|---|\n")
	row := func(name, value string) { fmt.Fprintf(&b, "| %s | %s |\n", name, value) }
	row("Run", Code(s.Run))
	if s.Start != nil {
		row("Policy", Code(s.Start.Policy.Digest))
	}
	if s.Plan != nil {
		row("Image", Code(s.Plan.Image.Reference)+" "+Code(s.Plan.Image.ID))
		row("Workspace", Code(s.Plan.Mode))
	}
	row("Exit status", fmt.Sprint(s.ExitCode))
	if s.Reason != "" {
		row("Reason", Code(s.Reason))
	}
	if c := s.Changes; c != nil {
		row("Changes", fmt.Sprintf("%d added, %d modified, %d deleted, %d renamed", c.Added, c.Modified, c.Deleted, c.Renamed))
	}
	if r.Applied != "" {
		row("Applied", Code(r.Applied))
	}
	list(&b, "Reached", s.Hosts, func(h event.Host) string {
		return fmt.Sprintf("%s: %d connections", Code(h.Host), h.Connections)
	})
	list(&b, "Refused", s.Refused, func(x event.Refusal) string {
		return fmt.Sprintf("%s, %d times: %s", Code(Target(x)), x.Count, Code(cmp.Or(x.Reason, "the policy does not allow it")))
	})
	list(&b, "Protected paths that changed", s.Protected, func(p event.ProtectedTouched) string {
		return fmt.Sprintf("%s (%s): %s", Code(p.Path), Code(p.Tier), Code(p.Reason))
	})
	list(&b, "Protections that were lowered", s.Lowered, func(l event.Lowered) string { return Code(l.What) + ": " + Code(l.Why) })
	if r.Files != "" {
		fmt.Fprintf(&b, "\nThe patch and the record are in %s of the workspace.\n", Code(r.Files))
	}
	if r.Argv != "" {
		fmt.Fprintf(&b, "\nTo do the same locally: %s\n", Code(r.Argv))
	}
	return b.String()
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

// Escape is text outside of a code span.
func Escape(text string) string {
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
