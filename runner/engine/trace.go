package engine

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
)

func isConflict(err error) bool { return errdefs.IsConflict(err) }

// lineReader reads lines of a bounded length.
type lineReader struct{ r *bufio.Reader }

func newLineReader(r io.Reader) *lineReader { return &lineReader{bufio.NewReaderSize(r, 64<<10)} }

var errLongLine = errors.New("a line is too long")

// next returns the next line, or what there is at the end.
func (l *lineReader) next() ([]byte, error) {
	var line []byte
	for {
		part, err := l.r.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxBuildLine {
			return nil, errLongLine
		}
		switch {
		case err == nil, err == io.EOF && len(line) > 0:
			return line, nil
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}

// buildTrace turns what a builder reports into lines of text. The classic builder sends text, BuildKit the changes of its
// graph: moby.buildkit.v1.StatusResponse of
// https://github.com/moby/buildkit/blob/master/api/services/control/control.proto, of which three fields are for people.
type buildTrace struct {
	line  func(string)
	part  []byte          // of a line that has not ended
	names map[string]bool // steps that have been told
}

// maxPart bounds what is kept of a line that does not end.
const maxPart = 64 << 10

// text takes output as it comes, in any portions.
func (t *buildTrace) text(s string) {
	for {
		line, rest, ended := strings.Cut(s, "\n")
		t.part = append(t.part, line...)
		if !ended && len(t.part) <= maxPart {
			return
		}
		t.line(string(t.part))
		t.part = t.part[:0]
		if s = rest; !ended {
			return
		}
	}
}

// The fields of StatusResponse, Vertex and VertexLog that are read.
const (
	statusVertex = 1
	statusLog    = 3
	vertexDigest = 1
	vertexName   = 3
	vertexStart  = 5
	logMessage   = 4
)

// maxSteps bounds the steps that are told apart.
const maxSteps = 10_000

func (t *buildTrace) add(aux json.RawMessage) error {
	var b []byte
	if err := json.Unmarshal(aux, &b); err != nil {
		return fmt.Errorf("read the builder's report: %w", err)
	}
	return eachField(b, func(field uint64, value []byte) error {
		switch field {
		case statusVertex:
			return t.step(value)
		case statusLog:
			return eachField(value, func(field uint64, value []byte) error {
				if field == logMessage {
					t.text(string(value))
				}
				return nil
			})
		}
		return nil
	})
}

// step tells a step once, when it starts.
func (t *buildTrace) step(vertex []byte) error {
	var digest, name string
	started := false
	err := eachField(vertex, func(field uint64, value []byte) error {
		switch field {
		case vertexDigest:
			digest = string(value)
		case vertexName:
			name = string(value)
		case vertexStart:
			started = true
		}
		return nil
	})
	if err == nil && started && !t.names[digest] && len(t.names) < maxSteps {
		t.names[digest] = true
		t.line(name)
	}
	return err
}

var errWire = errors.New("read the builder's report: it is not what the protocol says")

// eachField calls f with the fields of a message that have a length (https://protobuf.dev/programming-guides/encoding/).
func eachField(b []byte, f func(field uint64, value []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errWire
		}
		b = b[n:]
		size := uint64(0)
		switch tag & 7 {
		case 0: // a number
			if _, n = binary.Uvarint(b); n <= 0 {
				return errWire
			}
			b = b[n:]
			continue
		case 1:
			size = 8
		case 2:
			if size, n = binary.Uvarint(b); n <= 0 {
				return errWire
			}
			b = b[n:]
		case 5:
			size = 4
		default:
			return errWire
		}
		if size > uint64(len(b)) {
			return errWire
		}
		if tag&7 == 2 {
			if err := f(tag>>3, b[:size]); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}
