package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// framed is text as it goes over the wire.
func framed(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

var address = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func TestFramesSurvive(t *testing.T) {
	var buf bytes.Buffer
	frames := []Frame{
		{Start: &Start{Version: Version, Argv: []string{"a", "b c", "\x00\xff"}, Env: []string{"A=b"}, Dir: "/workspace", UID: 1, GID: 2, TTY: true, Size: Size{3, 4}}},
		{Measured: &Measurement{Agent: Process{UID: [4]int{1, 1, 1, 1}, Groups: []int{1}}, Mounts: []Mount{{Target: "/"}}}},
		{Go: &Go{}},
		{Started: &Started{PID: 7}},
		{Signal: &Signal{Number: 15}},
		{Resize: &Size{Rows: 65535, Cols: 1}},
		{Refused: &Refused{Proto: "udp", Addr: netip.MustParseAddrPort("[2001:db8::1]:53")}},
		{Exit: &Exit{Code: 255, Signal: 64, OOMKills: -1}},
		{Failure: &Failure{Step: "network", Reason: "no"}},
	}
	frames[0].Start.Argv[2] = "\x00" // JSON has no bytes that are not UTF-8
	for _, f := range frames {
		if err := WriteFrame(&buf, f); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range frames {
		got, err := ReadFrame(&buf)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, want, address); diff != "" {
			t.Errorf("another frame came out (-got +want):\n%s", diff)
		}
	}
	if _, err := ReadFrame(&buf); err != io.EOF {
		t.Errorf("at the end: %v, want EOF", err)
	}
}

func TestReadFrameRefuses(t *testing.T) {
	long := strings.Repeat("x", MaxFrame)
	for _, tt := range []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"no field", framed(`{}`), ErrFrame},
		{"two fields", framed(`{"go":{},"started":{"pid":1}}`), ErrFrame},
		{"an unknown field", framed(`{"go":{},"more":1}`), ErrFrame},
		{"an unknown field within", framed(`{"started":{"pid":1,"more":1}}`), ErrFrame},
		{"null", framed(`null`), ErrFrame},
		{"no object", framed(`[]`), ErrFrame},
		{"no JSON", framed(`hello`), ErrFrame},
		{"nothing", framed(``), ErrFrame},
		{"two values", framed(`{"go":{}}{"go":{}}`), ErrFrame},
		{"a wrong type", framed(`{"started":{"pid":"1"}}`), ErrFrame},
		{"a number out of range", framed(`{"resize":{"rows":65536,"cols":1}}`), ErrFrame},
		{"a wrong address", framed(`{"refused":{"proto":"udp","addr":"elsewhere"}}`), ErrFrame},
		{"a status beyond a byte", framed(`{"exit":{"code":256}}`), ErrFrame},
		{"a negative status", framed(`{"exit":{"code":-1}}`), ErrFrame},
		{"a signal that is none", framed(`{"exit":{"code":1,"signal":65}}`), ErrFrame},
		{"too long", framed(`{"failure":{"step":"` + long + `"}}`), ErrFrame},
		{"a length alone", []byte{0xff, 0xff, 0xff, 0xff}, ErrFrame},
		{"cut in the length", []byte{0, 0}, io.ErrUnexpectedEOF},
		{"cut after the length", []byte{0, 0, 0, 9}, io.ErrUnexpectedEOF},
		{"cut in the body", framed(`{"go":{}}`)[:8], io.ErrUnexpectedEOF},
	} {
		f, err := ReadFrame(bytes.NewReader(tt.bytes))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %+v, %v, want %v", tt.name, f, err, tt.want)
		}
	}
}

// TestReadFrameTakesNoMore: what follows a frame belongs to whoever reads next.
func TestReadFrameTakesNoMore(t *testing.T) {
	r := bytes.NewReader(append(framed(`{"go":{}}`), "the next"...))
	if _, err := ReadFrame(r); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "the next" {
		t.Errorf("left is %q", rest)
	}
}

func TestWriteFrameRefusesTooMuch(t *testing.T) {
	var buf bytes.Buffer
	err := WriteFrame(&buf, Frame{Start: &Start{Argv: []string{strings.Repeat("x", MaxFrame)}}})
	if err == nil || buf.Len() > 0 {
		t.Errorf("error %v after %d bytes: a frame that nobody reads was sent", err, buf.Len())
	}
}
