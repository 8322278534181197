// Command escapeprobe tries to get out of a sandbox. It is told what to try, reports what the kernel answered, and
// judges nothing: the escape suite of package runner compares with the answers of a sandbox in which the protection is
// off, or of the host. It needs nothing of the image that it runs in, and is never shipped.
//
// Standard input has one JSON object for each step, standard output one for each answer. Each step runs in a process
// of its own, so that one that is killed, or that hangs, is reported as well.
//
// Steps are harmless also where they succeed: what could hurt is opened and not written to, or written with what it
// had.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// step is one thing to try.
type step struct {
	Name string   `json:"name"`
	Op   string   `json:"op"`
	Args []string `json:"args"`
}

// answer is what came of it.
type answer struct {
	Name string `json:"name"`
	// Answer is "ok", the name of an errno, a status of HTTP, "alert" for one of TLS, "timeout", the name of the signal that ended the attempt, or "error".
	Answer string `json:"answer"`
	Detail string `json:"detail,omitempty"`
}

const (
	childArg = "-step"  // marks the process that makes the attempt itself
	sleepArg = "-sleep" // one that others do something to
	crashArg = "-crash" // one that dies
	tooLong  = 20 * time.Second
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "escapeprobe:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == childArg:
		return attemptHere(args[1], out)
	case len(args) == 1 && args[0] == sleepArg:
		time.Sleep(tooLong)
		return nil
	case len(args) == 1 && args[0] == crashArg:
		return dumpCore()
	case len(args) == 1 && args[0] == "-last":
		lastMoment()
		return nil
	case len(args) != 0:
		return errors.New("usage: escapeprobe < STEPS")
	}
	dec := json.NewDecoder(in)
	enc := json.NewEncoder(out)
	for {
		var s step
		if err := dec.Decode(&s); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a, err := attemptInChild(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

func attemptInChild(s step) (answer, error) {
	encoded, err := json.Marshal(s)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), tooLong)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe", childArg, string(encoded))
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	// What a step leaves running has the pipe too.
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return answer{s.Name, "timeout", ""}, nil
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			return answer{s.Name, unix.SignalName(status.Signal()), ""}, nil
		}
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return answer{s.Name, "broken", err.Error()}, nil
	}
	var a answer
	if err := json.NewDecoder(&out).Decode(&a); err != nil {
		return answer{}, err
	}
	return a, nil
}

// attemptHere locks its thread: some attempts change it, and ptrace is a thread's.
func attemptHere(encoded string, out io.Writer) error {
	var s step
	if err := json.Unmarshal([]byte(encoded), &s); err != nil {
		return err
	}
	op, ok := ops()[s.Op]
	if !ok {
		return fmt.Errorf("no operation %q", s.Op)
	}
	if len(s.Args) < op.args {
		return fmt.Errorf("%s takes %d arguments", s.Op, op.args)
	}
	runtime.LockOSThread()
	detail, err := op.do(s.Args)
	return json.NewEncoder(out).Encode(answer{s.Name, nameOf(err), joined(detail, err)})
}

// operation is something that steps can do.
type operation struct {
	args int // at least
	do   func(args []string) (detail string, err error)
}

func nameOf(err error) string {
	if err == nil {
		return "ok"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return unix.ErrnoName(errno)
	}
	if status, ok := errors.AsType[statusError](err); ok {
		return strconv.Itoa(int(status))
	}
	if remote, ok := errors.AsType[*net.OpError](err); ok && remote.Op == "remote error" {
		return "alert" // of TLS
	}
	if late, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && late.Timeout() {
		return "timeout"
	}
	return "error"
}

func joined(detail string, err error) string {
	switch {
	case err == nil:
		return detail
	case detail == "":
		return err.Error()
	}
	return detail + ": " + err.Error()
}

func errnoErr(_, _ uintptr, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
