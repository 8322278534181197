package egress

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// socketClient is an agent's end as it is on a lane: a socket of the kernel's.
type socketClient struct{ *net.UnixConn }

func (socketClient) Answer(bool, string) error { return nil }
func (c socketClient) Reset() error            { return c.UnixConn.Close() }
func (c socketClient) Close() error            { return c.CloseWrite() }

func (c socketClient) Socket() syscall.RawConn {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// laneEnds are the runner's and the guest's end of a stream on a lane.
func laneEnds(t *testing.T) (client, agent *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
		t.Cleanup(func() { _ = conn.Close() })
	}
	return ends[0], ends[1]
}

// TestUnread: a download that nobody reads is counted all the same, and ends to the byte where its limit is.
func TestUnread(t *testing.T) {
	const size = 8 << 20
	l := listen(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.CopyN(conn, zeros{}, size)
			_ = conn.Close()
		}
	}()
	for _, tt := range []struct {
		limits string
		want   int64
	}{{"", size}, {", limits: {download: 1000000B}", 1000000}} {
		p := mustPolicy(t, "  allow: [{host: a.example, port: %d, tcp: true, private: true"+tt.limits+"}]\n", portOf(l))
		s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{})
		files := openFiles()
		addr, allowed, reason := s.g.Resolve("a.example", "A")
		if !allowed {
			t.Fatal(reason)
		}
		client, agent := laneEnds(t)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.g.Connect(t.Context(), netip.AddrPortFrom(addr, uint16(portOf(l))), socketClient{client})
		}()
		_ = agent.CloseWrite()
		n, err := io.Copy(io.Discard, agent)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		<-ended
		if r := s.rec.ended(1); n != tt.want || r.Down != tt.want || (r.Code == CodeByteLimit) != (tt.limits != "") {
			t.Errorf("limits %q: %d bytes, record %+v", tt.limits, n, r)
		}
		_, _ = client.Close(), agent.Close()
		waitFor(t, func() bool { return openFiles() <= files })
	}
}
