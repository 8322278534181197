package egress

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

const okHost = "Host: a.example\r\n"

// smuggled are requests of which some server reads more, fewer or other requests than another does. "§" marks the end of
// a valid first part for those that hide something in a body.
func smuggled() map[string]string {
	evil := "GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n"
	return map[string]string{
		"CL and TE":                 "POST / HTTP/1.1\r\n" + okHost + "Content-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
		"TE and CL":                 "POST / HTTP/1.1\r\n" + okHost + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + evil,
		"two lengths":               "POST / HTTP/1.1\r\n" + okHost + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + evil,
		"two equal lengths":         "POST / HTTP/1.1\r\n" + okHost + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + evil,
		"list of lengths":           "POST / HTTP/1.1\r\n" + okHost + "Content-Length: 0, 0\r\n\r\n" + evil,
		"length with a sign":        "POST / HTTP/1.1\r\n" + okHost + "Content-Length: +0\r\n\r\n" + evil,
		"negative length":           "POST / HTTP/1.1\r\n" + okHost + "Content-Length: -1\r\n\r\n" + evil,
		"hex length":                "POST / HTTP/1.1\r\n" + okHost + "Content-Length: 0x0\r\n\r\n" + evil,
		"length with an underscore": "POST / HTTP/1.1\r\n" + okHost + "Content_Length: 44\r\n\r\n" + evil,
		"two codings":               "POST / HTTP/1.1\r\n" + okHost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + evil,
		"list of codings":           "POST / HTTP/1.1\r\n" + okHost + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + evil,
		"unknown coding":            "POST / HTTP/1.1\r\n" + okHost + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + evil,
		"coding with a tab":         "POST / HTTP/1.1\r\n" + okHost + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + evil,
		"coding with an underscore": "POST / HTTP/1.1\r\n" + okHost + "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
		"coding in 1.0":             "POST / HTTP/1.0\r\n" + okHost + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
		"blank before the colon":    "POST / HTTP/1.1\r\n" + okHost + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + evil,
		"folded header":             "POST / HTTP/1.1\r\n" + okHost + "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
		"header without a name":     "GET / HTTP/1.1\r\n" + okHost + ": x\r\n\r\n",
		"header without a colon":    "GET / HTTP/1.1\r\n" + okHost + "x\r\n\r\n",
		"bare LF in the head":       "GET / HTTP/1.1\r\n" + okHost + "X: y\nHost: evil.example\r\n\r\n",
		"bare LF at the end":        "GET / HTTP/1.1\r\n" + okHost + "\n" + evil,
		"bare LF after the line":    "GET / HTTP/1.1\n" + okHost + "\r\n",
		"bare CR":                   "GET / HTTP/1.1\r\n" + okHost + "X: y\rHost: evil.example\r\n\r\n",
		"NUL":                       "GET / HTTP/1.1\r\n" + okHost + "X: y\x00z\r\n\r\n",
		"NUL in the host":           "GET / HTTP/1.1\r\nHost: a.example\x00.evil.example\r\n\r\n",
		"two hosts":                 "GET / HTTP/1.1\r\n" + okHost + "Host: evil.example\r\n\r\n",
		"the same host twice":       "GET / HTTP/1.1\r\n" + okHost + okHost + "\r\n",
		"no host":                   "GET / HTTP/1.1\r\n\r\n",
		"no host in 1.0":            "GET / HTTP/1.0\r\n\r\n",
		"absolute for another":      "GET http://evil.example/ HTTP/1.1\r\n" + okHost + "\r\n",
		"absolute with user":        "GET http://a.example@evil.example/ HTTP/1.1\r\n" + okHost + "\r\n",
		"absolute https":            "GET https://a.example/ HTTP/1.1\r\n" + okHost + "\r\n",
		"target without a slash":    "GET evil HTTP/1.1\r\n" + okHost + "\r\n",
		"authority":                 "GET evil.example:80 HTTP/1.1\r\n" + okHost + "\r\n",
		"blank in the target":       "GET / evil HTTP/1.1\r\n" + okHost + "\r\n",
		"two blanks":                "GET  / HTTP/1.1\r\n" + okHost + "\r\n",
		"tab for a blank":           "GET\t/ HTTP/1.1\r\n" + okHost + "\r\n",
		"HTTP/0.9":                  "GET /\r\n" + okHost + "\r\n",
		"HTTP/2 in words":           "GET / HTTP/2.0\r\n" + okHost + "\r\n",
		"HTTP/1.2":                  "GET / HTTP/1.2\r\n" + okHost + "\r\n",
		"lower-case version":        "GET / http/1.1\r\n" + okHost + "\r\n",
		"CONNECT":                   "CONNECT a.example:443 HTTP/1.1\r\n" + okHost + "\r\n",
		"TRACE":                     "TRACE / HTTP/1.1\r\n" + okHost + "\r\n",
		"trace in small letters":    "trace / HTTP/1.1\r\n" + okHost + "\r\n",
		"empty line first":          "\r\nGET / HTTP/1.1\r\n" + okHost + "\r\n",
		"head that is too long":     "GET / HTTP/1.1\r\n" + okHost + "X: " + strings.Repeat("y", maxHead) + "\r\n\r\n",
		"too many headers":          "GET / HTTP/1.1\r\n" + okHost + strings.Repeat("X: y\r\n", maxFields) + "\r\n",
	}
}

