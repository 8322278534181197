package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

func (a *app) doctorCommand() *cobra.Command {
	var f doctorFlags
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say whether runs can work here, and clean up after dead ones",
		Long: `doctor looks at everything that a run of this project needs: the engine and what its kernel
can do, the image, the state directory, git. It tells what would be lowered, why, and how to
mend it.

--clean removes what runs left whose runner died: their containers and volumes, the layers in
their state, and an apply that stopped half-way. Such a run keeps its record, with the outcome
"interrupted". What its agent had changed by then is read first, for "diff" and "apply", and so
are the changes of a run for which the disk had no room; what can't be read stays where it is,
until "discard" throws it away. What belongs to a live run is left alone, and so is the container of a run that
is not in this state directory: it may be somebody else's. Also removed are what was learned about engines and images, and the
volumes with our guest program, if they were not used for ` + staleDays + ` days; they are made anew when needed. The caches of tools that a policy
keeps stay: "caches prune" removes them.

Exit status: 1 when a run can't work here, or something could not be removed.`,
		Example: `  agent-sandbox doctor
  agent-sandbox doctor --json | jq '.checks[] | select(.status!="ok")'
  agent-sandbox doctor --clean`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.clean {
				return a.clean(cmd.Context(), f.json)
			}
			return a.doctor(cmd.Context(), f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.run.image, "image", "", "image to look for, instead of the policy's")
	flags.StringVar(&f.run.policy, "policy", "", "policy file, instead of the project's "+policyFile)
	flags.StringVar(&f.run.workspace, "workspace", "", "project directory, instead of the one around the current directory")
	flags.BoolVar(&f.clean, "clean", false, "read what the agents of dead runs changed, and remove what else such runs left")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	return c
}

type doctorFlags struct {
	run         runFlags
	clean, json bool
}

// status is the result of one check.
type status string

const (
	statusOK      status = "ok"
	statusNote    status = "note"    // works, and is worth knowing
	statusLowered status = "lowered" // works with less protection than the default
	statusFailed  status = "failed"  // a run can't work
	statusSkipped status = "skipped" // could not be looked at, because of another failure
)

// check is one line of doctor.
type check struct {
	Name   string `json:"name"`
	Status status `json:"status"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"`
}

// diagnosis is `doctor --json`: a contract, to which fields are only added.
type diagnosis struct {
	OK      bool            `json:"ok"`
	Checks  []check         `json:"checks"`
	Engine  *engine.Facts   `json:"engine,omitempty"`
	Host    string          `json:"host,omitempty"` // the engine's address
	Lowered []event.Lowered `json:"lowered"`
}

func (d *diagnosis) add(name string, s status, mend, format string, args ...any) {
	d.Checks = append(d.Checks, check{Name: name, Status: s, Detail: fmt.Sprintf(format, args...), Mend: mend})
}

// require adds a check that is ok or failed.
func (d *diagnosis) require(name string, ok bool, detail, without, mend string) {
	if ok {
		d.add(name, statusOK, "", "%s", detail)
		return
	}
	d.add(name, statusFailed, mend, "%s", without)
}

func (d *diagnosis) failed() bool {
	for _, c := range d.Checks {
		if c.Status == statusFailed {
			return true
		}
	}
	return false
}

func (a *app) doctor(ctx context.Context, f doctorFlags) error {
	d := &diagnosis{Lowered: []event.Lowered{}}
	x := &examination{app: a, flags: f.run, diagnosis: d}
	x.everything(ctx)
	d.OK = !d.failed()
	var err error
	if f.json {
		err = a.answerJSON(d)
	} else {
		err = a.answer(func(w io.Writer) error { d.print(w, painter(a.color(a.stdout))); return nil })
	}
	if err == nil && !d.OK {
		err = &statusError{code: exitError}
	}
	return err
}

func (d *diagnosis) print(w io.Writer, p painter) {
	colors := map[status]string{statusOK: green, statusNote: cyan, statusLowered: yellow, statusFailed: red, statusSkipped: dim}
	for _, c := range d.Checks {
		fmt.Fprintf(w, "%s %-10s %s\n", p.paint(colors[c.Status], fmt.Sprintf("%-7s", c.Status)), c.Name, printableLine(c.Detail))
		if c.Mend != "" {
			fmt.Fprintf(w, "%19smend: %s\n", "", printableLine(c.Mend))
		}
	}
	verdict := "runs work here"
	if !d.OK {
		verdict = p.paint(red, "runs can't work here") + ": mend what failed"
	}
	fmt.Fprintln(w, verdict)
}
