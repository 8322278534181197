package egress

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/websocket"

	"github.com/org/agent-sandbox/policy"
)

// socketHost is a real WebSocket server that sends back what it gets.
func socketHost(k *keeper) http.HandlerFunc {
	echo := websocket.Server{
		Handshake: func(*websocket.Config, *http.Request) error { return nil },
		Handler:   func(conn *websocket.Conn) { _, _ = io.Copy(conn, conn) },
	}
	return func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		k.seen = append(k.seen, r.Header.Clone())
		k.mu.Unlock()
		if r.URL.Path == "/open/plain" {
			fmt.Fprint(w, "no socket here")
			return
		}
		echo.ServeHTTP(w, r)
	}
}

// TestInspectedWebSocket talks both ways through an interception, with the credential on the request.
func TestInspectedWebSocket(t *testing.T) {
	for _, secure := range []bool{true, false} {
		p, k := newPKI(t), &keeper{}
		b, scheme := p.backend("a.example", true, socketHost(k)), "wss"
		if !secure {
			b, scheme = plainBackend(t, socketHost(k)), "ws"
		}
		s := p.inspecting(inspectedNetwork, b.port, token(t, "a.example"))
		var conn io.ReadWriteCloser = s.mustDial("a.example", b.port)
		if secure {
			conn = s.secureDial("a.example", b.port, "http/1.1")
		}
		config, err := websocket.NewConfig(fmt.Sprintf("%s://a.example:%d/open/socket", scheme, b.port), "https://a.example")
		if err != nil {
			t.Fatal(err)
		}
		socket, err := websocket.NewClient(config, conn)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 100, 70 << 10} {
			want := strings.Repeat("x", size)
			if err := websocket.Message.Send(socket, want); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for got.Len() < size { // the server's echo may cut a message
				var part string
				if err := websocket.Message.Receive(socket, &part); err != nil {
					t.Fatalf("%d of %d bytes, %v", got.Len(), size, err)
				}
				got.WriteString(part)
			}
			if got.String() != want {
				t.Errorf("%d bytes came back as %d", size, got.Len())
			}
		}
		_ = socket.Close()
		r := s.rec.request(1)
		if r.Status != 101 || r.Outcome != Allowed || r.Up < 70<<10 || r.Down < 70<<10 {
			t.Errorf("TLS %v: record %+v", secure, r)
		}
		want := map[bool]string{true: "Bearer " + realToken, false: ""}[secure]
		if got := k.all()[0].Get("Authorization"); got != want {
			t.Errorf("TLS %v: the host saw %q, want %q", secure, got, want)
		}
		s.rec.ended(1)
	}
}

// TestWebSocketThatIsRefused: by the rules, and by a host that answers as if nothing had been asked.
func TestWebSocketThatIsRefused(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", false, socketHost(k))
	s := p.inspecting(inspectedNetwork, b.port)
	conn := s.secureDial("a.example", b.port)
	br := bufio.NewReader(conn)
	for _, tt := range []struct {
		path   string
		status int
	}{{"/closed/socket", 403}, {"/open/plain", 200}, {"/closed/socket", 403}} {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a.example:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", tt.path, b.port)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != tt.status {
			t.Errorf("%s: %d, want %d", tt.path, resp.StatusCode, tt.status)
		}
	}
	if n := len(k.all()); n != 1 {
		t.Errorf("the host saw %d requests", n)
	}
	if r := s.rec.request(1); r.Code != policy.CodeRequest {
		t.Errorf("record %+v", r)
	}
}
