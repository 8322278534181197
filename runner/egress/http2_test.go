package egress

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/org/agent-sandbox/policy"
)

// TestHTTP2Requests that are never passed on, on a connection that carries good ones.
func TestHTTP2Requests(t *testing.T) {
	p, w := newPKI(t), &wire{}
	b := p.backend("a.example", true, w.serve)
	s := p.inspecting(inspectedNetwork, b.port)
	authority := fmt.Sprintf("a.example:%d", b.port)
	head := func(method, authority, path string, more ...string) []string {
		return append([]string{":method", method, ":scheme", "https", ":authority", authority, ":path", path}, more...)
	}
	for _, tt := range []struct {
		name   string
		fields []string
		want   string // status, or "reset"
	}{
		{"positive control", head("GET", authority, "/open/x"), "200"},
		{"another authority", head("GET", "b.example", "/open/x"), "421"},
		{"another host beside it", head("GET", authority, "/open/x", "host", "b.example"), "421"},
		{"user in the authority", head("GET", "x@"+authority, "/open/x"), "reset"},
		{"path without a slash", head("GET", authority, "open/x"), "reset"},
		{"path that is a URL", head("GET", authority, "https://b.example/open/x"), "403"},
		{"line break in the path", head("GET", authority, "/open/x HTTP/1.1\r\nX-Evil: 1"), "reset"},
		{"line break in a header", head("GET", authority, "/open/x", "x-a", "1\r\nX-Evil: 1"), "reset"},
		{"header of a connection", head("GET", authority, "/open/x", "transfer-encoding", "chunked"), "400"},
		{"upgrade", head("GET", authority, "/open/x", "upgrade", "websocket", "connection", "upgrade"), "400"},
		{"TRACE", head("TRACE", authority, "/open/x"), "403"},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "b.example:443"}, "403"},
		{"extended CONNECT", head("CONNECT", authority, "/open/x", ":protocol", "websocket"), "reset"},
		{"method with a blank", head("GET /open/y", authority, "/open/x"), "403"},
		{"closed", head("GET", authority, "/closed/x"), "403"},
	} {
		before := w.all()
		got := rawHTTP2(t, s.secureDial("a.example", b.port, "h2"), tt.fields)
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if seen := strings.TrimPrefix(w.all(), before); (seen != "") != (tt.want == "200") {
			t.Errorf("%s: the host saw %q", tt.name, seen)
		}
	}
}

// TestHTTP2Frames that net/http refuses by itself are in the record, each once, and good ones are not.
func TestHTTP2Frames(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, func(http.ResponseWriter, *http.Request) {})
	authority := fmt.Sprintf("a.example:%d", b.port)
	head := func(path string) []string {
		return []string{":method", "GET", ":scheme", "https", ":authority", authority, ":path", path}
	}
	for _, tt := range []struct {
		name string
		send func(conn io.Writer, f *http2.Framer) error
		want string // in the reason; empty: nothing is refused
	}{
		{"positive control", func(_ io.Writer, f *http2.Framer) error { return f.WriteHeaders(headersOf(1, head("/open/x"))) }, ""},
		{"path without a slash", func(_ io.Writer, f *http2.Framer) error { return f.WriteHeaders(headersOf(1, head("open/x"))) }, "PROTOCOL_ERROR"},
		{"line break in a header", func(_ io.Writer, f *http2.Framer) error {
			return f.WriteHeaders(headersOf(1, append(head("/open/x"), "x-a", "1\r\nX-Evil: 1")))
		}, "PROTOCOL_ERROR"},
		{"even stream", func(_ io.Writer, f *http2.Framer) error { return f.WriteHeaders(headersOf(2, head("/open/x"))) }, "PROTOCOL_ERROR"},
		{"data on a stream that is not open", func(_ io.Writer, f *http2.Framer) error { return f.WriteData(1, true, []byte("x")) }, "PROTOCOL_ERROR"},
		{"table that can't be decoded", func(_ io.Writer, f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff}, EndStream: true, EndHeaders: true})
		}, "COMPRESSION_ERROR"},
		{"frame that is too long", func(w io.Writer, _ *http2.Framer) error {
			_, err := w.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1})
			return err
		}, "FRAME_SIZE_ERROR"},
		{"window that is too large", func(_ io.Writer, f *http2.Framer) error { return f.WriteWindowUpdate(0, 1<<31-1) }, "FLOW_CONTROL_ERROR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := p.inspecting(inspectedNetwork, b.port)
			conn := s.secureDial("a.example", b.port, "h2")
			framer := http2.NewFramer(conn, conn)
			_, err := io.WriteString(conn, http2.ClientPreface)
			if err = errors.Join(err, framer.WriteSettings(), tt.send(conn, framer)); err != nil {
				t.Fatal(err)
			}
			r := s.rec.request(1)
			if refused := r.Outcome == Refused; refused != (tt.want != "") {
				t.Errorf("record %+v", r)
			}
			if tt.want != "" && (r.Code != CodeProtocol || !strings.Contains(r.Reason, tt.want) || r.Host != "a.example" || r.Count != 1) {
				t.Errorf("record %+v, want %s", r, tt.want)
			}
			_ = conn.Close()
			s.rec.ended(1)
			if all := s.rec.requests(); len(all) != 1 {
				t.Errorf("%d records: %+v", len(all), all)
			}
		})
	}
}

