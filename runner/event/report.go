package event

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// How much of a summary fits a screen; `show` has the rest.
const (
	reportTargets = 3
	reportLines   = 5
	reportWidth   = 120
)

// Report is the summary for a person: one line of verdict and, below it, only what
// deserves attention and where to look. It ends with a newline. It is plain text;
// color adds ANSI colours. Everything in it is printable, whatever the sandbox said.
func (s Summary) Report(color bool) string {
	r := report{color: color}
	r.where(s)
	return s.Verdict(color) + r.b.String()
}

// Verdict is Report without the commands that look at the run, for readers who are not where its record is.
func (s Summary) Verdict(color bool) string {
	r := report{color: color}
	r.printf("agent-sandbox: %s", s.headline(color))
	if s.Reason != "" && s.Outcome != Success {
		r.line("reason", clip(s.Reason, 4*reportWidth))
	}
	r.hosts(s)
	r.refusals(s)
	section(&r, "leak", s.Leaks, uint64(len(s.Leaks)), leakText)
	r.additions(s)
	section(&r, "protected", s.Protected, s.Counts.Protected, protectedText)
	section(&r, "redacted", s.Redacted, uint64(len(s.Redacted)), Redacted.Text)
	section(&r, "truncated", s.Truncated, uint64(len(s.Truncated)), truncatedText)
	section(&r, "lowered", s.Lowered, s.Counts.Lowered, loweredText)
	section(&r, "warning", s.Warnings, s.Counts.Warnings, warningText)
	section(&r, "dropped", s.Dropped, uint64(len(s.Dropped)), droppedText)
	return r.b.String()
}

type report struct {
	b     strings.Builder
	color bool
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(&r.b, format+"\n", args...) }

func (r *report) line(label, text string) {
	r.printf("  %s %s", tint(fmt.Sprintf("%-9s", label), labelColor(label), r.color), text)
}

func section[T any](r *report, label string, list []T, total uint64, text func(T) string) {
	n := min(len(list), reportLines)
	for _, x := range list[:n] {
		r.line(label, text(x))
	}
	if rest := total - min(total, uint64(n)); rest > 0 {
		r.line(label, fmt.Sprintf("and %d more", rest))
	}
}

func (r *report) refusals(s Summary) {
	refused := PerName(s.Refused)
	n := min(len(refused), reportTargets)
	if n == 0 {
		return
	}
	var parts []string
	var shown uint64
	for _, x := range refused[:n] {
		parts = append(parts, refusalText(x))
		shown += x.Count
	}
	text := strings.Join(parts, ", ")
	if rest := s.refusedTotal() - min(shown, s.refusedTotal()); rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	r.line("refused", text)
}

// PerName makes one of the two questions that programs ask about a name.
func PerName(list []Refusal) []Refusal {
	var out []Refusal
	at := map[string]int{}
	for _, x := range list {
		if x.Proto == protoDNS && (x.Type == "A" || x.Type == "AAAA") {
			if i, seen := at[x.Name]; seen {
				out[i].Count += x.Count
				continue
			}
			at[x.Name] = len(out)
		}
		out = append(out, x)
	}
	return out
}

// hosts has a line for each host that was reached, or should have been.
func (r *report) hosts(s Summary) {
	n := min(len(s.Hosts), reportLines)
	for _, h := range s.Hosts[:n] {
		label := "reached"
		if h.Connections == 0 {
			label = "failed"
		}
		r.line(label, hostText(h))
	}
	if rest := s.HostCount - n; rest > 0 {
		r.line("reached", fmt.Sprintf("and %d more", rest))
	}
}

// additions are ready to be pasted.
func (r *report) additions(s Summary) {
	items := s.Additions()
	if len(items) == 0 {
		return
	}
	r.line("to allow", "add to network.allow of the policy what you agree to:")
	for _, item := range items[:min(len(items), reportLines)] {
		r.printf("      - %s", clip(item, maxItem))
	}
	if rest := len(items) - reportLines; rest > 0 {
		r.printf("      and %d more: agent-sandbox show %s", rest, Printable(s.Run))
	}
}

// Additions are the items for network.allow of the policy that would allow what is listed as refused, the most wanted first.
func (s Summary) Additions() []string {
	var items []string
	seen := map[string]bool{"": true}
	for _, x := range s.Refused {
		if !seen[x.Add] {
			seen[x.Add] = true
			items = append(items, x.Add)
		}
	}
	return items
}

func (r *report) where(s Summary) {
	id := Printable(s.Run)
	switch {
	case s.Changes != nil && s.Changes.Total() > 0:
		r.line("review", "agent-sandbox diff "+id)
		r.line("accept", "agent-sandbox apply "+id)
	case s.Outcome != Success || s.refusedTotal() > 0:
		r.line("details", "agent-sandbox show "+id)
	}
}

func (s Summary) refusedTotal() uint64 {
	return s.Counts.RefusedConnections + s.Counts.RefusedNames + s.Counts.RefusedRequests
}

