package event

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MaxEvents bounds the lines that are read from a log: more than MaxPerKind of every kind.
const MaxEvents = 1 << 21

// Problem is what is wrong with a log.
type Problem string

// The problems.
const (
	Torn      Problem = "torn"      // the last line has no end: the writer died, or the disk was full
	Truncated Problem = "truncated" // lines are missing at the end
	Longer    Problem = "longer"    // lines were added at the end
	Broken    Problem = "broken"    // a line does not carry the hash of the one before: an edit, a move or a removal
	Replaced  Problem = "replaced"  // the length is right, the last hash is not
	OtherRun  Problem = "other-run" // a line of another run
	Malformed Problem = "malformed" // not a canonical envelope with the next sequence number
	TooLarge  Problem = "too-large" // a line or a log beyond the bounds
)

// ChainError says that a log is not what was written, and where.
type ChainError struct {
	Problem Problem
	Line    uint64 // from 1
	Detail  string
}

// Error names the line and the problem.
func (e *ChainError) Error() string {
	return fmt.Sprintf("event log line %d: %s: %s", e.Line, e.Problem, e.Detail)
}

var errTrailing = errors.New("data after the object")

// Compare tells how the log with the head h, which is good by itself, differs from the one whose head was kept elsewhere, such as
// in result.json or a signed manifest. The error is a *ChainError.
func (h Head) Compare(kept Head) error {
	switch {
	case h.Count < kept.Count:
		return &ChainError{Truncated, h.Count + 1, fmt.Sprintf("the log ends after %d of %d lines", h.Count, kept.Count)}
	case h.Count > kept.Count:
		return &ChainError{Longer, kept.Count + 1, fmt.Sprintf("the log has %d lines, not %d", h.Count, kept.Count)}
	case h.Hash != kept.Hash:
		return &ChainError{Replaced, h.Count, fmt.Sprintf("the last hash is %s, not %s", h.Hash, kept.Hash)}
	}
	return nil
}

// ReadChain verifies a log and hands each good envelope to f. It stops at the first
// line that is not good, with a *ChainError, and at the first error of f, and returns
// the head of what was good until then. A line is good only in hindsight, when the
// next one carries its hash, and a log that was cut at the end of a line is good by
// itself: whoever needs certainty compares the head with [Head.Compare].
func ReadChain(r io.Reader, run string, f func(Envelope) error) (Head, error) {
	head := Genesis(run)
	lines := bufio.NewReaderSize(r, MaxLine+1)
	for {
		line, err := lines.ReadSlice('\n')
		at := head.Count + 1
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return head, nil
		case errors.Is(err, io.EOF):
			return head, &ChainError{Torn, at, fmt.Sprintf("it ends after %d bytes", len(line))}
		case errors.Is(err, bufio.ErrBufferFull), len(line) > MaxLine+1:
			return head, &ChainError{TooLarge, at, fmt.Sprintf("more than %d bytes", MaxLine)}
		case err != nil:
			return head, fmt.Errorf("event log line %d: %w", at, err)
		case at > MaxEvents:
			return head, &ChainError{TooLarge, at, fmt.Sprintf("more than %d lines", MaxEvents)}
		}
		line = line[:len(line)-1]
		env, err := checkLine(line, run, head)
		if err != nil {
			return head, err
		}
		if err := f(env); err != nil {
			return head, err
		}
		head = Head{Hash: hash(line), Count: at}
	}
}

// checkLine: the canonical form leaves one spelling for one content, without repeated keys,
// odd escapes or bad UTF-8, so that no two readers can see different things in a line.
func checkLine(line []byte, run string, head Head) (Envelope, error) {
	at := head.Count + 1
	tree, err := decodeTree(line)
	if err != nil {
		return Envelope{}, &ChainError{Malformed, at, err.Error()}
	}
	if canonical, err := encodeTree(tree); err != nil || !bytes.Equal(canonical, line) {
		return Envelope{}, &ChainError{Malformed, at, "not in canonical form"}
	}
	for key := range tree {
		// encoding/json ignores case, and so would read "Run" as run.
		if !slices.Contains([]string{"clipped", "data", "kind", "prev", "run", "seq", "time"}, key) {
			return Envelope{}, &ChainError{Malformed, at, fmt.Sprintf("unknown key %q", key)}
		}
	}
	var env Envelope
	if err := json.Unmarshal(line, &env); err != nil {
		return Envelope{}, &ChainError{Malformed, at, err.Error()}
	}
	switch prev, _ := tree["prev"].(string); {
	case env.Run != run:
		return Envelope{}, &ChainError{OtherRun, at, fmt.Sprintf("the run is %q, not %q", env.Run, run)}
	case env.Seq != at:
		return Envelope{}, &ChainError{Broken, at, fmt.Sprintf("the sequence number is %d", env.Seq)}
	case prev != head.Hash:
		return Envelope{}, &ChainError{Broken, at, "the hash of the line before does not fit: that line or this one was changed"}
	}
	return env, nil
}