func TestReadRequestRefuses(t *testing.T) {
	for name, raw := range smuggled() {
		r, err := readRequest(bufio.NewReader(strings.NewReader(raw)))
		if !errors.As(err, new(errHead)) && (err != nil || r.checkHost(target(t, "a.example"), 80) == nil) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func target(t testing.TB, s string) policy.Host {
	t.Helper()
	h, err := policy.ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestReadRequest(t *testing.T) {
	tests := []struct{ raw, want string }{
		{"GET /a?b=/%2F HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET /a?b=/%2F HTTP/1.1\r\nHost: a.example\r\n\r\n"},
		{"GET http://A.example:80/a HTTP/1.1\r\nHost: a.example:80\r\n\r\n", "GET /a HTTP/1.1\r\nHost: a.example:80\r\n\r\n"},
		{"GET HTTP://a.example?x HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET /?x HTTP/1.1\r\nHost: a.example\r\n\r\n"},
		{"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n"},
		{"GET / HTTP/1.0\r\nhost:\ta.example \r\n\r\n", "GET / HTTP/1.0\r\nhost: a.example\r\n\r\n"},
		{"POST / HTTP/1.1\r\nHost: a.example\r\ncontent-length: 5\r\n\r\n", "POST / HTTP/1.1\r\nHost: a.example\r\ncontent-length: 5\r\n\r\n"},
		{"GET / HTTP/1.1\r\nHost: a.example\r\nX:\r\nY: \xe9\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\nX: \r\nY: \xe9\r\n\r\n"},
		// What concerns one connection alone is not passed on.
		{"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close, Host\r\nKeep-Alive: 5\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"},
		{"GET / HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"},
		{"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"},
		{"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"},
		{"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"},
		{"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\n"},
	}
	for _, tt := range tests {
		r, err := readRequest(bufio.NewReader(strings.NewReader(tt.raw)))
		if err != nil {
			t.Errorf("%q: %v", tt.raw, err)
			continue
		}
		if e := r.checkHost(target(t, "a.example"), 80); e != nil {
			t.Errorf("%q: %v", tt.raw, e)
		}
		r.normalize(true)
		if got := string(r.bytes()); got != tt.want {
			t.Errorf("%q is passed on as %q, want %q", tt.raw, got, tt.want)
		}
	}
}

func TestCheckHost(t *testing.T) {
	tests := []struct {
		host, dialled string
		port          uint16
		want          bool
	}{
		{"a.example", "a.example", 80, true},
		{"A.Example", "a.example", 80, true},
		{"a.example.", "a.example", 80, true},
		{"a.example:8080", "a.example", 8080, true},
		{"a.example", "a.example", 8080, true},
		{"B\u00dccher.example", "xn--bcher-kva.example", 80, true},
		{"1.2.3.4", "1.2.3.4", 80, true},
		{"[2606::1]:80", "2606::1", 80, true},
		{"a.example:80", "a.example", 8080, false},
		{"a.example:", "a.example", 80, false},
		{"a.example:080", "a.example", 80, false},
		{"a.example:80:80", "a.example", 80, false},
		{"user@a.example", "a.example", 80, false},
		{"a.example@evil.example", "a.example", 80, false},
		{"a.example%00", "a.example", 80, false},
		{"a.example/", "a.example", 80, false},
		{"a.example..", "a.example", 80, false},
		{"x.a.example", "a.example", 80, false},
		{"example", "a.example", 80, false},
		{"", "a.example", 80, false},
		{"[a.example]", "a.example", 80, false},
		{"[1.2.3.4]", "1.2.3.4", 80, false},
		{"[2606::1]x", "2606::1", 80, false},
		{"2606::1", "2606::1", 80, false},
		{"0x01020304", "1.2.3.4", 80, false},
		{"1.2.772", "1.2.3.4", 80, false},
		{strings.Repeat("a.", 1<<15) + "example", "a.example", 80, false},
	}
	for _, tt := range tests {
		e := (&request{host: tt.host}).checkHost(target(t, tt.dialled), tt.port)
		if (e == nil) != tt.want {
			t.Errorf("Host %.40q for %s:%d: %v, want ok %v", tt.host, tt.dialled, tt.port, e, tt.want)
		}
	}
}

// FuzzRequest holds the parser against that of net/http: what is passed on is one request for the same host with the same body,
// and nothing behind it.
func FuzzRequest(f *testing.F) {
	for _, raw := range smuggled() {
		if len(raw) < 1000 {
			f.Add([]byte(raw))
		}
	}
	f.Add([]byte("POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := readRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil || r.checkHost(target(t, "a.example"), 80) != nil {
			return
		}
		r.normalize(true)
		sent := r.bytes()
		rest := bufio.NewReader(bytes.NewReader(sent))
		got, err := http.ReadRequest(rest)
		if err != nil {
			return // net/http is stricter still, such as about what a URL can decode to
		}
		name, _, _ := splitHost(got.Host)
		if host, err := parseName(name); err != nil || host != target(t, "a.example") {
			t.Errorf("%q: a server reads the host %q", sent, got.Host)
		}
		if got.Method != r.method {
			t.Errorf("%q: a server reads the method %q", sent, got.Method)
		}
		chunked := slices.Equal(got.TransferEncoding, []string{"chunked"})
		if chunked != (r.length < 0) || !chunked && got.ContentLength != r.length {
			t.Errorf("%q: a server reads a body of %d (%v), we %d", sent, got.ContentLength, got.TransferEncoding, r.length)
		}
		if n := rest.Buffered(); n != 0 {
			t.Errorf("%q: %d bytes are left behind the head", sent, n)
		}
	})
}

func TestChunkSize(t *testing.T) {
	for line, want := range map[string]int64{
		"0": 0, "a": 10, "FF;x=y": 255, "00000000000001": 1,
		"": -1, " 1": -1, "1 ": -1, "+1": -1, "-1": -1, "0x1": -1, "1_0": -1, "ffffffffffffffff": -1, "1;\x00": -1, "g": -1,
	} {
		got, ok := parseChunkSize(line)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("parseChunkSize(%q) = %d, %v, want %d", line, got, ok, want)
		}
	}
}

// FuzzChunks holds the chunked coding against net/http/httputil: what is passed on is read as the same body.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"))
	f.Add([]byte("0\r\n\r\nGET / HTTP/1.1\r\nHost: evil\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var sent bytes.Buffer
		c := pipeline(bytes.NewReader(raw), &sent)
		if e := c.sendChunks(); e != nil {
			return
		}
		consumed := len(raw) - c.fromClient.Buffered()
		ours, err1 := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(sent.Bytes())))
		theirs, err2 := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(raw[:consumed])))
		if err1 != nil || err2 != nil || !bytes.Equal(ours, theirs) {
			t.Errorf("%q becomes %q: %q (%v), %q (%v)", raw, sent.Bytes(), ours, err1, theirs, err2)
		}
	})
}

// pipeline is as much of a connection as passing on a body takes.
func pipeline(from io.Reader, to io.Writer) *connection {
	c := &connection{g: &Gateway{}, fromClient: bufio.NewReaderSize(from, 1<<16)}
	c.g.buffers.New = func() any { return new([largeBuffer]byte) }
	c.up = &meter{to: to, moved: &c.moved}
	return c
}
