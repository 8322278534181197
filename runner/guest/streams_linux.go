package guest

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// copyBuffer is what one read of the agent's output takes at most: a whole pipe (pipe(7)).
const copyBuffer = 64 << 10

// endpoints are the guest's ends of the agent's standard streams. On a terminal in and out are the same file and
// err is nil.
type endpoints struct{ in, out, err *os.File }

// standard are both ends.
type standard struct {
	endpoints
	child [3]*os.File
}

func openStreams(tty bool, size link.Size) (*standard, error) {
	if tty {
		return openTerminal(size)
	}
	var s standard
	var errs [3]error
	s.child[0], s.in, errs[0] = os.Pipe()
	s.out, s.child[1], errs[1] = os.Pipe()
	s.err, s.child[2], errs[2] = os.Pipe()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("pipes: %w", err)
	}
	if skip("streams") {
		own, err := unix.Dup(unix.Stdout)
		s.child[1] = os.NewFile(uintptr(own), "stdout")
		return &s, err
	}
	return &s, nil
}

func openTerminal(size link.Size) (*standard, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	if size != (link.Size{}) {
		if err := setSize(master, size); err != nil {
			return nil, fmt.Errorf("terminal size: %w", err)
		}
	}
	return &standard{
		endpoints: endpoints{in: master, out: master},
		child:     [3]*os.File{slave, slave, slave},
	}, nil
}

func setSize(master *os.File, size link.Size) error {
	return pty.Setsize(master, &pty.Winsize{Rows: size.Rows, Cols: size.Cols})
}

func (s *standard) closeChild() {
	for i, f := range s.child {
		if i == 0 || f != s.child[0] {
			_ = f.Close()
		}
	}
}

// copyOutput copies the agent's output to the runner, to its end.
func copyOutput(session *link.Session, purpose link.Purpose, from *os.File) error {
	stream, err := session.Open(link.Header{Purpose: purpose})
	if err != nil {
		return err
	}
	go func() {
		// The runner sends nothing here; the end of its direction says that nobody reads the output any more.
		// The agent then learns it as it would in a plain pipeline: by SIGPIPE, on a terminal by SIGHUP.
		_, _ = io.Copy(io.Discard, stream)
		_ = from.Close()
	}()
	go func() {
		defer stream.Close()
		// A terminal whose last program has ended reads as EIO (pty(7)): the output is complete, as at any error.
		_, _ = io.CopyBuffer(struct{ io.Writer }{stream}, struct{ io.Reader }{from}, make([]byte, copyBuffer))
	}()
	return nil
}

// copyInput copies the runner's input to the agent until either has enough.
func copyInput(session *link.Session, to *os.File, tty bool) error {
	stream, err := session.Open(link.Header{Purpose: link.Stdin})
	if err != nil {
		return err
	}
	go func() {
		defer stream.Close()
		_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{stream}, make([]byte, copyBuffer))
		if !tty { // a terminal has no end of input, and its file is the output's as well
			_ = to.Close()
		}
	}()
	return nil
}
