package link

import (
	"encoding/binary"
	"io"
	"sync"
)

// maxPending bounds what waits to be written, in bytes; one more frame can come on top.
const maxPending = 256 << 10

// writer joins what the multiplexer writes piece by piece. Each write to the container's input wakes the engine, its shim and the
// guest in turn, and the multiplexer writes each frame in two; so a frame goes out whole, together with those that came while
// the one before was being written. An error is that of a later Write.
type writer struct {
	io.ReadWriteCloser
	body int64 // bytes of payload that the frame being written still lacks; Write alone uses it

	mu      sync.Mutex // guards what follows
	moved   sync.Cond  // pending has grown or shrunk, or it is over
	pending []byte
	whole   int // how much of pending may be written
	closed  bool
	err     error

	ended chan struct{}
}

func newWriter(conn io.ReadWriteCloser) *writer {
	w := &writer{ReadWriteCloser: conn, ended: make(chan struct{})}
	w.moved.L = &w.mu
	go w.flush()
	return w
}

// Write takes a header or the payload that follows it, as the multiplexer cuts them.
func (w *writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) >= maxPending && w.err == nil && !w.closed {
		w.moved.Wait()
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.closed:
		return 0, io.ErrClosedPipe
	}
	w.pending = append(w.pending, b...)
	if w.holds(b) {
		return len(b), nil
	}
	w.whole = len(w.pending)
	w.moved.Broadcast()
	return len(b), nil
}

// holds tells whether more follows at once, without which the peer has no use for b.
func (w *writer) holds(b []byte) bool {
	if w.body > 0 {
		w.body -= int64(len(b))
		return w.body > 0
	}
	if len(b) != muxHeader {
		return false
	}
	if b[1] == muxData {
		w.body = int64(binary.BigEndian.Uint32(b[8:]))
		return w.body > 0
	}
	// A stream that was opened says next what it is for.
	return b[1] == muxWindow && binary.BigEndian.Uint16(b[2:])&muxSYN != 0
}

// flush writes until Close.
func (w *writer) flush() {
	defer close(w.ended)
	var spare []byte
	for {
		w.mu.Lock()
		for w.whole == 0 && !w.closed {
			w.moved.Wait()
		}
		if w.closed {
			w.mu.Unlock()
			return
		}
		// Nothing is split: Write adds to what is held or completes it under the lock.
		now := w.pending[:w.whole]
		w.pending, w.whole = append(spare[:0], w.pending[w.whole:]...), 0
		w.moved.Broadcast()
		w.mu.Unlock()
		_, err := w.ReadWriteCloser.Write(now)
		spare = now
		if cap(spare) > 2*maxPending {
			spare = nil
		}
		if err != nil {
			w.fail(err)
			return
		}
	}
}

func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	w.moved.Broadcast()
}

// Close closes the connection below, and gives up what is pending.
func (w *writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.moved.Broadcast()
	w.mu.Unlock()
	err := w.ReadWriteCloser.Close()
	<-w.ended
	return err
}
