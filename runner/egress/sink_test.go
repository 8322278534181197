package egress

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// sink is a server that keeps what it gets, says nothing, and closes when the client does.
type sink struct {
	port int

	mu    sync.Mutex // guards what follows
	got   strings.Builder
	ended int
	more  *sync.Cond
}

func newSink(t testing.TB) *sink {
	t.Helper()
	l := listen(t)
	s := &sink{port: portOf(l)}
	s.more = sync.NewCond(&s.mu)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.keep(conn)
		}
	}()
	return s
}

func (s *sink) keep(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		s.mu.Lock()
		s.got.Write(buf[:n])
		if err != nil {
			s.ended++
			s.more.Broadcast()
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// bytes is all that came, once so many connections have ended.
func (s *sink) bytes(connections int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ended < connections {
		s.more.Wait()
	}
	return s.got.String()
}
