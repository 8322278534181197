package egress

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
)

const inspectedNetwork = `  allow:
    - {host: a.example, port: %d, private: true, rules: ["GET /open/**", "HEAD /open/**", "POST /open/**"]}
`

// both runs a test with HTTP/1.1 and with HTTP/2, on both sides in all ways.
func both(t *testing.T, test func(t *testing.T, agentH2, hostH2 bool)) {
	t.Helper()
	for _, agentH2 := range []bool{false, true} {
		for _, hostH2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("agent h2 %v, host h2 %v", agentH2, hostH2), func(t *testing.T) { test(t, agentH2, hostH2) })
		}
	}
}

// versions runs a test with either version on both sides.
func versions(t *testing.T, test func(t *testing.T, h2 bool)) {
	t.Helper()
	t.Run("HTTP/1.1", func(t *testing.T) { test(t, false) })
	t.Run("HTTP/2", func(t *testing.T) { test(t, true) })
}

func TestRequestsAreDecided(t *testing.T) {
	both(t, func(t *testing.T, agentH2, hostH2 bool) {
		p := newPKI(t)
		var mu sync.Mutex
		var seen []string
		b := p.backend("a.example", hostH2, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen = append(seen, r.Method+" "+r.RequestURI)
			mu.Unlock()
			fmt.Fprintf(w, "%s by %s", r.Host, r.Proto)
		})
		s := p.inspecting(inspectedNetwork, b.port)
		c := s.agent(agentH2)
		url := fmt.Sprintf("https://a.example:%d", b.port)
		for _, tt := range []struct {
			path string
			want int
		}{
			{"/open/x?q=1", 200},
			{"/closed/x", 403},
			{"/open/../closed/x", 403},
			{"/open/%2e%2e/closed", 403},
			{"/open/a%2Fb", 200},
			{"/open//x", 403},
			{"/open/%252e%252e/x", 403},
			{"/Open/x", 403},
			{"/open/%61", 200},
			{"/open/x%2F..%2Fy", 403},
			{"/open/..;/closed", 403},
		} {
			req, err := http.NewRequest(http.MethodGet, url+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatalf("%s: %v", tt.path, err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("GET %s: %d %s, want %d", tt.path, resp.StatusCode, body, tt.want)
			}
			if wantMajor := map[bool]int{false: 1, true: 2}[agentH2 && hostH2]; resp.ProtoMajor != wantMajor {
				t.Errorf("the agent was answered by %s", resp.Proto)
			}
			if tt.want == 200 && !strings.Contains(string(body), "a.example:") {
				t.Errorf("body %q", body)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		want := "GET /open/x?q=1, GET /open/a%2Fb, GET /open/a" // needless escapes undone
		if got := strings.Join(seen, ", "); got != want {
			t.Errorf("the host saw %s, want %s", got, want)
		}
		s.rec.mu.Lock()
		defer s.rec.mu.Unlock()
		if n := len(s.rec.conns); n != 1 {
			t.Errorf("%d records of connections: the connection was not kept", n)
		}
	})
}

func TestRefusalSaysWhatToDo(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, func(http.ResponseWriter, *http.Request) {})
	s := p.inspecting(inspectedNetwork, b.port)
	resp, err := s.agent(true).Get(fmt.Sprintf("https://a.example:%d/other?secret=1", b.port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got refusal
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != 403 {
		t.Fatalf("%d, %v", resp.StatusCode, err)
	}
	if got.Code != "request" || !strings.Contains(got.Rule, "GET /open/**") || !strings.Contains(got.Allow, "GET /other") || got.Place == "" {
		t.Errorf("%+v", got)
	}
	r := s.rec.request(1)
	if r.Outcome != Refused || r.Code != policy.CodeRequest || r.Path != "/other" || r.Status != 403 || r.Method != "GET" || r.Connection != 1 || r.Rule != got.Rule {
		t.Errorf("record %+v", r)
	}
}

func TestRefusalOfGRPC(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, func(http.ResponseWriter, *http.Request) {})
	s := p.inspecting(inspectedNetwork, b.port)
	resp, err := s.agent(true).Post(fmt.Sprintf("https://a.example:%d/other.Service/Call", b.port), "application/grpc+proto", strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "7" || len(body) > 0 || !strings.Contains(resp.Header.Get("Grpc-Message"), "not%20this%20method") {
		t.Errorf("%d %v %q", resp.StatusCode, resp.Header, body)
	}
}

// TestBigUpload sends far more than may be held, chunked, and compares what arrived.
func TestBigUpload(t *testing.T) {
	const size = 256 << 20
	versions(t, func(t *testing.T, h2 bool) {
		p := newPKI(t)
		b := p.backend("a.example", h2, func(w http.ResponseWriter, r *http.Request) {
			h := sha256.New()
			n, _ := io.Copy(h, r.Body)
			fmt.Fprintf(w, "%d %x", n, h.Sum(nil))
		})
		s := p.inspecting(inspectedNetwork, b.port)
		var before runtime.MemStats
		runtime.GC() // what earlier tests have left
		runtime.ReadMemStats(&before)
		sum := sha256.New()
		most := &highWater{r: io.TeeReader(io.LimitReader(&pseudo{}, size), sum)}
		resp, err := s.agent(h2).Post(fmt.Sprintf("https://a.example:%d/open/up", b.port), "", most)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, _ := io.ReadAll(resp.Body)
		if want := fmt.Sprintf("%d %s", size, hex.EncodeToString(sum.Sum(nil))); string(got) != want {
			t.Errorf("%s arrived, want %s", got, want)
		}
		if limit := before.HeapInuse + 96<<20; most.heap > limit {
			t.Errorf("%d MiB of heap at the most, want less than %d", most.heap>>20, limit>>20)
		}
		if r := s.rec.request(1); r.Up != size {
			t.Errorf("%d bytes recorded", r.Up)
		}
	})
}

// pseudo is a fast stream of bytes that are not all alike.
type pseudo struct{ n byte }

func (p *pseudo) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = p.n + byte(i>>3)
	}
	p.n++
	return len(b), nil
}

// highWater looks at the heap from time to time, as the body goes out.
type highWater struct {
	r     io.Reader
	bytes int
	heap  uint64
}

func (h *highWater) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if h.bytes/(16<<20) != (h.bytes+n)/(16<<20) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		h.heap = max(h.heap, m.HeapInuse)
	}
	h.bytes += n
	return n, err
}

