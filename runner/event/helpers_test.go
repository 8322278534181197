package event

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

func typeName(v any) string { return fmt.Sprintf("%T", v) }

// sink collects envelopes, and fails from the failAt-th on when that is set.
type sink struct {
	mu     sync.Mutex
	got    []Envelope
	failAt int
}

var errSink = errors.New("sink is broken")

func (s *sink) Handle(env Envelope) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, env)
	if s.failAt > 0 && len(s.got) >= s.failAt {
		return errSink
	}
	return nil
}

// stepClock advances by one second at each look.
func stepClock() func() time.Time {
	var mu sync.Mutex
	now := testTime()
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

// memFile is a File that can run full.
type memFile struct {
	data   []byte
	room   int // bytes that still fit; negative: no limit
	syncs  int
	closed bool
}

var errFull = errors.New("no space left on device")

func (f *memFile) Write(p []byte) (int, error) {
	if f.room >= 0 && len(p) > f.room {
		n := f.room
		f.data, f.room = append(f.data, p[:n]...), 0
		return n, errFull
	}
	if f.room >= 0 {
		f.room -= len(p)
	}
	f.data = append(f.data, p...)
	return len(p), nil
}

func (f *memFile) Sync() error { f.syncs++; return nil }

func (f *memFile) Truncate(size int64) error { f.data = f.data[:size]; return nil }

func (f *memFile) Close() error { f.closed = true; return nil }
