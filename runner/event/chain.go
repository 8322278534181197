package event

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
)

// chainDomain opens the hash of the first link, so that no other use of SHA-256 over
// a run id gives the same value.
const chainDomain = "agent-sandbox events.jsonl v1\n"

// Head identifies a log up to a line: whoever keeps it can prove the rest.
type Head struct {
	Hash  string `json:"hash"`  // hex SHA-256 of the last line without its newline; of an empty log: see [Genesis]
	Count uint64 `json:"count"` // lines
}

// Genesis is the head of the empty log of a run:
// SHA-256("agent-sandbox events.jsonl v1\n" + run).
func Genesis(run string) Head { return Head{Hash: hash([]byte(chainDomain + run))} }

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// File is what a Chain writes to: an *os.File, opened with O_EXCL, O_APPEND and 0600.
type File interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// Chain writes the audit log, events.jsonl: each line is an envelope as canonical
// JSON (sorted keys, no white space) with "prev", the head before it. So a line
// that is changed, moved or taken out breaks every later one, and the last head
// proves the whole. Nothing is buffered: a line is with the kernel when Handle
// returns, and survives kill -9. Syncing to disk is left to Close: a sync takes
// milliseconds, in which the user waits, and only the end of the machine itself needs one.
type Chain struct {
	run string

	mu   sync.Mutex // guards what follows
	file File
	head Head
	size int64
	err  error // the first failure; nothing is written after it

	closed bool
}

// NewChain starts the log of a run in an empty file, which it owns from then on.
func NewChain(file File, run string) *Chain {
	return &Chain{file: file, run: run, head: Genesis(run)}
}

// Handle appends a line. After a failure the log stays at its last whole line and
// every call returns that failure: a log with a hole would not verify anyway.
func (c *Chain) Handle(env Envelope) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	if c.err == nil {
		c.err = c.append(env)
	}
	return c.err
}

func (c *Chain) append(env Envelope) error {
	if env.Run != c.run || env.Seq != c.head.Count+1 {
		return fmt.Errorf("event %d of run %q does not follow event %d of run %q", env.Seq, env.Run, c.head.Count, c.run)
	}
	line, err := encode(env, c.head.Hash)
	if err != nil {
		return err
	}
	if _, err := c.file.Write(append(line, '\n')); err != nil {
		// Part of the line may be there. If it can't be taken back, the reader sees a torn log.
		return errors.Join(err, c.file.Truncate(c.size))
	}
	c.size += int64(len(line)) + 1
	c.head = Head{Hash: hash(line), Count: env.Seq}
	return nil
}

// Head is the hash and the number of lines so far.
func (c *Chain) Head() Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head
}

// Err is the failure that ended the log, if one did.
func (c *Chain) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close syncs and closes the file; a failure that Handle returned is not
// returned again. Later events fail. A second Close does nothing.
func (c *Chain) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	err := errors.Join(c.file.Sync(), c.file.Close())
	if c.err == nil {
		c.err = err
	}
	return err
}

var errClosed = errors.New("the event log is closed")
