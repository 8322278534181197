package egress

import (
	"fmt"
	"io"
	"net/http"
	"testing"
)

// BenchmarkInjector is one small request on an open connection: carried as it is, read, and with a credential of GitHub's that is
// checked, attached and looked for in the answer. `make bench` shows it.
func BenchmarkInjector(b *testing.B) {
	p := newPKI(b)
	host := p.backend("a.example", true, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	scoped := token(b, "a.example")
	scoped.GitHub = shopScope("refs/heads/agent/*")
	url := fmt.Sprintf("https://a.example:%d/repos/acme/shop/pulls", host.port)
	for _, way := range []struct {
		name, network string
		credentials   []Credential
	}{
		{"spliced", "  allow: [{host: a.example, port: %d, private: true}]\n", nil},
		{"inspected", "  allow: [{host: a.example, port: %d, private: true, rules: [\"GET /repos/**\"]}]\n", nil},
		{"injected", "  allow: [{host: a.example, port: %d, private: true}]\n", []Credential{scoped}},
	} {
		b.Run(way.name, func(b *testing.B) {
			s := p.inspecting(way.network, host.port, way.credentials...)
			config := host.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			config.RootCAs.AppendCertsFromPEM(p.pem)
			if way.name != "spliced" {
				config = s.trusting()
			}
			c := s.httpClient(config)
			for b.Loop() {
				resp, err := c.Get(url)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					b.Fatalf("%d, %v", resp.StatusCode, err)
				}
				_ = resp.Body.Close()
			}
		})
	}
}
