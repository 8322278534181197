//go:build docker

package link

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
)

// Weakened says which bounds on a guest are left out. It exists only in builds with the tag docker, so that the escape suite can
// show what each bound is good for.
type Weakened struct {
	Window  bool  // a stream takes in more than its window before it is read
	Streams bool  // any number of streams
	Pings   bool  // any number of pings
	Unread  int64 // another bound on what nobody has read, in bytes; 0: the usual one
	Frames  bool  // messages of any length, with anything in them: see ReadAnyFrame
}

// NewWeakened is NewRunner without some of the bounds.
func NewWeakened(conn io.ReadWriteCloser, w Weakened) (*Session, error) {
	b := allBounds()
	if w.Window {
		b.window *= 16
	}
	if w.Streams {
		b.streams = math.MaxInt
	}
	if w.Pings {
		b.pings = math.MaxInt / 2
	}
	if w.Unread > 0 {
		b.unread = w.Unread
	}
	return newRunner(conn, b)
}

// ReadAnyFrame is ReadFrame without its checks.
func ReadAnyFrame(r io.Reader) (Frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(r, body); err != nil {
		return Frame{}, err
	}
	var f Frame
	err := json.Unmarshal(body, &f)
	return f, err
}
