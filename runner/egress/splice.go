package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/org/agent-sandbox/runner/splice"
)

const (
	// smallBuffer is what a quiet direction holds; a busy one borrows a largeBuffer. Thousands of quiet connections would else
	// hold hundreds of megabytes.
	smallBuffer = 4 << 10
	largeBuffer = 128 << 10
	// linger bounds how long a quiet connection is kept that the host has closed: pools of clients notice late.
	linger = 2 * time.Minute
)

// splice carries bytes both ways as they are.
func (c *connection) splice(ctx context.Context) *end {
	return c.both(ctx, func() error {
		return c.copy(c.up, c.fromClient, "the host broke off", "the agent broke off")
	})
}

// both runs up, which carries the client's bytes, beside the copy of the host's. A side that is done has its end passed
// on; one that fails ends both.
func (c *connection) both(ctx context.Context, up func() error) *end {
	down := make(chan struct{})
	go func() {
		defer close(down)
		if err := c.copy(c.down, c.fromUpstream, "the agent broke off", "the host broke off"); err != nil {
			c.end(err)
			return
		}
		_ = c.client.Close()
		c.idle.shorten(linger)
	}()
	if err := up(); err != nil {
		c.end(err)
	} else {
		_ = c.upstream.CloseWrite()
	}
	<-down
	if ctx.Err() != nil {
		return cause(ctx)
	}
	return nil
}

// copy moves bytes until src ends; the error is an *end that says which side failed.
func (c *connection) copy(dst *meter, src io.Reader, dstFailed, srcFailed string) error {
	buffer := copyBuffer{pool: &c.g.buffers}
	defer buffer.release()
	busy := false
	for {
		if load := c.load(busy, dst, src); load != nil {
			if err := dst.send(load); err != nil {
				return asEnd(err, broken(CodeBroken, dstFailed))
			}
			continue
		}
		buf := buffer.bytes()
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return asEnd(werr, broken(CodeBroken, dstFailed))
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return broken(CodeBroken, srcFailed)
		}
		buffer.sized(n)
		busy = busy || n >= smallBuffer // from then on: a Load costs no more than a read
	}
}

// load takes what the host has sent without looking at it, for a direction with much to carry. It is nil where that is not possible: read it then.
func (c *connection) load(busy bool, dst *meter, src io.Reader) *splice.Load {
	if !busy || dst.socket == nil || dst.scan != nil || src != io.Reader(c.upstream) {
		return nil
	}
	from := splice.Source(c.upstream)
	if from == nil {
		return nil
	}
	return c.g.pipes.Take(from)
}

// copyBuffer is the buffer of one direction, small while it is quiet.
type copyBuffer struct {
	pool  *sync.Pool
	small []byte
	large *[largeBuffer]byte
}

func (b *copyBuffer) bytes() []byte {
	if b.large != nil {
		return b.large[:]
	}
	if b.small == nil {
		b.small = make([]byte, smallBuffer)
	}
	return b.small
}

// sized chooses the next buffer by what the last one was filled with.
func (b *copyBuffer) sized(n int) {
	switch {
	case n == smallBuffer && b.large == nil:
		b.large = b.pool.Get().(*[largeBuffer]byte)
	case n < smallBuffer:
		b.release()
	}
}

func (b *copyBuffer) release() {
	if b.large != nil {
		b.pool.Put(b.large)
		b.large = nil
	}
}

// idleTimer ends a connection on which nothing has moved for too long.
type idleTimer struct {
	c *connection

	mu    sync.Mutex // guards what follows
	limit time.Duration
	timer *time.Timer
}

func newIdleTimer(c *connection, limit time.Duration) *idleTimer {
	t := &idleTimer{c: c, limit: limit}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(limit, t.check)
	return t
}

func (t *idleTimer) check() {
	t.mu.Lock()
	defer t.mu.Unlock()
	quiet := time.Since(t.c.record.Start) - time.Duration(t.c.moved.Load())
	if quiet < t.limit {
		t.timer.Reset(t.limit - quiet)
		return
	}
	t.c.end(broken(CodeIdle, fmt.Sprintf("nothing was sent for %s", t.limit)))
}

// shorten lowers the limit, counted from the last byte that moved.
func (t *idleTimer) shorten(limit time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if limit < t.limit {
		t.limit = limit
		t.timer.Reset(limit)
	}
}

func (t *idleTimer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer.Stop()
}
