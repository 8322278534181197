package link

import (
	"errors"
	"testing"
)

// TestUnreadFlood: what nobody reads is bounded over all streams, however small each is.
func TestUnreadFlood(t *testing.T) {
	runner, guest := hostile(t)
	runner.guard.unread.limit = 4 << 20
	window := make([]byte, 256<<10) // the multiplexer's
	go func() {
		for { // until the session ends
			st, err := guest.Open()
			if err != nil {
				return
			}
			if _, err := st.Write(window); err != nil {
				return
			}
		}
	}()
	for n := 0; ; n++ {
		st, err := runner.Accept()
		if err != nil { // which may be before all that came were accepted
			break
		}
		if n%2 == 0 { // that the runner is done with it is no reason to forget it
			_ = st.GiveUp()
		}
	}
	<-runner.Done()
	u := &runner.guard.unread
	u.mu.Lock()
	defer u.mu.Unlock()
	full := int64(len(window))
	if streams := int64(len(u.streams)); streams != u.limit/full+1 || u.total <= u.limit || u.total > u.limit+full {
		t.Errorf("the session ended with %d streams and %d bytes unread, want one full stream more than the limit of %d", streams, u.total, u.limit)
	}
}

// TestUnreadCounts: reading, and the end of a stream at both ends, make room again.
func TestUnreadCounts(t *testing.T) {
	u := unread{limit: 1 << 10}
	steps := []struct {
		what string
		do   func() error
		want int64
	}{
		{"of no stream", func() error { return u.frame(1, 0, 100) }, 0},
		{"opened", func() error { return u.frame(1, muxSYN, 100) }, 100},
		{"another", func() error { return u.frame(3, muxSYN, 50) }, 150},
		{"read", func() error { u.read(1, 60); return nil }, 90},
		{"ended by the guest", func() error { return u.frame(1, muxFIN, 0) }, 90},
		{"given up too", func() error { u.give(1); return nil }, 50},
		{"given up alone", func() error { u.give(3); return nil }, 50},
		{"more on it", func() error { return u.frame(3, 0, 7) }, 57},
		{"reset", func() error { return u.frame(3, muxRST, 0) }, 0},
		{"after all", func() error { return u.frame(3, 0, 7) }, 0},
	}
	for _, s := range steps {
		if err := s.do(); err != nil || u.total != s.want {
			t.Errorf("%s: %d are unread (%v), want %d", s.what, u.total, err, s.want)
		}
	}
	if len(u.streams) != 0 {
		t.Errorf("%d streams are left", len(u.streams))
	}
}

// TestUnreadStreams: streams that are opened and never accepted are counted as well.
func TestUnreadStreams(t *testing.T) {
	u := unread{limit: 1 << 10}
	for id := range uint32(maxKnown) {
		if err := u.frame(id, muxSYN, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.frame(maxKnown, muxSYN, 0); !errors.Is(err, errFlood) {
		t.Errorf("one more: %v", err)
	}
}
