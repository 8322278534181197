// Command sysprobe tries, from inside a sandbox, system calls that an attacker would make, and a few
// that tools cannot do without. It reports what the kernel answered and judges nothing: the test that
// runs it compares with a control run. It changes nothing outside its own process, also when every
// call is permitted: the arguments of dangerous calls are invalid on purpose.
//
// It is a static program for tests (the seccomp tests here and the escape suite) and never shipped.
//
//	sysprobe list         prints the names of all attempts, one a line
//	sysprobe all          makes all of them, and prints one JSON object a line
//	sysprobe NAME...      makes these
//
// Each attempt runs in a process of its own, so that one that is killed is reported as well.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// attempt is one thing to try.
type attempt struct {
	name string
	// strict lists the answers under the strict profile, any of which is right: an errno's name,
	// "SIGSYS", or "ok" for what has to work.
	strict []string
	try    func() (detail string, err error)
}

// result is one line of output.
type result struct {
	Name   string   `json:"name"`
	Strict []string `json:"strict"` // the answers that the strict profile may give
	Errno  string   `json:"errno"`  // the answer: "ok", an errno's name, or the signal that killed the attempt
	Detail string   `json:"detail,omitempty"`
}

const (
	childArg = "-in-child" // marks the process that makes the attempt itself
	tooLong  = 10 * time.Second
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sysprobe:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	all := attempts()
	switch {
	case len(args) == 0:
		return errors.New("name what to try, or say list or all")
	case args[0] == childArg:
		return attemptHere(all, args[1], out)
	case args[0] == "list":
		for _, a := range all {
			fmt.Fprintln(out, a.name)
		}
		return nil
	case args[0] == "all":
		args = nil
		for _, a := range all {
			args = append(args, a.name)
		}
	}
	for _, name := range args {
		r, err := attemptInChild(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func attempts() []attempt {
	return slices.Concat(deniedCalls(), archCalls(), namespaces(), sockets(), terminals(), nodes(), allowed())
}

// attemptHere locks its thread, as some attempts change the thread that makes them.
func attemptHere(all []attempt, name string, out io.Writer) error {
	i := slices.IndexFunc(all, func(a attempt) bool { return a.name == name })
	if i < 0 {
		return errors.New("no such attempt")
	}
	runtime.LockOSThread()
	// Said first, so that the parent knows it if the attempt kills this process.
	if err := json.NewEncoder(out).Encode(result{Name: name, Strict: all[i].strict}); err != nil {
		return err
	}
	detail, err := all[i].try()
	r := result{Name: name, Strict: all[i].strict, Errno: "ok", Detail: detail}
	if err != nil {
		r.Errno, r.Detail = errnoName(err), err.Error()
	}
	return json.NewEncoder(out).Encode(r)
}

func attemptInChild(name string) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tooLong)
	defer cancel()
	// A control run may unshare what os.Executable reads, so name it as the kernel does.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", childArg, name)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	var r result
	dec := json.NewDecoder(pipe)
	for more := true; more; {
		if err := dec.Decode(&r); err != nil {
			more = false
		}
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() && r.Name == name {
			r.Errno = unix.SignalName(status.Signal())
			return r, nil
		}
	}
	return r, err
}

// killed is the answer to a call that ended the process of its own that it was made in.
type killed struct{ signal syscall.Signal }

func (k killed) Error() string { return "killed: " + k.signal.String() }

func errnoName(err error) string {
	var k killed
	if errors.As(err, &k) {
		return unix.SignalName(k.signal)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return "error"
}
