package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// wire is a guest that has said all that it ever says.
type wire struct{ io.Reader }

func (wire) Write(b []byte) (int, error) { return len(b), nil }
func (wire) Close() error                { return nil }

// muxFrame is one frame of the multiplexer.
func muxFrame(kind byte, flags uint16, stream uint32, payload []byte) []byte {
	b := []byte{0, kind}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// FuzzLink is the runner's end against a guest that sends anything. Whatever it is, the session comes to its end with
// the guest's, no stream yields what is not well-formed, and none more than it may.
func FuzzLink(f *testing.F) {
	const syn, fin, rst = 1, 4, 8
	header := func(text string) []byte { return muxFrame(muxData, syn, 1, framed(text)) }
	control := header(`{"purpose":"control"}`)
	f.Add([]byte{})
	f.Add(control)
	f.Add(append(control, muxFrame(muxData, 0, 1, framed(`{"measured":{}}`))...))
	f.Add(append(control, muxFrame(muxData, fin, 1, framed(`{"exit":{"code":3}}`))...))
	f.Add(append(control, control...))
	f.Add(append(control, muxFrame(muxData, rst, 1, nil)...))
	f.Add(append(control, muxFrame(muxData, 0, 1, framed(`{"reset":{"stream":1}}`))...))
	f.Add(append(header(`{"purpose":"resolve","name":"example.org","type":"A"}`), muxFrame(muxPing, muxSYN, 0, nil)...))
	f.Add(append(header(`{"purpose":"connect","addr":"192.0.2.1:80"}`), muxFrame(1, 0, 1, nil)...))
	f.Add(muxFrame(3, 0, 0, nil))
	f.Add(bytes.Repeat(muxFrame(muxPing, muxSYN, 0, nil), 300))
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, sent []byte) {
		s, err := NewRunner(wire{bytes.NewReader(sent)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for {
			st, err := s.Accept()
			if err != nil {
				break
			}
			readAll(t, st, len(sent))
		}
		<-s.Done()
	})
}

// readAll reads a stream to its end as the runner would.
func readAll(t *testing.T, st *Stream, limit int) {
	defer st.Close()
	h, err := st.ReadHeader()
	if err != nil {
		return
	}
	if h.Purpose != Control {
		n, _ := io.Copy(io.Discard, st)
		if n > int64(limit) {
			t.Errorf("%d bytes came out of %d", n, limit)
		}
		return
	}
	for {
		frame, err := ReadFrame(st)
		if err != nil {
			return
		}
		checkFrame(t, frame)
	}
}

// FuzzFrame: a frame that is taken is a frame that can be sent, and the same on the other side.
func FuzzFrame(f *testing.F) {
	for _, text := range []string{
		`{"go":{}}`, `{"exit":{"code":1,"signal":9,"error":"x","oom_kills":1}}`, `{"refused":{"proto":"udp","addr":"[::1%lo]:1"}}`,
		`{"measured":{"agent":{"uid":[1,2,3,4]},"mounts":[{"target":"/"}]}}`, `{"start":{"argv":["\ud800"]}}`, `{"Go":{}}`, `{"reset":{"stream":4294967295}}`, `{"reset":{"stream":-1}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		frame, err := ReadFrame(bytes.NewReader(framed(string(text))))
		if err != nil {
			if len(text) > 0 && !errors.Is(err, ErrFrame) {
				t.Errorf("a whole frame was refused with %v", err)
			}
			return
		}
		checkFrame(t, frame)
	})
}

func checkFrame(t *testing.T, frame Frame) {
	t.Helper()
	if frame.count() != 1 {
		t.Errorf("%d messages in one frame: %+v", frame.count(), frame)
	}
	if e := frame.Exit; e != nil && e.Code != int(uint8(e.Code)) {
		t.Errorf("exit status %d", e.Code)
	}
	var buf bytes.Buffer
	if err := WriteFrame(&buf, frame); err != nil {
		return // it has grown over the limit by being escaped
	}
	again, err := ReadFrame(&buf)
	if err != nil {
		t.Errorf("%+v does not come back: %v", frame, err)
	} else if diff := cmp.Diff(again, frame, address); diff != "" {
		t.Errorf("another frame comes back (-got +want):\n%s", diff)
	}
}
