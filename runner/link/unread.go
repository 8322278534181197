package link

import (
	"fmt"
	"sync"
)

const (
	// maxUnread bounds what the runner holds for a guest, in bytes: a thousand connections whose hosts take nothing at all. The
	// multiplexer alone would take its window for each of MaxStreams.
	maxUnread = 256 << 20
	// maxKnown bounds the streams that are counted: those that are open, and those that nobody has accepted yet.
	maxKnown = 2 * MaxStreams
)

// unread counts what the guest has sent and nobody has read, of all streams together.
type unread struct {
	limit int64

	mu      sync.Mutex // guards what follows
	streams map[uint32]*waiting
	total   int64
}

// waiting is one stream. It counts until the multiplexer has forgotten it, which takes both ends.
type waiting struct {
	bytes        int64
	ended, given bool // by the guest, up by us
}

// frame counts a frame of the guest.
func (u *unread) frame(stream uint32, flags uint16, length int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if flags&muxSYN != 0 && u.streams[stream] == nil {
		if len(u.streams) >= maxKnown {
			return fmt.Errorf("%w: %d streams", errFlood, len(u.streams))
		}
		if u.streams == nil {
			u.streams = map[uint32]*waiting{}
		}
		u.streams[stream] = &waiting{}
	}
	w := u.streams[stream]
	if w == nil { // the multiplexer drops it too
		return nil
	}
	w.bytes += length
	u.total += length
	if u.total > u.limit {
		return fmt.Errorf("%w: %d bytes are unread", errFlood, u.total)
	}
	if flags&(muxFIN|muxRST) != 0 {
		w.ended = true
		u.forget(stream, w)
	}
	return nil
}

func (u *unread) read(stream uint32, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.streams[stream]; w != nil {
		w.bytes -= int64(n)
		u.total -= int64(n)
	}
}

// give says that nobody reads the stream any more.
func (u *unread) give(stream uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.streams[stream]; w != nil {
		w.given = true
		u.forget(stream, w)
	}
}

func (u *unread) forget(stream uint32, w *waiting) {
	if w.ended && w.given {
		u.total -= w.bytes
		delete(u.streams, stream)
	}
}
