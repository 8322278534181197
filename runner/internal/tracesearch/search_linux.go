package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// windowSize is how many bytes of a text are looked up at once, and the least that it has.
	windowSize = 8
	tableBits  = 20
	pieceSize  = 1 << 20
)

// search finds any of many texts in one pass: a table says which windows of eight bytes may begin one.
type search struct {
	table   []bool
	texts   map[uint64][]text // by their first window
	longest int
	buffer  []byte
}

type text struct {
	name  string
	bytes []byte
}

func newSearch(texts map[string][]byte) (*search, error) {
	s := &search{table: make([]bool, 1<<tableBits), texts: map[uint64][]text{}}
	for name, b := range texts {
		if len(b) < windowSize {
			return nil, fmt.Errorf("the text %s is shorter than %d bytes", name, windowSize)
		}
		window := binary.LittleEndian.Uint64(b)
		s.table[slot(window)] = true
		s.texts[window] = append(s.texts[window], text{name, b})
		s.longest = max(s.longest, len(b))
	}
	s.buffer = make([]byte, s.longest+pieceSize)
	return s, nil
}

// slot is a multiplicative hash: the multiplier is 2^64 divided by the golden ratio.
func slot(window uint64) uint64 { return window * 0x9E3779B97F4A7C15 >> (64 - tableBits) }

// in is the names of the texts in b.
func (s *search) in(b []byte) map[string]bool {
	var found map[string]bool
	for i := 0; i+windowSize <= len(b); i++ {
		window := binary.LittleEndian.Uint64(b[i:])
		if !s.table[slot(window)] {
			continue
		}
		for _, t := range s.texts[window] {
			if bytes.HasPrefix(b[i:], t.bytes) {
				if found == nil {
					found = map[string]bool{}
				}
				found[t.name] = true
			}
		}
	}
	return found
}

// through reads to the end, or as far as that goes.
func (s *search) through(r io.Reader) (found map[string]bool, n int64) {
	found = map[string]bool{}
	kept := 0 // of the piece before: as much as a text can have there without being complete
	for {
		m, err := io.ReadFull(r, s.buffer[kept:kept+pieceSize])
		n += int64(m)
		all := s.buffer[:kept+m]
		for name := range s.in(all) {
			found[name] = true
		}
		if err != nil {
			return found, n
		}
		kept = copy(s.buffer, all[len(all)-(s.longest-1):])
	}
}
