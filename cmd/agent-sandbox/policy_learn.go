package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// learnFlags are the flags of `policy learn`.
type learnFlags struct {
	policy, image string
	caFiles       []string
	write, json   bool
}

func (a *app) policyLearnCommand() *cobra.Command {
	var f learnFlags
	c := &cobra.Command{
		Use:   "learn [RUN | -- COMMAND [ARG...]]",
		Short: "Propose what the policy lacks for a run, or for a command",
		Long: `learn looks at what a run was refused and prints the smallest addition to the policy that
would have let it through, as a diff against the present file. Comments in the file stay.

With a command it runs that first, in the sandbox, with every public host allowed but those
that the policy denies; the record says so. Local networks stay closed. The command's output
goes to stderr. Do this with a command that you trust: what it can read it can send anywhere.

A bundle is proposed where one has the host, the host itself otherwise, and a wildcard for more
than five names of one domain. What the policy denies stays denied. Nothing is proposed
for addresses and names of a local network, nor for other protocols than TCP: what is left out is
listed with the reason. Read the diff before you accept it: the run asked for these hosts, and
that is all it says about them.

Exit status: 0, also when there is nothing to add; that of the command, if one was run.`,
		Example: `  agent-sandbox policy learn
  agent-sandbox policy learn last --write
  agent-sandbox policy learn -- npm ci`,
		ValidArgsFunction: a.completeRuns(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			switch {
			case dash == 0:
				return a.learnByRunning(cmd.Context(), args, f)
			case len(args) > 1 || dash > 0:
				return usage("learn takes one run, or a command after --")
			}
			return a.withRun(append(args, "last")[0], func(r *runs.Run) error { return a.learn(cmd.Context(), r, f) })
		},
	}
	c.Flags().StringVar(&f.policy, "policy", "", "policy file, instead of the project's "+policyFile)
	c.Flags().BoolVar(&f.write, "write", false, "change the file, instead of printing a diff")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	c.Flags().StringVar(&f.image, "image", "", "image to run the command in, instead of the policy's")
	c.Flags().StringArrayVar(&f.caFiles, "ca-file", nil, "as of run, for the command")
	return c
}

// learnByRunning runs a command with everything public allowed, and learns from that run.
func (a *app) learnByRunning(ctx context.Context, argv []string, f learnFlags) error {
	cfg, err := a.settled(ctx, runFlags{policy: f.policy, image: f.image, caFiles: f.caFiles, command: true}, argv)
	if err != nil {
		return failure(err)
	}
	defer cfg.Store.Close()
	if cfg.Ceiling != nil {
		return usage("%s bounds every run, and learning would reach further\nhint: learn where no ceiling holds, or from a run that was refused something: policy learn RUN", ceilingVariable)
	}
	cfg.Learn = true
	cfg.Stdin, cfg.Stdout, cfg.Stderr = a.stdin, a.stderr, a.stderr
	result, err := a.execute(ctx, cfg, runFlags{})
	if err != nil {
		return failure(untold(result.Summary, err))
	}
	if err := a.withRun(result.Run, func(r *runs.Run) error { return a.learn(ctx, r, f) }); err != nil || result.ExitCode == 0 {
		return err
	}
	return &statusError{code: result.ExitCode}
}

// learnJSON is `policy learn --json`: a contract, to which fields are only added.
type learnJSON struct {
	Run  string         `json:"run"`
	File string         `json:"file"`
	Add  []additionJSON `json:"add"`
	Left []leftOutJSON  `json:"left"`
	Diff string         `json:"diff,omitempty"`
}

type additionJSON struct {
	Item     string   `json:"item"`
	Why      string   `json:"why,omitempty"`
	Requests []string `json:"requests"`
}

type leftOutJSON struct {
	Request string `json:"request"`
	Why     string `json:"why"`
}

