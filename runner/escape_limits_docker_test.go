//go:build docker

package runner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/event"
)

// limitedPolicy bounds bytes and silence on some hosts.
const limitedPolicy = `
network:
  allow:
    - {host: "*.plain.example", port: 80}
    - {host: "*.capped.example", port: 80, limits: {upload: 64KiB}}
    - {host: "*.quiet.example", port: 80, limits: {idle: 1s}}
    - {host: "*.ruled.example", port: [80, 443], rules: ["GET /open/**"]}
`

// TestEscapeLimits: what takes long, and what is much.
func TestEscapeLimits(t *testing.T) {
	l := testLab(t)
	in := func(name, policy string, limits egress.Limits) setup {
		return setup{name: name, policy: policy, world: newWorld(t), seam: seam{limits: limits}}
	}
	base := in("limits", limitedPolicy, egress.Limits{Opening: time.Second, Connections: 500})
	loose := in("no limits", strings.NewReplacer(", limits: {upload: 64KiB}", "", ", limits: {idle: 1s}", "").Replace(limitedPolicy), egress.Limits{Opening: time.Minute, Connections: 10_000})
	controls := []step{
		{"control: plain", "send", []string{"c.plain.example:80", "", httpRequest("GET /", "c.plain.example"), "1"}},
		{"control: inspected", "send", []string{"c.ruled.example:443", "c.ruled.example", httpRequest("GET /open/", "c.ruled.example"), "1"}},
		{"control: a small upload", "send", []string{"c.capped.example:80", "", httpRequest("POST /", "c.capped.example", "Content-Length: 5") + "small", "1"}},
	}
	l.runAllowed(t, "limits", limitAttacks(), controls, base, []setup{loose})
}

func limitAttacks() []attack {
	slowly := func(name, host, server, text, piece string, recorded func(event.Event) bool) attack {
		port := ":80"
		if server != "" {
			port = ":443"
		}
		return attack{
			name: name, op: "slow", args: []string{host + port, server, text, piece, "2s"}, refused: refusals("403", "ECONNRESET", "408", "error"), // an alert of TLS is no answer of HTTP
			by: "first bytes and heads have their time", control: "control: plain", off: "no limits", recorded: recorded,
		}
	}
	stalled := slowly("slow-loris: a body that stalls", "stall.quiet.example", "", httpRequest("POST /", "stall.quiet.example", "Content-Length: 100")+"x", "", func(e event.Event) bool {
		c, ok := e.(event.Connection)
		return ok && c.Name == "stall.quiet.example" && c.Code == "idle"
	})
	stalled.by = "the policy's limit of silence"
	const large = 1 << 20
	upload := attack{
		name: "an upload beyond the limit of bytes", op: "send", args: []string{"up.capped.example:80", "", httpRequest("POST /", "up.capped.example", fmt.Sprintf("Content-Length: %d", large+8)) + "{megabyte}mark-end", "1"},
		refused: refusals("ECONNRESET", "EPIPE", "403"), mark: "mark-end", by: "the policy's limit of bytes", control: "control: a small upload", off: "no limits",
		recorded: func(e event.Event) bool {
			c, ok := e.(event.Connection)
			return ok && c.Name == "up.capped.example" && c.Code == "byte-limit" && c.Up <= 64<<10
		},
	}
	many := attack{
		name: "1,000 connections at once", op: "many", args: []string{"many.plain.example:80", httpRequest("GET /", "many.plain.example"), "1000"}, refused: refusals("ECONNRESET"),
		by: "a limit of connections", control: "control: plain", off: "no limits", recorded: refusedAt("many.plain.example"),
	}
	return []attack{
		slowly("slow-loris: nothing at all", "a.plain.example", "", "", "", refusedAt("a.plain.example")),
		slowly("slow-loris: a head, byte by byte", "b.plain.example", "", "GET / HTTP/1.1\r\nHost: b.plain.example\r\nX: ", "x", refusedAt("b.plain.example")),
		slowly("slow-loris: a head, byte by byte, where requests are looked at", "c1.ruled.example", "c1.ruled.example", "GET /open/1 HTTP/1.1\r\nHost: c1.ruled.example\r\nX: ", "x", refusedAt("c1.ruled.example")),
		slowly("slow-loris: a client hello, byte by byte", "d.ruled.example", "raw", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "x", refusedAt("d.ruled.example")),
		stalled, upload, many,
	}
}
