package egress

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// secondVersion is a connection of HTTP/2 as net/http gets it. What net/http refuses by itself, since it is not as HTTP/2 has it, shows
// in the frames that it sends.
type secondVersion struct {
	awaited
	sent sentFrames // net/http writes in one goroutine at a time
	seen uint64     // of sent's heads those with such a status as net/http's own answers have

	begun, ended atomic.Bool // there was something to write; nothing more can be read
}

// Read notes the end of what the agent sends.
func (s *secondVersion) Read(p []byte) (int, error) {
	n, err := s.awaited.Read(p)
	if err != nil {
		s.ended.Store(true)
	}
	return n, err
}

// Write records such refusals.
func (s *secondVersion) Write(p []byte) (int, error) {
	s.begun.Store(true)
	s.sent.look(p, s.refused, s.answered)
	return s.Conn.Write(p)
}

// isOwnStatus tells the answers that net/http gives by itself, without the handler: to a head with what belongs to a connection of HTTP/1, or
// that is too long.
func isOwnStatus(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusRequestHeaderFieldsTooLarge
}

// answered records such an answer if it is none of the host's, each of which the handler has counted before.
func (s *secondVersion) answered(status int) {
	if !isOwnStatus(status) {
		return
	}
	if s.seen++; s.seen > s.in.passedOn.Load() {
		s.seen--
		s.in.unreadable(CodeProtocol, "the head of the request is not as HTTP/2 has it, or is too long", status)
	}
}

// Close records a connection that begins with something else, with which net/http is done without a word.
func (s *secondVersion) Close() error {
	if !s.begun.Load() && !s.ended.Load() {
		s.told.Do(func() { s.in.unreadable(CodeProtocol, "the connection does not begin as HTTP/2 has it", 0) })
	}
	return s.Conn.Close()
}

// refused takes the error code of a stream that net/http ends, or of the connection.
func (s *secondVersion) refused(frame http2.FrameType, code http2.ErrCode) {
	if !isRefusal(frame, code) {
		return
	}
	s.in.unreadable(CodeProtocol, fmt.Sprintf("the frames are not as HTTP/2 has them (%s)", code), 0)
}

// isRefusal tells the codes for what the agent did from those with which a stream ends that was served, and was recorded then. A frame for a
// stream that has just ended is none: it may have been on its way.
func isRefusal(frame http2.FrameType, code http2.ErrCode) bool {
	if frame == http2.FrameGoAway && code == http2.ErrCodeStreamClosed {
		return true
	}
	return slices.Contains([]http2.ErrCode{
		http2.ErrCodeProtocol, http2.ErrCodeFlowControl, http2.ErrCodeSettingsTimeout, http2.ErrCodeFrameSize, http2.ErrCodeCompression,
		http2.ErrCodeEnhanceYourCalm, http2.ErrCodeInadequateSecurity,
	}, code)
}

const (
	frameHeader = 9 // bytes (RFC 9113, section 4.1): length (3), type, flags, stream (4)
	resetCode   = 4 // the whole of RST_STREAM is its code
	goAwayCode  = 8 // GOAWAY has it behind the last stream
)

// sentFrames follows the frames of one direction. They are our own server's, so that nothing in them has to be checked.
type sentFrames struct {
	head   [frameHeader + goAwayCode]byte
	have   int  // bytes of head
	skip   int  // of the payload
	inHead bool // the payload is of an answer's head
	fields *hpack.Decoder
	status func(int)
}

// look goes on with p and reports the codes of RST_STREAM and GOAWAY, and the status of each head.
func (f *sentFrames) look(p []byte, report func(http2.FrameType, http2.ErrCode), status func(int)) {
	f.status = status
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(p))
			f.skip -= n
			if f.inHead {
				f.read(p[:n])
			}
			p = p[n:]
			continue
		}
		n := copy(f.head[f.have:f.need()], p)
		f.have += n
		p = p[n:]
		if f.have < f.need() {
			continue
		}
		need := f.need()
		if need > frameHeader {
			report(http2.FrameType(f.head[3]), http2.ErrCode(binary.BigEndian.Uint32(f.head[need-4:])))
		}
		f.skip = int(f.head[0])<<16 + int(f.head[1])<<8 + int(f.head[2]) - (need - frameHeader)
		f.have = 0
		kind := http2.FrameType(f.head[3])
		f.inHead = kind == http2.FrameHeaders || kind == http2.FrameContinuation // net/http's have no padding and no priority
	}
}

// read goes on with a block of header fields: all of them have to be read, since each can refer to those before.
func (f *sentFrames) read(block []byte) {
	if f.fields == nil {
		f.fields = hpack.NewDecoder(headerTable, func(field hpack.HeaderField) {
			if field.Name != ":status" {
				return
			}
			if status, err := strconv.Atoi(field.Value); err == nil {
				f.status(status)
			}
		})
	}
	if _, err := f.fields.Write(block); err == nil && f.skip == 0 && f.head[4]&byte(http2.FlagHeadersEndHeaders) != 0 {
		_ = f.fields.Close()
	}
}

// headerTable is what net/http's encoder has at most, whatever the agent offers: its default (RFC 7541, section 4.2).
const headerTable = 4096

// need is how much of a frame is looked at.
func (f *sentFrames) need() int {
	switch {
	case f.have < frameHeader:
		return frameHeader
	case http2.FrameType(f.head[3]) == http2.FrameRSTStream:
		return frameHeader + resetCode
	case http2.FrameType(f.head[3]) == http2.FrameGoAway:
		return frameHeader + goAwayCode
	}
	return frameHeader
}
