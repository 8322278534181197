package egress

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// wire is a host that keeps the requests that it sees.
type wire struct {
	mu   sync.Mutex // guards seen
	seen []string
}

func (w *wire) serve(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body))
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Evil") || isHopByHop(name) && name != "Te" {
			w.seen = append(w.seen, "header "+name)
		}
	}
	fmt.Fprint(rw, "served")
}

func (w *wire) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.seen, " | ")
}

// TestSmugglingInside: what one request hides of another never gets to the host as one, with and without TLS.
func TestSmugglingInside(t *testing.T) {
	const hidden = "GET /closed/x HTTP/1.1\r\nHost: HOST\r\n\r\n"
	for _, tt := range []struct{ name, raw, want string }{
		{"positive control", "GET /open/x HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /open/x "},
		{"pipelined", "GET /open/x HTTP/1.1\r\nHost: HOST\r\n\r\n" + hidden, "GET /open/x "},
		{"length and chunked", "POST /open/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, "POST /open/x "},
		{"two lengths", "POST /open/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd" + hidden, ""},
		{"length with a sign", "POST /open/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: +4\r\n\r\nabcd" + hidden, ""},
		{"length with an underscore", "POST /open/x HTTP/1.1\r\nHost: HOST\r\nContent_Length: 40\r\n\r\n" + hidden, ""},
		{"chunked twice", "POST /open/x HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + hidden, ""},
		{"coding with a blank", "POST /open/x HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden, ""},
		{"hidden coding", "POST /open/x HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + hidden, ""},
		{"size of a chunk", "POST /open/x HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n" + hidden, "POST /open/x "},
		{"continued line", "GET /open/x HTTP/1.1\r\nHost: HOST\r\nX-A: b\r\n Transfer-Encoding: chunked\r\n\r\n", "GET /open/x "},
		{"bare CR in a value", "GET /open/x HTTP/1.1\r\nHost: HOST\r\nX-A: b\rX-Evil: 1\r\n\r\n", ""},
		{"NUL in a value", "GET /open/x HTTP/1.1\r\nHost: HOST\r\nX-A: b\x00c\r\n\r\n", ""},
		{"LF in the path", "GET /open/x\nX-Evil:1 HTTP/1.1\r\nHost: HOST\r\n\r\n", ""},
		{"two hosts", "GET /open/x HTTP/1.1\r\nHost: HOST\r\nHost: b.example\r\n\r\n", ""},
		{"another host", "GET /open/x HTTP/1.1\r\nHost: b.example\r\n\r\n", ""},
		{"no host", "GET /open/x HTTP/1.1\r\n\r\n", ""},
		{"absolute target", "GET https://b.example/open/x HTTP/1.1\r\nHost: HOST\r\n\r\n", ""},
		{"user in the target", "GET https://HOST@b.example/open/x HTTP/1.1\r\nHost: HOST\r\n\r\n", ""},
		{"TRACE", "TRACE /open/x HTTP/1.1\r\nHost: HOST\r\n\r\n", ""},
		{"CONNECT", "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n", ""},
		{"HTTP/2 at once", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""},
		{"h2c", "GET /open/x HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "GET /open/x "},
		{"dropped by Connection", "GET /open/x HTTP/1.1\r\nHost: HOST\r\nConnection: X-Evil\r\nX-Evil: 1\r\n\r\n", "GET /open/x "},
		{"path that is a host", "GET //b.example/open/x HTTP/1.1\r\nHost: HOST\r\n\r\n", ""},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n", ""},
		{"lower case", "get /open/x HTTP/1.1\r\nHost: HOST\r\n\r\n", ""},
	} {
		for _, secure := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, TLS %v", tt.name, secure), func(t *testing.T) {
				got := smuggle(t, tt.raw, secure)
				if got != tt.want && (tt.name != "size of a chunk" || got != "") { // its head may get there before its body is read
					t.Errorf("the host saw %q, want %q", got, tt.want)
				}
			})
		}
	}
}

// smuggle sends raw bytes and returns what the host saw.
func smuggle(t *testing.T, raw string, secure bool) string {
	t.Helper()
	p, w := newPKI(t), &wire{}
	b := p.backend("a.example", false, w.serve)
	if !secure {
		b = plainBackend(t, w.serve)
	}
	s := p.inspecting(inspectedNetwork, b.port)
	raw = strings.ReplaceAll(raw, "HOST", fmt.Sprintf("a.example:%d", b.port))
	var conn io.ReadWriteCloser
	if secure {
		conn = s.secureDial("a.example", b.port)
	} else {
		conn = s.mustDial("a.example", b.port)
	}
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	// A last request, so that everything before it is done when its answer is there, or the connection is ended.
	_, _ = fmt.Fprintf(conn, "GET /last HTTP/1.1\r\nHost: a.example:%d\r\nConnection: close\r\n\r\n", b.port)
	_, _ = io.ReadAll(conn)
	_ = conn.Close()
	return w.all()
}

// TestKeepAliveAcrossRules: on one connection every request is decided anew, and a refusal does not end it.
func TestKeepAliveAcrossRules(t *testing.T) {
	for _, secure := range []bool{true, false} {
		p, w := newPKI(t), &wire{}
		b := p.backend("a.example", false, w.serve)
		if !secure {
			b = plainBackend(t, w.serve)
		}
		s := p.inspecting(inspectedNetwork, b.port)
		var conn io.ReadWriter = s.mustDial("a.example", b.port)
		if secure {
			conn = s.secureDial("a.example", b.port)
		}
		br := bufio.NewReader(conn)
		for i, path := range []string{"/open/1", "/closed/2", "/open/3", "/closed/4", "/open/5"} {
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a.example:%d\r\nContent-Length: 4\r\n\r\nbody", path, b.port)
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			if want := []int{200, 403}[i%2]; resp.StatusCode != want {
				t.Errorf("TLS %v: %s: %d, want %d", secure, path, resp.StatusCode, want)
			}
		}
		if got, want := w.all(), "POST /open/1 body | POST /open/3 body | POST /open/5 body"; got != want {
			t.Errorf("TLS %v: the host saw %s", secure, got)
		}
		if r := s.rec.request(4); r.Outcome != Refused || r.Path != "/closed/4" || r.Code != policy.CodeRequest {
			t.Errorf("TLS %v: record %+v", secure, r)
		}
	}
}