func (a *app) learn(ctx context.Context, r *runs.Run, f learnFlags) error {
	summary, err := r.Summary()
	if err != nil {
		return err
	}
	file, project, err := a.policyToLearn(f.policy, summary)
	if err != nil {
		return err
	}
	src, err := readLimited(file, policy.MaxSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p, err := a.policyOf(file, src)
	if err != nil {
		return err
	}
	refused, left := refusedRequests(summary.Refused)
	for _, h := range summary.Hosts {
		// What the policy or an agent's kit allowed is no addition: a run with that agent has it again.
		if strings.Contains(h.Rule, policy.EverythingPublic) {
			refused = append(refused, policy.Request{Host: h.Host, Port: h.Port})
		}
	}
	reference, err := imageOf(runFlags{}, p, project)
	if err != nil {
		return err
	}
	cfg := runner.Config{Policy: p, Project: project, Image: reference}
	if summary.Plan != nil {
		cfg.Image = summary.Plan.Image.ID
	}
	found, err := a.discoverFor(ctx, cfg, policy.Bundles())
	if err != nil {
		return err
	}
	lesson := p.Learn(refused, found.Bundles...)
	out := newLearnJSON(string(r.ID), displayPath(file), lesson)
	out.Left = append(out.Left, left...)
	if n := unnamed(summary); n > 0 {
		fmt.Fprintf(a.stderr, "agent-sandbox: note: %d more refusals are counted, but not named in the result\n", n)
	}
	var text []byte
	if len(lesson.Add) > 0 {
		if text, err = addItems(out.File, src, lesson); err != nil {
			return err
		}
		out.Diff = unifiedDiff(out.File, string(src), string(text))
	}
	if f.write && text != nil {
		if err := replaceFile(file, text); err != nil {
			return err
		}
	}
	return a.answerLesson(out, f)
}

// unnamed counts the refusals that a summary does not list.
func unnamed(s event.Summary) uint64 {
	all := s.Counts.RefusedConnections + s.Counts.RefusedNames + s.Counts.RefusedRequests
	for _, r := range s.Refused {
		all -= min(all, r.Count)
	}
	return all
}

// policyToLearn is the file that is added to, and the project that the run was of.
func (a *app) policyToLearn(file string, s event.Summary) (string, string, error) {
	project := ""
	if s.Start != nil {
		project = s.Start.Project
	}
	if project == "" || !exists(project) {
		here, _, err := a.project("")
		if err != nil {
			return "", "", err
		}
		project = here
	}
	if file == "" {
		file = filepath.Join(project, policyFile)
	}
	return file, project, nil
}

// policyOf is the policy in src, or the default when there is none.
func (a *app) policyOf(file string, src []byte) (*policy.Policy, error) {
	if len(src) == 0 {
		return policy.Default(), nil
	}
	return policy.Load(displayPath(file), src)
}

func addItems(file string, src []byte, lesson policy.Lesson) ([]byte, error) {
	var items []string
	for _, add := range lesson.Add {
		items = append(items, add.Item)
	}
	text, err := policy.AddAllow(file, src, items)
	if errors.Is(err, policy.ErrNoPlace) {
		return nil, fmt.Errorf("%s: %w\nhint: add to network.allow yourself:\n  - %s", file, err, strings.Join(items, "\n  - "))
	}
	return text, err
}

// refusedRequests are the refusals that a policy could allow. The name of a look-up says nothing of the port, so that of HTTPS
// is taken.
func refusedRequests(refused []event.Refusal) (requests []policy.Request, left []leftOutJSON) {
	for _, r := range refused {
		host := r.Name
		if host == "" {
			host = r.Address
		}
		switch {
		case r.Proto == "tcp":
			requests = append(requests, policy.Request{Host: host, Port: r.Port})
		case r.Proto == "http":
			requests = append(requests, policy.Request{Host: host, Port: r.Port, Method: r.Method, Path: r.Path})
		case r.Proto == "dns" && slices.Contains([]string{"A", "AAAA", "HTTPS", "TYPE65"}, r.Type):
			requests = append(requests, policy.Request{Host: host, Port: 443})
		case r.Proto == "dns":
			left = append(left, leftOutJSON{host, fmt.Sprintf("a look-up of type %s is never answered", r.Type)})
		default:
			left = append(left, leftOutJSON{fmt.Sprintf("%s %s", r.Proto, policy.Request{Host: host, Port: r.Port}), "only TCP can leave the sandbox"})
		}
	}
	return requests, left
}

func newLearnJSON(run, file string, l policy.Lesson) learnJSON {
	out := learnJSON{Run: run, File: file, Add: []additionJSON{}, Left: []leftOutJSON{}}
	for _, add := range l.Add {
		one := additionJSON{Item: add.Item, Why: add.Why}
		for _, r := range add.Requests {
			one.Requests = append(one.Requests, r.String())
		}
		out.Add = append(out.Add, one)
	}
	for _, left := range l.Left {
		out.Left = append(out.Left, leftOutJSON{left.Request.String(), left.Why})
	}
	return out
}

// answerLesson prints the diff as the answer, and everything else beside it.
func (a *app) answerLesson(out learnJSON, f learnFlags) error {
	if f.json {
		return a.answerJSON(out)
	}
	for _, add := range out.Add {
		if add.Why != "" {
			fmt.Fprintf(a.stderr, "agent-sandbox: note: %s: %s\n", printableLine(add.Item), printableLine(add.Why))
		}
	}
	for _, left := range out.Left {
		fmt.Fprintf(a.stderr, "agent-sandbox: left out: %s: %s\n", printableLine(left.Request), printableLine(left.Why))
	}
	switch {
	case len(out.Add) == 0:
		fmt.Fprintf(a.stderr, "agent-sandbox: nothing to add for run %s\n", out.Run)
		return nil
	case f.write:
		fmt.Fprintf(a.stderr, "agent-sandbox: %s has %d more entries under network.allow\n", printableLine(out.File), len(out.Add))
		return nil
	}
	return a.answer(func(w io.Writer) error {
		_, err := io.WriteString(w, out.Diff)
		return err
	})
}

// unifiedDiff is the difference of two texts as one hunk, for patch(1). Additions lie together, so one is enough.
func unifiedDiff(file, before, after string) string {
	const context = 3
	old, changed := splitLines(before), splitLines(after)
	same := 0
	for same < min(len(old), len(changed)) && old[same] == changed[same] {
		same++
	}
	tail := 0
	for tail < min(len(old), len(changed))-same && old[len(old)-1-tail] == changed[len(changed)-1-tail] {
		tail++
	}
	from, to := max(0, same-context), min(context, tail)
	var b strings.Builder
	name := "a/" + filepath.ToSlash(file)
	start := from + 1
	if len(old) == 0 {
		name, start = "/dev/null", 0
	}
	fmt.Fprintf(&b, "--- %s\n+++ b/%s\n@@ -%d,%d +%d,%d @@\n", name, filepath.ToSlash(file),
		start, len(old)-tail+to-from, from+1, len(changed)-tail+to-from)
	write := func(sign string, lines []string) {
		for _, line := range lines {
			b.WriteString(sign + line)
			if !strings.HasSuffix(line, "\n") {
				b.WriteString("\n\\ No newline at end of file\n")
			}
		}
	}
	write(" ", old[from:same])
	write("-", old[same:len(old)-tail])
	write("+", changed[same:len(changed)-tail])
	write(" ", old[len(old)-tail:len(old)-tail+to])
	return b.String()
}

func splitLines(text string) []string {
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// replaceFile puts text in place of a file at once, with the file's mode.
func replaceFile(file string, text []byte) error {
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(file); err == nil {
		mode = info.Mode().Perm()
	}
	temp, err := os.CreateTemp(filepath.Dir(file), ".agent-sandbox-*")
	if err != nil {
		return err
	}
	_, err = temp.Write(text)
	if err = errors.Join(err, temp.Chmod(mode), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