// TestHTTP2OwnAnswers: what net/http answers without asking us is in the record as a refusal, and the same status from the host is not.
func TestHTTP2OwnAnswers(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/open/"))
		w.WriteHeader(status)
	})
	s := p.inspecting(inspectedNetwork, b.port)
	conn := s.secureDial("a.example", b.port, "h2")
	defer conn.Close()
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	ask := func(stream uint32, path string, more ...string) string {
		t.Helper()
		block.Reset()
		fields := append([]string{":method", "GET", ":scheme", "https", ":authority", fmt.Sprintf("a.example:%d", b.port), ":path", path}, more...)
		for i := 0; i < len(fields); i += 2 {
			_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		if err := writeBlock(framer, stream, block.String()); err != nil {
			t.Fatal(err)
		}
		return statusOf(t, framer, stream)
	}
	long := strings.Repeat("x", 2000)
	var many []string
	for i := range 31 { // a little more than there may be: far more ends the connection
		many = append(many, fmt.Sprintf("x-%d", i), long)
	}
	for i, tt := range []struct {
		path string
		more []string
		want string
		own  bool
	}{
		{"/open/200", nil, "200", false},
		{"/open/400", nil, "400", false},
		{"/open/200", []string{"transfer-encoding", "chunked"}, "400", true},
		{"/open/431", nil, "431", false},
		{"/open/200", many, "431", true},
		{"/open/431", nil, "431", false},
		{"/open/400", []string{"connection", "upgrade", "upgrade", "h2c"}, "400", true},
	} {
		if got := ask(uint32(2*i+1), tt.path, tt.more...); got != tt.want {
			t.Fatalf("%s: %s, want %s", tt.path, got, tt.want)
		}
		r := s.rec.request(i + 1)
		if (r.Outcome == Refused) != tt.own || strconv.Itoa(r.Status) != tt.want || tt.own && r.Code != CodeProtocol {
			t.Errorf("%d, %s: record %+v", i, tt.path, r)
		}
	}
}

// writeBlock writes a head in as many frames as it takes.
func writeBlock(framer *http2.Framer, stream uint32, block string) error {
	const most = 16 << 10 // of a frame (RFC 9113, section 4.2)
	first := block[:min(len(block), most)]
	rest := block[len(first):]
	err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(first), EndStream: true, EndHeaders: rest == ""})
	for err == nil && rest != "" {
		part := rest[:min(len(rest), most)]
		rest = rest[len(part):]
		err = framer.WriteContinuation(stream, rest == "", []byte(part))
	}
	return err
}

// statusOf is that of the answer on a stream, when it has ended.
func statusOf(t *testing.T, framer *http2.Framer, stream uint32) (status string) {
	t.Helper()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			status = f.PseudoValue("status")
			if f.StreamEnded() {
				return status
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return status
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			t.Fatalf("stream %d: %v", stream, f)
		}
	}
}

// TestHTTP2Beginning: a connection that was agreed to be of HTTP/2, and is of something else or of nothing.
func TestHTTP2Beginning(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, func(http.ResponseWriter, *http.Request) {})
	for text, want := range map[string]policy.Code{
		"GET /open/x HTTP/1.1\r\nHost: a.example\r\n\r\n": CodeProtocol,
		"PRI * HT": CodeSlow,
	} {
		s := p.limited(inspectedNetwork, b.port, Limits{Opening: time.Second})
		conn := s.secureDial("a.example", b.port, "h2")
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if n, _ := io.Copy(io.Discard, conn); n != 0 {
			t.Errorf("%q: an answer of %d bytes", text, n)
		}
		if r := s.rec.request(1); r.Outcome != Refused || r.Code != want {
			t.Errorf("%q: record %+v, want %s", text, r, want)
		}
		_ = conn.Close()
	}
}

// headersOf is one head that is a whole request.
func headersOf(stream uint32, fields []string) http2.HeadersFrameParam {
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true}
}

// rawHTTP2 sends one head as it is and returns the status of the answer, or "reset".
func rawHTTP2(t *testing.T, conn interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	Close() error
}, fields []string,
) string {
	t.Helper()
	defer conn.Close()
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteHeaders(headersOf(1, fields)); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "reset"
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			if v, ok := f.Value(http2.SettingEnableConnectProtocol); ok && v != 0 {
				t.Error("extended CONNECT is offered")
			}
			if v, ok := f.Value(http2.SettingMaxConcurrentStreams); !ok || v != maxStreams {
				t.Errorf("%d streams at once are offered", v)
			}
			_ = framer.WriteSettingsAck()
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset"
		}
	}
}
