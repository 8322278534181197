package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

// taker is a connection whose writes wait until they are taken.
type taker struct {
	io.ReadWriteCloser
	writes chan []byte
	gone   chan struct{}
}

func newTaker() *taker { return &taker{writes: make(chan []byte), gone: make(chan struct{})} }

func (t *taker) Write(b []byte) (int, error) {
	select {
	case t.writes <- bytes.Clone(b):
		return len(b), nil
	case <-t.gone:
		return 0, io.ErrClosedPipe
	}
}

func (t *taker) Close() error { close(t.gone); return nil }

func head(kind byte, flags uint16, length int) []byte {
	b := make([]byte, muxHeader)
	b[1] = kind
	binary.BigEndian.PutUint16(b[2:], flags)
	binary.BigEndian.PutUint32(b[8:], uint32(length))
	return b
}

func put(t *testing.T, w io.Writer, pieces ...[]byte) {
	t.Helper()
	for _, p := range pieces {
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatalf("wrote %d of %d, %v", n, len(p), err)
		}
	}
}

// TestWriterJoins: the peer is woken once for a new stream with its header, and once for all that came while it was busy.
func TestWriterJoins(t *testing.T) {
	below := newTaker()
	w := newWriter(below)
	defer w.Close()
	open, data, body, ping := head(muxWindow, muxSYN, 0), head(muxData, 0, 5), []byte("hello"), head(muxPing, muxSYN, 0)
	put(t, w, open, data, body)
	if got, want := <-below.writes, bytes.Join([][]byte{open, data, body}, nil); !bytes.Equal(got, want) {
		t.Errorf("a new stream is written as\n%x, want\n%x", got, want)
	}
	put(t, w, ping)
	put(t, w, data, body, open, data, body)
	var got []byte
	for n := 0; len(got) < len(ping)+2*(len(data)+len(body))+len(open); n++ {
		if n == 2 {
			t.Fatalf("two writes took no more than %x", got)
		}
		got = append(got, <-below.writes...)
	}
	if want := bytes.Join([][]byte{ping, data, body, open, data, body}, nil); !bytes.Equal(got, want) {
		t.Errorf("then comes\n%x, want\n%x", got, want)
	}
}

// TestWriterBounded: what the peer does not take is not kept without end, and Close frees whoever waits.
func TestWriterBounded(t *testing.T) {
	w := newWriter(newTaker())
	body := make([]byte, maxPending/4)
	ended := make(chan int, 1)
	go func() {
		n := 0
		for ; ; n++ {
			if _, err := w.Write(head(muxData, 0, len(body))); err != nil {
				break
			}
			if _, err := w.Write(body); err != nil {
				break
			}
		}
		ended <- n
	}()
	w.mu.Lock()
	for len(w.pending) < maxPending {
		w.moved.Wait()
	}
	w.mu.Unlock()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if n := <-ended; n > 10 { // what flush has taken, what is pending, and one more
		t.Errorf("%d pieces of %d bytes were taken", n, len(body))
	}
}

// TestWriterFails: the multiplexer learns of an error with what it writes next.
func TestWriterFails(t *testing.T) {
	below := newTaker()
	w := newWriter(below)
	close(below.gone)
	ping := head(muxPing, muxSYN, 0)
	put(t, w, ping)
	<-w.ended
	if _, err := w.Write(ping); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the next write says %v", err)
	}
}
