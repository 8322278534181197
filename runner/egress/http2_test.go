package egress

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
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
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true}); err != nil {
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
