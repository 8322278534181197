package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

// page shows what f writes: through the user's pager when standard output is a terminal, directly when it is not.
func (a *app) page(f func(w io.Writer) error) error {
	if pager := a.pager(); pager != "" && a.isTerminal(a.stdout) {
		return a.through(pager, f)
	}
	return a.answer(f)
}

// pager is the command that git would use, without its configuration; empty for none.
func (a *app) pager() string {
	for _, name := range []string{"GIT_PAGER", "PAGER"} {
		if v, set := a.lookupEnv(name); set {
			if v = strings.TrimSpace(v); v == "cat" {
				return ""
			}
			return v
		}
	}
	if _, err := exec.LookPath("less"); err != nil {
		return ""
	}
	return "less"
}

// through writes to the pager's input. A pager that is left early is no error.
func (a *app) through(pager string, f func(w io.Writer) error) error {
	cmd := shell(pager)
	cmd.Stdout, cmd.Stderr = a.stdout, a.stderr
	cmd.Env = os.Environ()
	// As git has it: quit when all fits one screen, let colours through, leave the text on the screen.
	for name, value := range map[string]string{"LESS": "FRX", "LV": "-c"} {
		if _, set := a.lookupEnv(name); !set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("pager: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("pager %q: %w\nhint: set PAGER, or PAGER=cat for none", pager, err)
	}
	// Ctrl-C is the pager's while it runs. It started before, so that it does not inherit this.
	signal.Ignore(os.Interrupt)
	b := bufio.NewWriterSize(in, 64<<10)
	err = f(b)
	if flushErr := b.Flush(); err == nil {
		err = flushErr
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
		err = nil
	}
	err = errors.Join(err, in.Close())
	if waitErr := cmd.Wait(); waitErr != nil {
		err = errors.Join(err, fmt.Errorf("pager %q: %w", pager, waitErr))
	}
	return err
}

// shell runs a command line as git does.
func shell(line string) *exec.Cmd {
	if runtime.GOOS == "windows" {
		words := strings.Fields(line)
		return exec.Command(words[0], words[1:]...)
	}
	return exec.Command("/bin/sh", "-c", line)
}