func (s Summary) headline(color bool) string {
	parts := []string{tint(s.verdict(), s.verdictColor(), color) + " after " + Span(s.Duration)}
	if c := s.changesText(); c != "" {
		parts = append(parts, c)
	}
	if n := s.refusedTotal(); n > 0 {
		parts = append(parts, fmt.Sprintf("%d refused", n))
	}
	return strings.Join(parts, ", ")
}

func (s Summary) verdict() string {
	status := fmt.Sprintf("exit %d", s.ExitCode)
	switch s.Outcome {
	case Success:
		return status
	case Failure:
		if s.Agent != nil && s.Agent.Signal != "" {
			return fmt.Sprintf("killed by %s (%s)", clip(s.Agent.Signal, 20), status)
		}
		return status
	case Timeout:
		return "timed out (" + status + ")"
	case OOM:
		return "out of memory (" + status + ")"
	case Cancelled, Refused:
		return string(s.Outcome) + " (" + status + ")"
	case Errored:
		return "failed (" + status + ")"
	case Interrupted:
		return "interrupted"
	case "":
		return "running"
	}
	return clip(string(s.Outcome), 20) + " (" + status + ")"
}

func (s Summary) changesText() string {
	if s.Changes == nil {
		return ""
	}
	c := s.Changes
	if c.Total() == 0 {
		return "no changes"
	}
	text := fmt.Sprintf("changes +%d ~%d -%d", c.Added, c.Modified, c.Deleted)
	if c.Renamed > 0 {
		text += fmt.Sprintf(", %d renamed", c.Renamed)
	}
	if c.Mode > 0 {
		text += fmt.Sprintf(", %d mode", c.Mode)
	}
	return text
}

func connectionRefusal(e ConnectionRefused) Refusal {
	return Refusal{Proto: e.Proto, Address: e.Address, Port: e.Port, Name: e.Name, Reason: e.Reason, Add: e.Add, Leak: e.Leak, Count: e.Count}
}

func nameRefusal(e NameRefused) Refusal {
	return Refusal{Proto: protoDNS, Name: e.Name, Type: e.Type, Add: e.Add, Count: e.Count}
}

// hostText: "example.org:443, 3 connections, 1.0 KiB up, 2.0 MiB down".
func hostText(h Host) string {
	text := clip(net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))), reportWidth/2)
	if h.Connections > 0 {
		text += fmt.Sprintf(", %s, %s up, %s down", counted(h.Connections, "connection"), size(h.Up), size(h.Down))
	}
	if h.Requests > 0 {
		text += ", " + counted(h.Requests, "request")
	}
	if h.Failed > 0 {
		text += fmt.Sprintf(", %d failed (%s)", h.Failed, clip(h.Reason, reportWidth/2))
	}
	return text
}

func counted(n uint64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// refusalText: "example.org:443", "8.8.8.8:53/udp", "name example.org" (A), with "x12" when repeated.
func refusalText(r Refusal) string {
	host := cmp.Or(r.Name, r.Address)
	text := ""
	switch {
	case r.Proto == protoDNS:
		text = "name " + clip(r.Name, reportWidth/2)
		if r.Type != "" && r.Type != "A" && r.Type != "AAAA" {
			text += " " + clip(r.Type, 12)
		}
	case r.Proto == protoHTTP && r.Method != "":
		text = clip(r.Method, 12) + " " + clip(host+r.Path, reportWidth/2)
	case r.Port == 0:
		text = clip(host, reportWidth/2) + "/" + clip(r.Proto, 8)
	default:
		text = clip(net.JoinHostPort(host, strconv.Itoa(int(r.Port))), reportWidth/2)
		if r.Proto != "tcp" {
			text += "/" + clip(r.Proto, 8)
		}
	}
	if r.Reason != "" {
		text += " (" + clip(r.Reason, 40) + ")"
	}
	if r.Count > 1 {
		text += fmt.Sprintf(" x%d", r.Count)
	}
	return text
}

func protectedText(p ProtectedTouched) string {
	return fmt.Sprintf("%s (%s: %s)", clip(p.Path, reportWidth), clip(p.Tier, 8), clip(p.Reason, reportWidth))
}

func truncatedText(t OutputTruncated) string {
	return fmt.Sprintf("%s after %s of %s", clip(t.Stream, 8), size(t.Limit), size(t.Bytes))
}

func loweredText(l Lowered) string { return withMend(l.What+": "+l.Why, l.Mend) }

func warningText(w Warning) string { return withMend(w.Message, w.Mend) }

func droppedText(d EventsDropped) string {
	return fmt.Sprintf("%d events of kind %s", d.Count, clip(d.Dropped, 40))
}

func withMend(text, mend string) string {
	text = clip(text, 4*reportWidth)
	if mend != "" {
		text += " (" + clip(mend, 2*reportWidth) + ")"
	}
	return text
}

// Span shows a duration with about three digits, for people.
func Span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
)

func (s Summary) verdictColor() string {
	if s.Outcome == Success {
		return green
	}
	return red
}

func labelColor(label string) string {
	switch label {
	case "refused", "failed", "protected", "lowered", "warning", "truncated", "dropped", "redacted":
		return yellow
	}
	return dim
}

func tint(text, code string, color bool) string {
	if !color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
