// Agent-sandbox runs a coding agent's task in a locked-down container and leaves a change set to review.
package main

import (
	"context"
	"os"
)

func main() {
	restore := keepTerminal(os.Stdin)
	ctx, stop := withSignals(context.Background(), func(s os.Signal) {
		restore()
		os.Exit(signalStatus(s))
	})
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(os.Stderr, err))
}
