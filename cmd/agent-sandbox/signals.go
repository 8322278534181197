package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/org/agent-sandbox/runner"
)

// withSignals returns a context that the first SIGINT, SIGTERM, SIGHUP or SIGQUIT (Ctrl-\) cancels, with the signal as its cause. The
// second one calls abort, which ends the program at once: the guest notices and ends the sandbox. A signal that the
// caller had us ignore stays ignored (nohup(1), and the background jobs of a script).
func withSignals(parent context.Context, abort func(os.Signal)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	c := make(chan os.Signal, 2)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	// With a handler, a write to a closed pipe is an error that the run can deal with. Without, it kills the program.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	stopped := make(chan struct{})
	go func() {
		for first := true; ; first = false {
			select {
			case s := <-c:
				if !first {
					abort(s)
				}
				cancel(&runner.SignalError{Signal: s})
			case <-stopped:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(c)
		close(stopped)
		cancel(nil)
	}
}

// signalStatus is the exit status of a program that a signal ended, as shells have it.
func signalStatus(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return exitError
}
