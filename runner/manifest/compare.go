package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Comparison is one line of two runs side by side.
type Comparison struct {
	What   string `json:"what"`
	First  string `json:"first"`
	Second string `json:"second"`
	Same   bool   `json:"same"`
	// Varies: it is another in each run, and so no difference between them.
	Varies bool `json:"varies,omitempty"`
}

// Compare puts two runs side by side: what they ran in, what they reached, what they changed and how they ended.
func Compare(a, b Predicate) []Comparison {
	var all []Comparison
	add := func(what, first, second string) {
		all = append(all, Comparison{What: what, First: first, Second: second, Same: first == second})
	}
	add("command", a.Invocation.CommandSHA256, b.Invocation.CommandSHA256)
	add("commit", sourceText(a), sourceText(b))
	add("image", imageText(a), imageText(b))
	add("engine", engineText(a), engineText(b))
	add("runner", a.Environment.Runner.SHA256, b.Environment.Runner.SHA256)
	add("policy", a.Policy.Digest, b.Policy.Digest)
	add("isolation", isolationText(a), isolationText(b))
	add("hosts", hostsText(a), hostsText(b))
	add("refused", refusedText(a), refusedText(b))
	add("changes", changesText(a), changesText(b))
	add("patch", patchText(a), patchText(b))
	add("outcome", outcomeText(a), outcomeText(b))
	add("time", timeText(a), timeText(b))
	all[len(all)-1].Varies = true
	return all
}

func sourceText(p Predicate) string {
	if p.Source == nil {
		return "not known"
	}
	return strings.TrimSpace(p.Source.Commit + " " + p.Source.DirtySHA256)
}

func imageText(p Predicate) string {
	if p.Environment.Image == nil {
		return "not known"
	}
	return p.Environment.Image.ID
}

func engineText(p Predicate) string {
	e := p.Environment.Engine
	if e == nil {
		return "not known"
	}
	return fmt.Sprintf("%s, %s, kernel %s, %s", e.Version, e.Runtime, e.Kernel, e.Platform)
}

func isolationText(p Predicate) string {
	held := 0
	for _, probe := range p.Isolation.Probes {
		if probe.Held {
			held++
		}
	}
	text := fmt.Sprintf("verified %t, %d of %d probes held, %d lowered", p.Isolation.Verified, held, len(p.Isolation.Probes), p.Isolation.LoweredCount)
	if i := p.Isolation.Planned; i != nil {
		text += fmt.Sprintf(", user %s, seccomp %s, workspace %s", i.User, i.Seccomp, i.Workspace)
	}
	return text
}

func hostsText(p Predicate) string {
	var hosts []string
	for _, h := range p.Egress.Hosts {
		hosts = append(hosts, fmt.Sprintf("%s:%d", h.Host, h.Port))
	}
	return cmp.Or(strings.Join(hosts, " "), "none")
}

func refusedText(p Predicate) string {
	var targets []string
	for _, r := range p.Egress.Refused {
		targets = append(targets, strings.TrimSpace(fmt.Sprintf("%s:%s:%d %s", r.Proto, r.Host, r.Port, r.Path)))
	}
	return cmp.Or(strings.Join(slices.Compact(targets), " "), "none")
}

func changesText(p Predicate) string {
	w := p.Workspace
	if w == nil {
		return "not known"
	}
	return fmt.Sprintf("+%d ~%d -%d, %d renamed, %d mode, %d protected", w.Added, w.Modified, w.Deleted, w.Renamed, w.ModeOnly, w.ProtectedReject+w.ProtectedWarn)
}

func patchText(p Predicate) string {
	if p.Workspace == nil {
		return "not known"
	}
	return p.Workspace.PatchSHA256
}

func outcomeText(p Predicate) string {
	return fmt.Sprintf("%s, exit status %d", p.Outcome.Result, p.Outcome.ExitCode)
}

func timeText(p Predicate) string {
	return time.Duration(p.Outcome.DurationNS).Round(time.Millisecond).String()
}
