package main

import (
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner"
)

// watchName is a command that `run` calls itself: nobody else has a use for it.
const watchName = "__watch"

// watcher is the command of a process that tidies up after a run whose process was killed: this program again, in a
// session of its own, where no signal of the caller's terminal reaches it.
func watcher() (*exec.Cmd, error) {
	self, err := ownProgram()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, watchName)
	cmd.Args[0] = "agent-sandbox"
	cmd.Dir = rootDir // so that it keeps no directory in use
	cmd.SysProcAttr = detached()
	return cmd, nil
}

func (a *app) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:    watchName,
		Short:  "Remove what a killed run left in the engine",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return runner.Watch(cmd.Context(), a.stdin) },
	}
}
