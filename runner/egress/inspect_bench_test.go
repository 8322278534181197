package egress

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"
)

// ways are the same host carried as it is and with its requests read.
func ways(b *testing.B, h2 bool, handler http.HandlerFunc, bench func(b *testing.B, c *http.Client, url string)) {
	b.Helper()
	p := newPKI(b)
	host := p.backend("a.example", h2, handler)
	url := fmt.Sprintf("https://a.example:%d/x", host.port)
	for _, way := range []struct{ name, network string }{
		{"spliced", "  allow: [{host: a.example, port: %d, private: true}]\n"},
		{"intercepted", "  allow: [{host: a.example, port: %d, private: true, rules: [\"GET /x\"]}]\n"},
	} {
		b.Run(fmt.Sprintf("%s h2=%v", way.name, h2), func(b *testing.B) {
			s := p.inspecting(way.network, host.port)
			config := host.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			config.RootCAs.AppendCertsFromPEM(p.pem)
			if way.name == "intercepted" {
				config = s.trusting()
			}
			c := s.httpClient(config)
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
			bench(b, c, url)
		})
	}
}

// BenchmarkSecureDownload is one TLS download, spliced and intercepted.
func BenchmarkSecureDownload(b *testing.B) {
	for _, h2 := range []bool{false, true} {
		ways(b, h2, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, zeros{}, benchSize) },
			func(b *testing.B, c *http.Client, url string) {
				b.SetBytes(benchSize)
				buf := make([]byte, largeBuffer)
				for b.Loop() {
					resp, err := c.Get(url)
					if err != nil {
						b.Fatal(err)
					}
					if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf); n != benchSize || err != nil {
						b.Fatalf("%d bytes, %v", n, err)
					}
					_ = resp.Body.Close()
				}
			})
	}
}

// BenchmarkSmallRequest is one small request on a connection that is open, and on one of its own.
func BenchmarkSmallRequest(b *testing.B) {
	for _, fresh := range []bool{false, true} {
		b.Run(fmt.Sprintf("fresh=%v", fresh), func(b *testing.B) {
			ways(b, true, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, func(b *testing.B, c *http.Client, url string) {
				var took []time.Duration
				for b.Loop() {
					start := time.Now()
					if got, err := get(b, c, url); err != nil || got != "200 hello" {
						b.Fatalf("%q, %v", got, err)
					}
					took = append(took, time.Since(start))
					if fresh {
						c.CloseIdleConnections()
					}
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
			})
		})
	}
}

// BenchmarkScanner is the search for three placeholders.
func BenchmarkScanner(b *testing.B) {
	list := make([]Credential, 3)
	for i := range list {
		list[i] = token(b, "a.example")
		list[i].Placeholder += fmt.Sprint(i)
	}
	s := newScanner(patterns(list, nil))
	buf := make([]byte, largeBuffer)
	if _, err := io.ReadFull(&pseudo{}, buf); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(largeBuffer)
	for b.Loop() {
		if s.scan(buf) != "" {
			b.Fatal("found")
		}
	}
}
