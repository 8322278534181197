package main

import (
	"context"
	"time"

	"github.com/org/agent-sandbox/runner/link"
)

// watchSize sends the terminal's size whenever it changes, until ctx ends. Windows has no signal for it.
func watchSize(ctx context.Context, fd int, to chan<- link.Size) {
	last := terminalSize(fd)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if now := terminalSize(fd); now != last {
				last = now
				select {
				case to <- now:
				case <-ctx.Done():
					return
				}
			}
		case <-ctx.Done():
			return
		}
	}
}
