package egress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// limited is a sandbox with other limits.
func (p *pki) limited(network string, port int, limits Limits) *sandbox {
	p.t.Helper()
	return newSandboxWith(p.t, Config{Policy: mustPolicy(p.t, network, port), CAs: [][]byte{p.pem}, Limits: limits}, map[string][]string{"a.example": {"127.0.0.1"}})
}

func TestInspectedByteLimits(t *testing.T) {
	versions(t, func(t *testing.T, h2 bool) {
		p := newPKI(t)
		b := p.backend("a.example", h2, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if r.Method == http.MethodGet {
				_, _ = io.CopyN(w, zeros{}, 1<<20)
			}
		})
		for i, tt := range []struct{ limit, method string }{{"upload", "POST"}, {"download", "GET"}} {
			s := p.limited(strings.Replace(inspectedNetwork, "private: true", "private: true, limits: {"+tt.limit+": 100KiB}", 1), b.port, Limits{})
			req, _ := http.NewRequest(tt.method, fmt.Sprintf("https://a.example:%d/open/x", b.port), nil)
			if tt.method == "POST" {
				req.Body = io.NopCloser(io.LimitReader(zeros{}, 1<<20))
			}
			resp, err := s.agent(h2).Do(req)
			if err == nil {
				n, rerr := io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if tt.method == "GET" && (rerr == nil || n > 100<<10) {
					t.Errorf("%s: %d bytes, %v", tt.limit, n, rerr)
				}
			}
			r := s.rec.ended(1)
			if r.Code != CodeByteLimit || r.Outcome != Allowed || i == 0 && r.Up != 100<<10 || i == 1 && r.Down != 100<<10 {
				t.Errorf("%s: record %+v", tt.limit, r)
			}
		}
	})
}

func TestInspectedIdleLimit(t *testing.T) {
	versions(t, func(t *testing.T, h2 bool) {
		p := newPKI(t)
		b := p.backend("a.example", h2, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		s := p.limited(inspectedNetwork, b.port, Limits{Idle: time.Second})
		resp, err := s.agent(h2).Get(fmt.Sprintf("https://a.example:%d/open/x", b.port))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("an answer that was cut off looks complete")
		}
		_ = resp.Body.Close()
		if r := s.rec.ended(1); r.Code != CodeIdle {
			t.Errorf("record %+v", r)
		}
	})
}

// TestSlowRequests: a handshake, and a head, that never get complete.
func TestSlowRequests(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", false, func(http.ResponseWriter, *http.Request) {})
	s := p.limited(inspectedNetwork, b.port, Limits{Opening: time.Second, Connect: time.Second})
	conn := s.secureDial("a.example", b.port)
	if _, err := io.WriteString(conn, "GET /open/x HTTP/1.1\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(conn) // until the gateway has had enough
	s.rec.ended(1)
	hello := rawHello(ext(0, sni("a.example")))
	raw := s.mustDial("a.example", b.port)
	if _, err := raw.Write(hello); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(raw)
	if r := s.rec.ended(2); r.Outcome == Allowed {
		t.Errorf("record %+v", r)
	}
}

func TestBigHeads(t *testing.T) {
	versions(t, func(t *testing.T, h2 bool) {
		p, w := newPKI(t), &wire{}
		b := p.backend("a.example", h2, w.serve)
		s := p.inspecting(inspectedNetwork, b.port)
		url := fmt.Sprintf("https://a.example:%d/open/x", b.port)
		if resp, _ := send(t, s.agent(h2), "GET", url, "", "X-Long: "+strings.Repeat("x", 20<<10)); resp.StatusCode != 200 {
			t.Fatalf("the positive control failed: %d", resp.StatusCode)
		}
		req, _ := http.NewRequest("GET", url, nil)
		req.Header.Set("X-Long", strings.Repeat("x", 200<<10))
		resp, err := s.agent(h2).Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("200 KiB of headers: %d", resp.StatusCode)
			}
		}
		if got := w.all(); got != "GET /open/x " {
			t.Errorf("the host saw %q", got)
		}
	})
}

// TestTooManyRequests holds all places and asks for one more.
func TestTooManyRequests(t *testing.T) {
	p := newPKI(t)
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	b := p.backend("a.example", true, func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-leave
	})
	s := p.limited(inspectedNetwork, b.port, Limits{Requests: 3})
	agent, url := s.agent(true), fmt.Sprintf("https://a.example:%d/open/x", b.port)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if got, err := get(t, agent, url); err != nil || got != "200 " {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	for range 3 {
		await(t, entered)
	}
	if got, err := get(t, agent, url); err != nil || !strings.HasPrefix(got, "503 ") {
		t.Errorf("%q, %v", got, err)
	}
	close(leave)
	all.Wait()
	if got, err := get(t, agent, url); err != nil || got != "200 " {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

// TestNothingIsLeftOfInspection uses connections in every way, and counts what remains.
func TestNothingIsLeftOfInspection(t *testing.T) {
	versions(t, func(t *testing.T, h2 bool) {
		p := newPKI(t)
		b := p.backend("a.example", h2, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			if r.URL.Path == "/open/hangs" {
				<-r.Context().Done()
			}
		})
		s := p.inspecting(inspectedNetwork, b.port)
		before, files := runtime.NumGoroutine(), openFiles()
		const connections = 30
		var clients []*http.Client
		for i := range connections {
			c := s.agent(h2)
			clients = append(clients, c)
			path := []string{"/open/x", "/closed/x", "/open/hangs"}[i%3]
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("https://a.example:%d%s", b.port, path), nil)
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			_ = resp.Body.Close()
		}
		waitFor(t, func() bool {
			for _, c := range clients {
				c.CloseIdleConnections() // a request that was cancelled counts as idle a little later
			}
			return runtime.NumGoroutine() <= before && openFiles() <= files
		})
		s.rec.ended(connections)
	})
}