func TestUpstreamThatIsNotTheHost(t *testing.T) {
	p, stranger := newPKI(t), newPKI(t)
	for name, cert := range map[string]tls.Certificate{
		"of another name":      p.issue("b.example", time.Now().Add(time.Hour)),
		"expired":              p.issue("a.example", time.Now().Add(-time.Minute)),
		"of an unknown issuer": stranger.issue("a.example", time.Now().Add(time.Hour)),
		"good":                 p.issue("a.example", time.Now().Add(time.Hour)),
	} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			asked := false
			b := p.backendWith(cert, true, func(http.ResponseWriter, *http.Request) { asked = true })
			s := p.inspecting(inspectedNetwork, b.port)
			got, err := get(t, s.agent(true), fmt.Sprintf("https://a.example:%d/open/x", b.port))
			if err != nil {
				t.Fatal(err)
			}
			if name == "good" {
				if !asked || got != "200 " {
					t.Errorf("the positive control failed: %s", got)
				}
				return
			}
			if !strings.HasPrefix(got, "502 ") || !strings.Contains(got, "did not prove who it is") || asked {
				t.Errorf("%s, the host was asked: %v", got, asked)
			}
			if r := s.rec.request(1); r.Outcome != Failed || r.Code != CodeCertificate || r.Status != 502 {
				t.Errorf("record %+v", r)
			}
		})
	}
}

