package egress

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// TestGRPC is a call as gRPC has it: both directions open at once, and the status in trailers.
func TestGRPC(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Te") != "trailers" {
			t.Errorf("TE is %q", r.Header.Get("Te"))
		}
		w.Header().Set("Content-Type", "application/grpc")
		if r.URL.Path == "/open/fails" {
			w.Header().Set("Grpc-Status", "5")
			return
		}
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(flushing{w}, r.Body)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "late")
	})
	s := p.inspecting(inspectedNetwork, b.port)
	body, feed := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("https://a.example:%d/open/echo", b.port), body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := s.agent(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 3 {
		message := fmt.Sprintf("message %d", i)
		if _, err := io.WriteString(feed, message); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(message))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != message {
			t.Fatalf("%q, %v", got, err)
		}
	}
	_ = feed.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Grpc-Message") != "late" {
		t.Errorf("trailers %v", resp.Trailer)
	}
	req, _ = http.NewRequest(http.MethodPost, fmt.Sprintf("https://a.example:%d/open/fails", b.port), nil)
	req.Header.Set("Te", "trailers")
	resp2, err := s.agent(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp2.Body.Close()
	if resp2.Header.Get("Grpc-Status") != "5" || resp2.ContentLength != 0 { // the head ended the stream
		t.Errorf("trailers only: %v, length %d", resp2.Header, resp2.ContentLength)
	}
}

type flushing struct{ w http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	return n, err
}

func TestServerSentEvents(t *testing.T) {
	both(t, func(t *testing.T, agentH2, hostH2 bool) {
		p := newPKI(t)
		next := make(chan string)
		gone := make(chan struct{})
		b := p.backend("a.example", hostH2, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			for {
				select {
				case event := <-next:
					fmt.Fprintf(flushing{w}, "data: %s\n", event)
				case <-r.Context().Done():
					close(gone)
					return
				}
			}
		})
		s := p.inspecting(inspectedNetwork, b.port)
		resp, err := s.agent(agentH2).Get(fmt.Sprintf("https://a.example:%d/open/events", b.port))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 3 { // the next event is sent only when this one has arrived
			next <- fmt.Sprint(i)
			if got, err := lines.ReadString('\n'); err != nil || got != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%q, %v", got, err)
			}
		}
		_ = resp.Body.Close() // the agent gives up, and the host notices
		await(t, gone)
	})
}

func await(t testing.TB, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("did not happen in time")
	}
}

func TestContinueAndEarlyHints(t *testing.T) {
	both(t, func(t *testing.T, agentH2, hostH2 bool) {
		p := newPKI(t)
		b := p.backend("a.example", hostH2, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/open/no" {
				w.WriteHeader(http.StatusExpectationFailed)
				return
			}
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		})
		s := p.inspecting(inspectedNetwork, b.port)
		hints, continued, sent := 0, 0, &countingReader{}
		for path, want := range map[string]string{"/open/yes": "200 3000", "/open/no": "417 "} {
			sent.Reader = strings.NewReader(strings.Repeat("x", 3000))
			req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("https://a.example:%d%s", b.port, path), sent)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = 3000
			req.Header.Set("Expect", "100-continue")
			before := sent.n
			resp, err := s.agent(agentH2).Do(req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got100Continue: func() { continued++ },
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					if code == http.StatusEarlyHints && h.Get("Link") != "" {
						hints++
					}
					return nil
				},
			})))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if got := fmt.Sprintf("%d %s", resp.StatusCode, body); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
			if path == "/open/no" && sent.n != before && !(agentH2 && hostH2) { // net/http takes the header out of HTTP/2 requests
				t.Errorf("the agent sent %d bytes that nobody wanted", sent.n-before)
			}
		}
		if hints != 1 || continued == 0 {
			t.Errorf("%d early hints, %d times 100", hints, continued)
		}
	})
}

type countingReader struct {
	io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func TestHeadsAndTrailers(t *testing.T) {
	both(t, func(t *testing.T, agentH2, hostH2 bool) {
		p := newPKI(t)
		b := p.backend("a.example", hostH2, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/open/none":
				w.WriteHeader(http.StatusNoContent)
			case "/open/same":
				w.Header().Set("Etag", `"1"`)
				w.WriteHeader(http.StatusNotModified)
			case "/open/trailers":
				w.Header().Set("Trailer", "X-Sum")
				_, _ = io.Copy(w, r.Body)
				w.Header().Set("X-Sum", "got "+r.Trailer.Get("X-Client"))
			default:
				w.Header().Set("Content-Length", "12")
				if r.Method != http.MethodHead {
					_, _ = io.WriteString(w, "hello, world")
				}
			}
		})
		s := p.inspecting(inspectedNetwork, b.port)
		c := s.agent(agentH2)
		for _, tt := range []struct {
			method, path string
			status       int
			length       int64
		}{
			{"HEAD", "/open/x", 200, 12}, {"GET", "/open/x", 200, 12}, {"GET", "/open/none", 204, 0}, {"GET", "/open/same", 304, 0},
		} {
			req, _ := http.NewRequest(tt.method, fmt.Sprintf("https://a.example:%d%s", b.port, tt.path), nil)
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != tt.status || resp.ContentLength != tt.length && tt.status == 200 || tt.method == "HEAD" && len(body) > 0 {
				t.Errorf("%s %s: %d, length %d, %q, %v", tt.method, tt.path, resp.StatusCode, resp.ContentLength, body, err)
			}
		}
		req, _ := http.NewRequest(http.MethodPost, fmt.Sprintf("https://a.example:%d/open/trailers", b.port), io.MultiReader(strings.NewReader("body")))
		req.Trailer = http.Header{"X-Client": {"sum"}}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); string(body) != "body" || err != nil || resp.Trailer.Get("X-Sum") != "got sum" {
			t.Errorf("%q, %v, trailers %v", body, err, resp.Trailer)
		}
	})
}
