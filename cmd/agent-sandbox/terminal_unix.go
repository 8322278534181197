//go:build !windows

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/org/agent-sandbox/runner/link"
)

// watchSize sends the terminal's size whenever it changes, until ctx ends.
func watchSize(ctx context.Context, fd int, to chan<- link.Size) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	defer signal.Stop(c)
	for {
		select {
		case <-c:
			select {
			case to <- terminalSize(fd):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
