package runner

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/org/agent-sandbox/runner/engine"
)

const (
	// watchQuiet is how long the engine must have shown nothing of a run that died while something was being created:
	// it appears within that time, or not at all.
	watchQuiet = 3 * time.Second
	// watchLimit is how long a watcher tries at most, when the engine does not answer or something can't be removed.
	watchLimit = 15 * time.Second
	watchPause = 50 * time.Millisecond
)

// watchOrder is all that a watcher is told.
type watchOrder struct {
	Run    string        `json:"run"`
	Engine engine.Config `json:"engine"`
}

// watcher is a process that outlives this one and then removes what a run left in the engine. A container that was
// created and never started has nobody else who would: the engine removes by itself only what has run.
type watcher struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// startWatcher starts a watcher with cmd, which calls Watch with its standard input; nil makes none.
func startWatcher(cmd *exec.Cmd, o watchOrder) (*watcher, error) {
	if cmd == nil {
		return nil, nil
	}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start watcher: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start watcher: %w", err), pipe.Close())
	}
	w := &watcher{cmd, pipe}
	if err := json.NewEncoder(pipe).Encode(o); err != nil {
		w.dismiss()
		return nil, fmt.Errorf("instruct watcher: %w", err)
	}
	return w, nil
}

// What a runner tells its watcher after the order, one byte each.
const (
	creating = '+' // it is about to ask the engine to create something
	created  = '-' // it has the answer
)

// creating announces that something is being created, until the returned function is called. Without that word the
// watcher need not wait for what may yet appear.
func (w *watcher) creating() (done func()) {
	if w == nil {
		return func() {}
	}
	// A watcher that is not there any more can't be told, and the run does not depend on it.
	_, _ = w.pipe.Write([]byte{creating})
	return func() { _, _ = w.pipe.Write([]byte{created}) }
}

// dismiss ends a watcher that has nothing to do.
func (w *watcher) dismiss() {
	if w == nil {
		return
	}
	_ = w.cmd.Process.Kill()
	_ = w.pipe.Close()
	_ = w.cmd.Wait() // it was killed, which is no news
}

// leave lets the watcher look after a run that could not clean up after itself.
func (w *watcher) leave() {
	if w == nil {
		return
	}
	_ = w.pipe.Close()
	_ = w.cmd.Process.Release()
}

// Watch waits for the end of in, which is the end of a runner that did not dismiss it, and removes what its run left in
// the engine. It is the whole of a watcher's life.
func Watch(ctx context.Context, in io.Reader) error {
	r := bufio.NewReader(in)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("watch: read order: %w", err)
	}
	var o watchOrder
	if err := json.Unmarshal(line, &o); err != nil || o.Run == "" {
		return fmt.Errorf("watch: order %q: %v", line, err)
	}
	told, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	if err := os.RemoveAll(laneDir(o.Run)); err != nil { // it exists for a moment at the start
		return fmt.Errorf("watch: %w", err)
	}
	quiet := time.Duration(0)
	if bytes.Count(told, []byte{creating}) > bytes.Count(told, []byte{created}) {
		quiet = watchQuiet
	}
	ctx, cancel := context.WithTimeout(ctx, watchLimit)
	defer cancel()
	return sweep(ctx, o, quiet)
}

// sweep removes what a run has in the engine, until there has been nothing for so long.
func sweep(ctx context.Context, o watchOrder, quiet time.Duration) error {
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	for since := time.Now(); ; {
		left, err := sweepOnce(ctx, o)
		switch {
		case left > 0:
			quiet = 0 // there is one at a time, and this was it
		case err != nil:
			since = time.Now()
		case time.Since(since) >= quiet:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("watch run %s: %d objects are left: %w", o.Run, left, errors.Join(err, ctx.Err()))
		}
	}
}

// sweepOnce returns how much it found. It connects anew each time: the engine may be starting.
func sweepOnce(ctx context.Context, o watchOrder) (int, error) {
	e, err := engine.Connect(ctx, o.Engine)
	if err != nil {
		return 0, err
	}
	defer e.Close()
	return e.Sweep(ctx, o.Run)
}
