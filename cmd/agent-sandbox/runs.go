package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

func (a *app) runsCommand() *cobra.Command {
	var limit int
	var asJSON bool
	c := &cobra.Command{
		Use:   "runs",
		Short: "List the runs, the newest first",
		Long: `runs lists the runs of all projects, the newest first. Wherever another command wants a
RUN, give the id, a prefix of it that no other run has, or "last": the newest run of all.
Where that is not of the project that one stands in, a line says so.`,
		Example: `  agent-sandbox runs
  agent-sandbox runs --limit 0 --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if limit < 0 {
				return usage("--limit: %d is negative", limit)
			}
			return a.listRuns(limit, asJSON)
		},
	}
	c.AddCommand(a.runsPruneCommand())
	c.Flags().IntVar(&limit, "limit", 20, "at most this many; 0 for all")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// listedRun is a run in `runs --json`: a contract, to which fields are only added.
type listedRun struct {
	ID       string                  `json:"id"`
	State    runs.State              `json:"state"`
	Outcome  event.Outcome           `json:"outcome"` // empty while it runs
	ExitCode int                     `json:"exit_code"`
	Started  time.Time               `json:"started"`
	Duration time.Duration           `json:"duration_ns"`
	Changes  *event.ChangesExtracted `json:"changes,omitempty"`
	Refused  uint64                  `json:"refused"`
	Project  string                  `json:"project,omitempty"`
	Argv     []string                `json:"argv"`
	Dir      string                  `json:"dir"`
}

func (a *app) listRuns(limit int, asJSON bool) error {
	store, err := a.store()
	if err != nil {
		return err
	}
	defer store.Close()
	all, err := store.List(0)
	if err != nil {
		return err
	}
	shown := all
	if limit > 0 && len(all) > limit {
		shown = all[:limit]
	}
	rows := []listedRun{}
	for _, r := range shown {
		row, err := a.listRun(r)
		if err != nil {
			// One damaged record must not hide the others.
			fmt.Fprintf(a.stderr, "agent-sandbox: run %s: %s\n", r.ID, printableLine(err.Error()))
			continue
		}
		rows = append(rows, row)
	}
	if asJSON {
		return a.answerJSON(rows)
	}
	if err := a.answer(func(w io.Writer) error { return a.printRuns(w, rows) }); err != nil {
		return err
	}
	if rest := len(all) - len(shown); rest > 0 {
		fmt.Fprintf(a.stderr, "agent-sandbox: %d older runs; --limit 0 lists all\n", rest)
	}
	return nil
}

func (a *app) listRun(r *runs.Run) (listedRun, error) {
	if _, err := a.settle(r); err != nil {
		return listedRun{}, err
	}
	state, err := r.State()
	if err != nil {
		return listedRun{}, err
	}
	s, err := r.Summary()
	if err != nil {
		return listedRun{}, err
	}
	row := listedRun{
		ID: string(r.ID), State: state, Outcome: s.Outcome, ExitCode: s.ExitCode, Started: s.Started, Duration: s.Duration,
		Changes: s.Changes, Refused: s.Counts.RefusedConnections + s.Counts.RefusedNames, Argv: []string{}, Dir: r.Dir(),
	}
	if s.Start != nil {
		row.Project, row.Argv = s.Start.Project, s.Start.Argv
	}
	return row, nil
}

// commandWidth bounds the command of a run in the table; `show` has all of it.
const commandWidth = 60

func (a *app) printRuns(out io.Writer, rows []listedRun) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "RUN\tSTARTED\tOUTCOME\tEXIT\tTIME\tCHANGES\tREFUSED\tCOMMAND")
	for _, r := range rows {
		outcome, exit := string(r.Outcome), fmt.Sprint(r.ExitCode)
		if r.Outcome == "" {
			outcome, exit = "running", "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", r.ID, r.Started.Local().Format("2006-01-02 15:04"),
			clip(outcome, 12), exit, event.Span(r.Duration), changesColumn(r.Changes), r.Refused, clip(commandLine(r.Argv), commandWidth))
	}
	return w.Flush()
}

// changesColumn is "+added ~modified -deleted", with renames and modes when there are some.
func changesColumn(c *event.ChangesExtracted) string {
	switch {
	case c == nil:
		return "-"
	case c.Total() == 0:
		return "none"
	}
	text := fmt.Sprintf("+%d ~%d -%d", c.Added, c.Modified, c.Deleted)
	if c.Renamed > 0 {
		text += fmt.Sprintf(" r%d", c.Renamed)
	}
	if c.Mode > 0 {
		text += fmt.Sprintf(" m%d", c.Mode)
	}
	return text
}

// commandOf is a run's command as people write it.
func commandOf(s event.Summary) string {
	if s.Start == nil {
		return ""
	}
	return commandLine(s.Start.Argv)
}

// commandLine puts quotes around the arguments that need them. It is to be read, not to be run.
func commandLine(argv []string) string {
	words := make([]string, len(argv))
	for i, arg := range argv {
		words[i] = event.Printable(arg)
		if arg == "" || strings.ContainsAny(arg, " \t\n\"'`$&|;<>()*?[]{}\\#~!") {
			words[i] = "'" + strings.ReplaceAll(words[i], "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
