package egress

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// plainSandbox allows a.example and b.example, both served by the same real server on one port.
func plainSandbox(t testing.TB, port int) *sandbox {
	t.Helper()
	p := mustPolicy(t, "  allow: [{host: a.example, port: %[1]d, private: true}, {host: b.example, port: %[1]d, private: true}]\n", port)
	return newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}, "b.example": {"127.0.0.1"}}, Limits{})
}

// TestSmuggling sends every ambiguous request to a real server, behind a good one on the same connection and alone. The
// server must never see the hidden request.
func TestSmuggling(t *testing.T) {
	backend := newSink(t)
	s := plainSandbox(t, backend.port)
	good := "GET /good HTTP/1.1\r\nHost: a.example\r\n\r\n"
	n := 0
	for name, raw := range smuggled() {
		for _, prefix := range []string{"", good} {
			n++
			answer, err := s.talk("a.example", backend.port, prefix+raw)
			r := s.rec.ended(n)
			if r.Outcome != Refused || r.Code != CodeProtocol && r.Code != CodeMismatch {
				t.Errorf("%s after %q: %s %s (%s)", name, prefix, r.Outcome, r.Code, r.Reason)
			}
			if prefix == "" && (err != nil || !strings.HasPrefix(answer, "HTTP/1.1 403 ") && 'A' <= raw[0] && raw[0] <= 'Z') {
				t.Errorf("%s: the client saw %q, %v", name, answer, err)
			}
		}
	}
	got := backend.bytes(n)
	if strings.Contains(got, "evil") || strings.Contains(got, "POST") {
		t.Errorf("the host has got %q", got)
	}
	if count := strings.Count(got, good); count != n/2 {
		t.Errorf("positive control: %d good requests arrived, want %d", count, n/2)
	}
}

// TestHiddenInBodies: what is behind a body is a request of its own, and is checked as one.
func TestHiddenInBodies(t *testing.T) {
	backend := newSink(t)
	s := plainSandbox(t, backend.port)
	evil := "GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n"
	head := "POST /good HTTP/1.1\r\nHost: a.example\r\n"
	tests := []struct {
		name, raw string
		code      policy.Code
	}{
		{"behind a length", head + "Content-Length: 2\r\n\r\nok" + evil, CodeMismatch},
		{"behind chunks", head + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + evil, CodeMismatch},
		{"behind a GET with a body", "GET /good HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nok" + evil, CodeMismatch},
		{"behind 1.0 without a length", "POST /good HTTP/1.0\r\nHost: a.example\r\n\r\n" + evil, CodeMismatch},
		{"after close", "GET /good HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n" + evil, CodeMismatch},
		{"for another allowed host", "GET /good HTTP/1.1\r\nHost: a.example\r\n\r\nGET /evil HTTP/1.1\r\nHost: b.example\r\n\r\n", CodeMismatch},
		{"chunk longer than it says", head + "Transfer-Encoding: chunked\r\n\r\n2\r\nokXX\r\n0\r\n\r\n", CodeProtocol},
		{"bare LF after a chunk", head + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\n0\r\n\r\n", CodeProtocol},
		{"bare LF after a size", head + "Transfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", CodeProtocol},
		{"LF in an extension", head + "Transfer-Encoding: chunked\r\n\r\n2;\n" + evil, CodeProtocol},
		{"framing in a trailer", head + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n", CodeProtocol},
		{"host in a trailer", head + "Transfer-Encoding: chunked\r\n\r\n0\r\nHost: evil.example\r\n\r\n", CodeProtocol},
		{"h2c preface after a request", "GET /good HTTP/1.1\r\nHost: a.example\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", CodeProtocol},
	}
	for i, tt := range tests {
		if _, err := s.talk("a.example", backend.port, tt.raw); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if r := s.rec.ended(i + 1); r.Outcome != Refused || r.Code != tt.code {
			t.Errorf("%s: %s %s (%s), want %s", tt.name, r.Outcome, r.Code, r.Reason, tt.code)
		}
	}
	if got := backend.bytes(len(tests)); strings.Contains(got, "evil") || strings.Count(got, "/good") != len(tests) {
		t.Errorf("the host has got %q", got)
	}
}

func TestPlainHTTP(t *testing.T) {
	server := web(t, false)
	port := portOf(server.Listener)
	s := plainSandbox(t, port)
	c := s.httpClient(nil)
	url := fmt.Sprintf("http://a.example:%d/x", port)
	for range 3 {
		if got, err := get(t, c, url); err != nil || got != fmt.Sprintf("200 GET a.example:%d/x body=0", port) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	// A body of unknown length is sent in chunks.
	body := io.LimitReader(zeros{}, 3<<20)
	resp, err := c.Post(url, "text/plain", struct{ io.Reader }{body})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, _ := io.ReadAll(resp.Body); string(got) != fmt.Sprintf("POST a.example:%d/x body=%d", port, 3<<20) {
		t.Errorf("%q", got)
	}
	c.CloseIdleConnections()
	if r := s.rec.ended(1); r.Requests != 4 || r.Protocol != HTTP || r.Outcome != Allowed || r.Up < 3<<20 {
		t.Errorf("one connection with four requests: %+v", r)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestContinue waits for the interim answer before the body, as curl does.
func TestContinue(t *testing.T) {
	server := web(t, false)
	s := plainSandbox(t, portOf(server.Listener))
	conn := s.mustDial("a.example", portOf(server.Listener))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	br := bufio.NewReader(conn)
	if line, err := br.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = br.ReadString('\n')
	fmt.Fprint(conn, "ok")
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("%v, %v", resp, err)
	}
}

// switching is a real server that speaks another protocol after "Upgrade: websocket", or ignores the header.
func switching(t testing.TB, agree bool) int {
	t.Helper()
	l := listen(t)
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:gosec // a test
			if !agree || r.Header.Get("Upgrade") != "websocket" {
				fmt.Fprintf(w, "plain %s%s", r.Host, r.URL.Path)
				return
			}
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst")
			_, _ = io.Copy(conn, rw)
		}))
	}()
	return portOf(l)
}