// TestCloseEndsInspection: requests that are open end with the run.
func TestCloseEndsInspection(t *testing.T) {
	versions(t, func(t *testing.T, h2 bool) {
		p := newPKI(t)
		b := p.backend("a.example", h2, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		s := p.inspecting(inspectedNetwork, b.port)
		resp, err := s.agent(h2).Get(fmt.Sprintf("https://a.example:%d/open/x", b.port))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := s.g.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("an answer that was cut off looks complete")
		}
		if r := s.rec.request(1); r.Code != CodeEnded || r.Status != 200 {
			t.Errorf("record %+v", r)
		}
		if r := s.rec.ended(1); r.Code != CodeEnded || r.Requests != 1 {
			t.Errorf("record %+v", r)
		}
	})
}

// TestRequestJournalIsBounded: a flood of refusals does not hide what was allowed, and none is lost from the totals.
func TestRequestJournalIsBounded(t *testing.T) {
	rec := newRecording(t)
	j := newJournal(rec, 100)
	const requests = 50_000
	for i := range requests {
		r := Request{Host: fmt.Sprintf("h%d.example", i%2000), Port: 443, Method: "GET", Path: "/", Count: 1, Up: 1, Down: 2}
		if i%10 == 0 {
			r.Outcome = Allowed
		}
		j.request(r)
	}
	j.flush()
	if n := len(rec.reqs); n > 20_000 {
		t.Errorf("%d records", n)
	}
	var count, up uint64
	last := map[requestKey]Request{}
	for _, r := range rec.reqs {
		if r.Total {
			last[requestKey{r.Host, r.Port, r.Outcome, r.Place, r.Rule, r.Line}] = r
		} else {
			count += r.Count
			up += uint64(r.Up)
		}
	}
	for _, r := range last {
		count += r.Count
		up += uint64(r.Up)
	}
	if count != requests || up != requests {
		t.Errorf("%d requests and %d bytes in the records, want %d", count, up, requests)
	}
	if n := len(last); n > maxTotals+3 {
		t.Errorf("%d totals", n)
	}
}

// TestUnreadable: what net/http can't read never gets to the handler, and is on record all the same.
func TestUnreadable(t *testing.T) {
	p := newPKI(t)
	host := p.backend("a.example", false, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
	s := p.inspecting("  allow: [{host: a.example, port: %d, private: true, rules: [\"GET /**\"]}]", host.port)
	conn := s.secureDial("a.example", host.port)
	br := bufio.NewReader(conn)
	for _, tt := range []struct {
		path   string
		status int
	}{{"/good", 200}, {"/%2/bad", 400}} {
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a.example\r\n\r\n", tt.path); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(br, nil)
		if err != nil || answer.StatusCode != tt.status {
			t.Fatalf("%s: %v, %v", tt.path, answer, err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
	}
	_ = conn.Close()
	if q := s.rec.request(1); q.Outcome != Allowed || q.Path != "/good" {
		t.Errorf("the first request is recorded as %+v", q)
	}
	if q := s.rec.request(2); q.Outcome != Refused || q.Code != CodeProtocol || q.Host != "a.example" {
		t.Errorf("the second request is recorded as %+v", q)
	}
	if c := s.rec.ended(1); c.Requests != 2 || c.Outcome != Allowed {
		t.Errorf("the connection is recorded as %+v", c)
	}
}

// TestSlowHead: a head that does not come in time ends the connection, and is on record; a connection that only waits for its next request is not.
func TestSlowHead(t *testing.T) {
	p := newPKI(t)
	host := p.backend("a.example", false, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
	s := p.limited("  allow: [{host: a.example, port: %d, private: true, rules: [\"GET /**\"]}]", host.port, Limits{Opening: time.Second})
	waiting := s.secureDial("a.example", host.port)
	if _, err := io.WriteString(waiting, "GET /first HTTP/1.1\r\nHost: a.example\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(waiting)
	if answer, err := http.ReadResponse(br, nil); err != nil || answer.StatusCode != 200 {
		t.Fatalf("%v, %v", answer, err)
	} else if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	slow := s.secureDial("a.example", host.port)
	if _, err := io.WriteString(slow, "GET /slow HTTP/1.1\r\nHost:"); err != nil {
		t.Fatal(err)
	}
	if n, _ := io.Copy(io.Discard, slow); n != 0 {
		t.Errorf("%d bytes came", n)
	}
	if q := s.rec.request(2); q.Outcome != Refused || q.Code != CodeSlow || q.Host != "a.example" {
		t.Errorf("recorded as %+v", q)
	}
	if _, err := io.WriteString(waiting, "GET /again HTTP/1.1\r\nHost: a.example\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := http.ReadResponse(br, nil); err != nil || answer.StatusCode != 200 {
		t.Errorf("the one that waited: %v, %v", answer, err)
	}
	if q := s.rec.request(3); q.Outcome != Allowed || q.Path != "/again" {
		t.Errorf("recorded as %+v", q)
	}
}
