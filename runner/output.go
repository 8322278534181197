package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/runs"
)

// drainTimeout is how long a run that was stopped waits for a caller that does not take the output.
const drainTimeout = 2 * time.Second

// output copies the agent's output to the caller and, as far as the limit goes, to the log. When the caller takes no
// more the agent is told, as in a pipeline; what it had written already still goes to the log.
func (v *server) output(stream *link.Stream, to io.Writer, name string) {
	defer stream.Close()
	log := newOutputLog(v.run.dir, name, v.logs)
	defer v.closeLog(log)
	what := strings.TrimSuffix(name, ".log")
	out := v.run.secrets.writer(&passedOn{log: log, to: to, lost: func(err error) {
		_ = stream.Close()
		// A reader that has gone away has had enough.
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, io.ErrClosedPipe) {
			v.lose(what, err)
		}
	}}, what)
	from := v.reads(stream)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		_, _ = out.Write(buf[:n])
		if errors.Is(err, errRest) {
			v.lose(what, err)
		}
		if err != nil {
			_ = out.Close()
			return
		}
	}
}

// passedOn is where output goes, without the secrets. It never fails.
type passedOn struct {
	log  *outputLog
	to   io.Writer // nil: nobody takes any more
	lost func(error)
}

func (p *passedOn) Write(b []byte) (int, error) {
	p.log.write(b)
	if p.to != nil && len(b) > 0 {
		if _, err := p.to.Write(b); err != nil {
			p.to = nil
			p.lost(err)
		}
	}
	return len(b), nil
}

func (v *server) closeLog(log *outputLog) {
	if err := log.close(); err != nil {
		v.run.warn("the log of the agent's output is incomplete: " + err.Error())
	}
	v.run.rec.Emit(event.OutputKept{
		Stream: strings.TrimSuffix(log.name, ".log"), SHA256: hex.EncodeToString(log.sum.Sum(nil)), Bytes: log.written, Lost: log.seen - log.written,
	})
	if log.seen > log.kept {
		v.run.rec.Emit(event.OutputTruncated{Stream: strings.TrimSuffix(log.name, ".log"), Limit: v.run.plan.Output, Bytes: log.seen})
	}
}

// drain waits until all of the agent's output has been passed on: for as long as the caller takes it, unless the run
// was stopped. The error says what the caller could not be given.
func (v *server) drain(ctx context.Context, stopped bool) error {
	defer v.endOutputs()()
	done := ended(&v.outputs)
	if !stopped {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	if !within(drainTimeout, done) {
		v.run.warn("nobody took the rest of the agent's output")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lost
}

// wait returns when every stream has been dealt with; the session must be closed. It does not wait for a caller who
// does not take the output: a write can't be interrupted.
func (v *server) wait() { within(drainTimeout, ended(&v.streams)) }

func ended(g *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		g.Wait()
		close(done)
	}()
	return done
}

func within(limit time.Duration, done <-chan struct{}) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// budget is how many bytes of output the logs may still keep, both together.
type budget struct {
	mu   sync.Mutex // guards left
	left int64
}

// take reserves up to n bytes.
func (b *budget) take(n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n = int(min(int64(n), b.left))
	b.left -= int64(n)
	return n
}

// outputLog is a file that takes bytes as far as the budget goes, and counts all of them. Its first error is kept
// until close: a full disk must not stop the agent's output.
type outputLog struct {
	name       string
	file       *os.File
	budget     *budget
	seen, kept int64
	sum        hash.Hash // of what is in the file
	written    int64     // bytes in the file
	err        error
}

func newOutputLog(dir *runs.Run, name string, b *budget) *outputLog {
	f, err := dir.Append(name)
	return &outputLog{name: name, file: f, budget: b, sum: sha256.New(), err: err}
}

func (l *outputLog) write(b []byte) {
	n := l.budget.take(len(b))
	l.seen += int64(len(b))
	l.kept += int64(n)
	if l.err == nil && n > 0 {
		var written int
		written, l.err = l.file.Write(b[:n])
		l.sum.Write(b[:written])
		l.written += int64(written)
	}
}

func (l *outputLog) close() error {
	if l.file == nil {
		return l.err
	}
	return errors.Join(l.err, l.file.Close())
}
