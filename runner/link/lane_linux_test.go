package link

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// lanes are both ends of a lane.
func lanes(t *testing.T) (runner, guest *Lane) {
	t.Helper()
	h, err := NewLaneHost(filepath.Join(t.TempDir(), "l"))
	if err != nil {
		t.Fatal(err)
	}
	if guest, err = dialLane(filepath.Join(h.Dir(), laneName), h.Nonce); err != nil {
		t.Fatal(err)
	}
	if runner, err = h.Take(); runner == nil || err != nil {
		t.Fatalf("no lane: %v", err)
	}
	t.Cleanup(func() { _ = guest.Close(); _ = runner.Close() })
	return runner, guest
}

// laneStreams are both ends of a stream on it, whose header has been read. The runner goes on reading what the guest says of streams.
func laneStreams(t *testing.T, r, g *Lane) (runner, guest *Stream) {
	t.Helper()
	accepted := make(chan *Stream)
	go func() {
		for {
			st, err := r.Accept()
			if err != nil {
				return
			}
			accepted <- st
		}
	}()
	guest, err := g.Begin()
	if err != nil {
		t.Fatal(err)
	}
	runner = <-accepted
	if err := guest.WriteHeader(Header{Purpose: Connect}); err != nil {
		t.Fatal(err)
	}
	if h, err := runner.ReadHeader(); err != nil || h.Purpose != Connect || !runner.OnLane() {
		t.Fatalf("the header is %+v (%v)", h, err)
	}
	t.Cleanup(func() { _ = runner.GiveUp(); _ = guest.GiveUp() })
	return runner, guest
}

// TestLaneTakesOne: with the guest's arrival socket and directory are gone, also if it is somebody else who comes.
func TestLaneTakesOne(t *testing.T) {
	for name, say := range map[string]func([]byte) []byte{
		"the guest":     func(nonce []byte) []byte { return nonce },
		"somebody":      func([]byte) []byte { return make([]byte, laneNonce) },
		"half a nonce":  func(nonce []byte) []byte { return nonce[:laneNonce/2] },
		"more than one": func(nonce []byte) []byte { return append(nonce[:len(nonce):len(nonce)], 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "l")
			h, err := NewLaneHost(dir)
			if err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(h.Dir(), laneName)
			guest, dialErr := dialLane(socket, say(h.Nonce))
			if guest != nil {
				defer guest.Close()
			}
			if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the directory is there when the guest has its answer: %v", err)
			}
			if _, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"}); err == nil {
				t.Error("a second one got in")
			}
			lane, err := h.Take()
			if lane != nil {
				defer lane.Close()
			}
			if good := name == "the guest"; err != nil || (lane != nil) != good || (dialErr == nil) != good {
				t.Errorf("lane %v, %v; the guest's error %v", lane != nil, err, dialErr)
			}
		})
	}
}

// TestLaneWithoutGuest: nobody comes, and nothing is left.
func TestLaneWithoutGuest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	h, err := NewLaneHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	if lane, err := h.Take(); lane != nil || err != nil {
		t.Errorf("lane %v, %v", lane != nil, err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if _, err := NewLaneHost(t.TempDir()); err == nil {
		t.Error("a directory that somebody else has made is taken")
	}
}

// TestLaneStream: bytes go both ways, and the end of one direction leaves the other.
func TestLaneStream(t *testing.T) {
	r, g := lanes(t)
	runner, guest := laneStreams(t, r, g)
	if runner.StreamID() != guest.StreamID() || runner.StreamID()%2 != 0 {
		t.Errorf("numbers %d and %d", runner.StreamID(), guest.StreamID())
	}
	if _, err := io.WriteString(guest, "up"); err != nil {
		t.Fatal(err)
	}
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(runner); string(b) != "up" || err != nil {
		t.Errorf("%q, %v went up", b, err)
	}
	if _, err := io.WriteString(runner, "down"); err != nil {
		t.Fatal(err)
	}
	if err := runner.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(guest); string(b) != "down" || err != nil {
		t.Errorf("%q, %v went down", b, err)
	}
}

// TestLaneGuestDies: what a dead guest had still to send is not passed off as all.
func TestLaneGuestDies(t *testing.T) {
	r, g := lanes(t)
	runner, guest := laneStreams(t, r, g)
	if _, err := io.WriteString(guest, "half"); err != nil {
		t.Fatal(err)
	}
	// As the kernel does it, in either order.
	_ = guest.transport.(*laneConn).UnixConn.Close()
	_ = g.Close()
	go func() { _ = r.Close() }() // whoever accepts does so after the error
	if b, err := io.ReadAll(runner); err == nil {
		t.Errorf("%q is said to be all", b)
	}
}

// TestLaneReset: what was sent before comes, then an error and never an end; whichever side breaks off.
func TestLaneReset(t *testing.T) {
	for _, which := range []string{"runner", "guest"} {
		t.Run(which, func(t *testing.T) {
			r, g := lanes(t)
			from, to := laneStreams(t, r, g)
			if which == "guest" {
				from, to = to, from
			}
			var fromResets, toResets Resets
			told := make(chan struct{})
			receiver := NewConn(to, &toResets, func(Frame) error { return nil }, func() { close(told) })
			sender := NewConn(from, &fromResets, func(f Frame) error { toResets.Reset(*f.Reset); return nil }, func() {})
			const sent = "half of a file"
			if _, err := io.WriteString(sender, sent); err != nil {
				t.Fatal(err)
			}
			if err := sender.Reset(); err != nil {
				t.Fatal(err)
			}
			finished := make(chan struct{})
			go func() { defer close(finished); sender.Finish(time.Hour) }()
			<-told
			if got, err := io.ReadAll(receiver); string(got) != sent || !errors.Is(err, errReset) {
				t.Errorf("read %q, %v", got, err)
			}
			receiver.Finish(time.Hour)
			<-finished
			if len(r.open) != 0 {
				t.Errorf("%d streams are remembered", len(r.open))
			}
		})
	}
}
