package broker

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
)

// BenchmarkExchange is of all that is the broker's: an exchange over HTTP with the checks, the signature among them, the token's first use and the audit record, both
// durable before the answer. What GitHub takes is GitHub's: the exchange is refused where GitHub would be asked. Eight clients for each CPU ask at one time.
func BenchmarkExchange(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) { benchmarkExchange(b, filepath.Join(b.TempDir(), "broker.db")) })
	b.Run("PostgreSQL", func(b *testing.B) { benchmarkExchange(b, postgres(b)) })
}

func benchmarkExchange(b *testing.B, database string) {
	w := newWorldWith(b, func(c *Config) {
		c.Database = database
		c.Limits = Limits{Repository: 1 << 30, InFlight: 1 << 10}
	})
	w.b.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	w.replace("installation", func(_ context.Context, a *attempt) error {
		return refuse(codeNotFound, "no such repository or identity", "%s", a.scope)
	})
	server := httptest.NewServer(w.b)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	tokens := make(chan string, b.N)
	for range b.N {
		tokens <- w.mint(nil)
	}
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequest(http.MethodGet, server.URL+"/sts/exchange?"+good, nil)
			if err != nil {
				b.Error(err)
				return
			}
			req.Header.Set("Authorization", <-tokens)
			res, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body) // so that the connection is used again
			_ = res.Body.Close()
			if res.StatusCode != http.StatusNotFound {
				b.Errorf("status %d", res.StatusCode)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
}
