package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// Set by the linker in a release.
var (
	version = "dev"
	// defaultImage is what runs when neither the policy nor --image names one.
	defaultImage = "agent-sandbox:dev"
)

// Exit statuses (design section 9). `run` has the task's own besides.
const (
	exitError   = 1
	exitUsage   = 2
	exitFailure = 125
)

// statusError carries an exit status. Its message may be empty: then everything has been said.
type statusError struct {
	code int
	err  error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// usage marks an error as the caller's.
func usage(format string, args ...any) error {
	return &statusError{exitUsage, fmt.Errorf(format, args...)}
}

// exitCode prints err and returns the program's exit status.
func exitCode(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	code := exitError
	var s *statusError
	var problems policy.Problems
	switch {
	case errors.As(err, &s):
		code = s.code
	case errors.As(err, &problems):
		code = exitUsage
	}
	if msg := strings.TrimRight(err.Error(), "\n"); msg != "" {
		msg = printableText(withHint(msg, err))
		if !strings.HasPrefix(msg, "hint: ") && problems == nil { // problems begin with their place, for editors
			msg = "agent-sandbox: " + msg
		}
		fmt.Fprintln(stderr, msg)
	}
	return code
}

// forbiddenMend is what helps with engine.ErrForbidden.
const forbiddenMend = "add your user to the group that the socket belongs to (`sudo usermod -aG docker $USER`), and log in again"

// withHint adds what to do about a failure whose message does not say so itself: packages know what went wrong, and
// the commands what mends it.
func withHint(msg string, err error) string {
	hint := ""
	switch {
	case strings.Contains(msg, "hint: "):
	case errors.Is(err, engine.ErrUnavailable):
		hint = "start Docker, or set DOCKER_HOST to an engine that runs; `agent-sandbox doctor` tells more"
	case errors.Is(err, engine.ErrForbidden):
		hint = forbiddenMend
	case errors.Is(err, engine.ErrNoImage):
		hint = "build or pull it first, or name another one with --image; `agent-sandbox doctor` tells more"
	case errors.Is(err, runs.ErrRunning):
		hint = "wait until it has ended"
	case errors.Is(err, workspace.ErrBlobDamaged):
		hint = "the run's record was altered: discard the run, and run the task again"
	}
	if hint == "" {
		return msg
	}
	return msg + "\nhint: " + hint
}

// run is the program without the process around it.
func run(ctx context.Context, args []string, stdin *os.File, stdout, stderr *os.File) error {
	root := newRoot(&app{stdin: stdin, stdout: stdout, stderr: stderr, lookupEnv: os.LookupEnv})
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "agent-sandbox",
		Short: "Run a coding agent in a locked-down container, and review what it changed",
		Long: `agent-sandbox runs a command in a container that sees the project and nothing else of
this machine, has no way out but what the policy allows, and leaves a change set to
review and apply. The project's files stay as they are until you apply it.`,
		Args:          groupArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          showHelp,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w\nhint: `%s --help` lists the flags", err, cmd.CommandPath())
	})
	root.AddCommand(
		a.runCommand(), a.shellCommand(),
		a.diffCommand(), a.applyCommand(), a.discardCommand(),
		a.runsCommand(), a.showCommand(), a.logsCommand(), a.manifestCommand(), a.replayCommand(),
		a.initCommand(), a.agentsCommand(), a.policyCommand(), a.imageCommand(), a.cachesCommand(), a.doctorCommand(), a.credentialsCommand(), a.brokerCommand(),
		a.devCommand(), a.actionCommand(), a.versionCommand(), a.watchCommand(),
	)
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if !c.Runnable() { // cobra's own group
			c.Args, c.RunE = groupArgs, showHelp
		}
	}
	wrapArgs(root)
	return root
}

// groupArgs is for a command that only groups others: whatever is named is none of them.
func groupArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w: did you mean %q?", err, near[0])
	}
	return err
}

// showHelp answers a group that is called without a command.
func showHelp(cmd *cobra.Command, _ []string) error {
	_ = cmd.Help()
	return &statusError{code: exitUsage}
}

// wrapArgs makes wrong arguments, and flags that exclude each other, a usage error in every command.
func wrapArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.ArbitraryArgs
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			err = cmd.ValidateFlagGroups()
		}
		if err != nil {
			hint := fmt.Sprintf("`%s --help`", cmd.CommandPath())
			if !cmd.HasSubCommands() {
				hint = fmt.Sprintf("it is %s; %s tells more", cmd.UseLine(), hint)
			}
			return usage("%w\nhint: %s", err, hint)
		}
		return nil
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}