const askWebSocket = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

func TestWebSocket(t *testing.T) {
	port := switching(t, true)
	s := plainSandbox(t, port)
	got, err := s.talk("a.example", port, askWebSocket+"\x81\x02hi\n\nanything")
	if err != nil || !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.HasSuffix(got, "\r\n\r\nfirst\x81\x02hi\n\nanything") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestWebSocketThatIsNone: when the host goes on with HTTP, so does the checking.
func TestWebSocketThatIsNone(t *testing.T) {
	port := switching(t, false)
	s := plainSandbox(t, port)
	got, err := s.talk("a.example", port, askWebSocket+"GET /evil HTTP/1.1\r\nHost: b.example\r\n\r\n")
	if err != nil || strings.Contains(got, "evil") || !strings.Contains(got, "plain a.example/ws") {
		t.Errorf("%q, %v", got, err)
	}
	if r := s.rec.ended(1); r.Outcome != Refused || r.Code != CodeMismatch || r.Requests != 1 {
		t.Errorf("%+v", r)
	}
	// Only the first request of a connection can ask for it.
	got, err = s.talk("a.example", port, "GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n"+askWebSocket)
	if err != nil || !strings.Contains(got, "plain a.example/ws") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestStreaming: each event arrives before the next one is sent.
func TestStreaming(t *testing.T) {
	next := make(chan struct{})
	l := listen(t)
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // a test
			w.Header().Set("Trailer", "X-Sum")
			for i := range 3 {
				fmt.Fprintf(w, "data: %d\n", i)
				w.(http.Flusher).Flush()
				<-next
			}
			w.Header().Set("X-Sum", "3")
		}))
	}()
	s := plainSandbox(t, portOf(l))
	resp, err := s.httpClient(nil).Get(fmt.Sprintf("http://a.example:%d/", portOf(l)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	br := bufio.NewReader(resp.Body)
	for i := range 3 {
		if line, err := br.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
		next <- struct{}{}
	}
	if _, err := br.ReadByte(); err != io.EOF || resp.Trailer.Get("X-Sum") != "3" {
		t.Errorf("end: %v, trailer %v", err, resp.Trailer)
	}
}

// TestRedirectToPrivateAddress: the host is allowed, where it leads is not.
func TestRedirectToPrivateAddress(t *testing.T) {
	l := listen(t)
	go func() {
		_ = http.Serve(l, http.RedirectHandler("http://169.254.169.254/latest/meta-data/", http.StatusFound)) //nolint:gosec // a test
	}()
	s := plainSandbox(t, portOf(l))
	_, err := get(t, s.httpClient(nil), fmt.Sprintf("http://a.example:%d/", portOf(l)))
	if err == nil || !strings.Contains(err.Error(), "no rule allows the host") {
		t.Errorf("%v", err)
	}
}
