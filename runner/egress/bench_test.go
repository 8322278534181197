package egress

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// source is a server that sends size bytes to whoever connects, or swallows what it gets.
func source(b *testing.B, size int64) int {
	b.Helper()
	l := listen(b)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if size > 0 {
					_, _ = io.CopyN(conn, zeros{}, size)
					return
				}
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return portOf(l)
}

func benchSandbox(b *testing.B, port int, tcp bool) *sandbox {
	b.Helper()
	p := mustPolicy(b, "  allow: [{host: a.example, port: %d, tcp: %v, private: true}]\n", port, tcp)
	return newSandbox(b, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{})
}

const benchSize = 64 << 20

// BenchmarkDownload carries bytes from a socket over the link: everything but the guest's own copy.
func BenchmarkDownload(b *testing.B) {
	port := source(b, benchSize)
	s := benchSandbox(b, port, true)
	b.SetBytes(benchSize)
	buf := make([]byte, largeBuffer)
	for b.Loop() {
		conn := s.mustDial("a.example", port)
		if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, buf); n != benchSize || err != nil {
			b.Fatalf("%d bytes, %v", n, err)
		}
		_ = conn.Close()
	}
}

func BenchmarkUpload(b *testing.B) {
	port := source(b, 0)
	s := benchSandbox(b, port, true)
	b.SetBytes(benchSize)
	buf := make([]byte, largeBuffer)
	for b.Loop() {
		conn := s.mustDial("a.example", port)
		if _, err := io.CopyBuffer(struct{ io.Writer }{conn}, io.LimitReader(zeros{}, benchSize), buf); err != nil {
			b.Fatal(err)
		}
		_ = conn.CloseWrite()
		if _, err := conn.Read(buf); err != io.EOF {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnection is one whole short connection: decide, look up, dial, answer, first bytes, end.
func BenchmarkConnection(b *testing.B) {
	port := echo(b)
	s := benchSandbox(b, port, true)
	one := make([]byte, 1)
	for b.Loop() {
		conn := s.mustDial("a.example", port)
		if _, err := conn.Write(one); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, one); err != nil {
			b.Fatal(err)
		}
		_ = conn.Close()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conns/s")
}

// BenchmarkRequest is one small HTTPS request on a connection of its own, through the gateway and without it.
func BenchmarkRequest(b *testing.B) {
	server := web(b, true)
	port := portOf(server.Listener)
	s := benchSandbox(b, port, false)
	config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = "a.example"
	config.InsecureSkipVerify = true //nolint:gosec // the certificate is for another name
	request := func(b *testing.B, dial func() (net.Conn, error)) {
		for b.Loop() {
			conn, err := dial()
			if err != nil {
				b.Fatal(err)
			}
			secure := tls.Client(conn, config)
			fmt.Fprintf(secure, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
			if n, err := io.Copy(io.Discard, secure); n == 0 || err != nil {
				b.Fatalf("%d bytes, %v", n, err)
			}
			_ = secure.Close()
		}
	}
	b.Run("direct", func(b *testing.B) {
		request(b, func() (net.Conn, error) { return net.Dial("tcp", server.Listener.Addr().String()) })
	})
	b.Run("gateway", func(b *testing.B) {
		request(b, func() (net.Conn, error) { return s.dial("a.example", port) })
	})
}