func TestProgramThatDoesNotTrust(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, func(http.ResponseWriter, *http.Request) {})
	s := p.inspecting(inspectedNetwork, b.port)
	_, err := get(t, s.httpClient(&tls.Config{}), fmt.Sprintf("https://a.example:%d/open/x", b.port))
	if err == nil {
		t.Fatal("a program without the authority was served")
	}
	if r := s.rec.ended(1); r.Outcome != Failed || r.Code != CodeUntrusted || !strings.Contains(r.Reason, "does not trust the run's CA") {
		t.Errorf("record %+v", r)
	}
}

// TestDenyWins on a host that is open otherwise, and in all the spellings that a forgiving server takes for the same path.
func TestDenyWins(t *testing.T) {
	p, w := newPKI(t), &wire{}
	b := p.backend("a.example", true, w.serve)
	s := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n  deny: [{host: a.example, port: \"1-65535\", rules: [\"* /admin/**\", \"DELETE /**\"]}]\n", b.port)
	agent, url := s.agent(true), fmt.Sprintf("https://a.example:%d", b.port)
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/x", 200},
		{"GET", "/admin/x", 403},
		{"GET", "/ADMIN/x", 403},
		{"GET", "/admin%2Fx", 403},
		{"GET", "/admin;a/x", 403},
		{"DELETE", "/x", 403},
		{"GET", "/x/../admin/x", 403},
	} {
		if resp, body := send(t, agent, tt.method, url+tt.path, ""); resp.StatusCode != tt.want {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.path, resp.StatusCode, body, tt.want)
		}
	}
	if got := w.all(); got != "GET /x " {
		t.Errorf("the host saw %q", got)
	}
}

// TestHostThatGoesAway between two requests: the second finds a connection of its own, to an address that was checked anew.
func TestHostThatGoesAway(t *testing.T) {
	versions(t, func(t *testing.T, h2 bool) {
		p, w := newPKI(t), &wire{}
		b := p.backend("a.example", h2, w.serve)
		s := p.inspecting(inspectedNetwork, b.port)
		agent, url := s.agent(h2), fmt.Sprintf("https://a.example:%d/open/x", b.port)
		ask := func() (got string, err error) {
			waitFor(t, func() bool { // a request that crosses the end of its connection is answered with 502
				got, err = get(t, agent, url)
				return !strings.Contains(got, `"code":"broken"`)
			})
			return got, err
		}
		if got, err := ask(); err != nil || got != "200 served" {
			t.Fatalf("%q, %v", got, err)
		}
		b.CloseClientConnections()
		if got, err := ask(); err != nil || got != "200 served" {
			t.Errorf("the second: %q, %v", got, err)
		}
		s.hosts.mu.Lock()
		s.hosts.addrs["a.example"] = []string{"169.254.169.254"}
		s.hosts.mu.Unlock()
		b.CloseClientConnections()
		before := w.all()
		if got, err := ask(); !strings.Contains(fmt.Sprint(got, err), "cloud metadata address") || w.all() != before {
			t.Errorf("the third: %q, %v; the host saw %s", got, err, w.all())
		}
	})
}

// TestOddStatus: a host's answer that net/http would panic over.
func TestOddStatus(t *testing.T) {
	p := newPKI(t)
	for _, status := range []string{"050", "000", "101"} {
		b := p.backend("a.example", false, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s Odd\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", status)
			_ = conn.Close()
		})
		s := p.inspecting(inspectedNetwork, b.port)
		if got, err := get(t, s.agent(false), fmt.Sprintf("https://a.example:%d/open/x", b.port)); err != nil || !strings.HasPrefix(got, "502 ") {
			t.Errorf("%s: %q, %v", status, got, err)
		}
		if r := s.rec.request(1); r.Outcome != Failed || r.Status != 502 {
			t.Errorf("%s: record %+v", status, r)
		}
	}
}
