package splice

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcp is both ends of a connection on loopback.
func tcp(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = dialled.Close(), accepted.Close() })
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

// pair is both ends of a socket pair, the first with its socket.
func pair(t *testing.T) (syscall.RawConn, *net.UnixConn, *net.UnixConn) {
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
	raw, err := ends[0].SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return raw, ends[0], ends[1]
}

// TestEverything arrives, in order and once, also when the receiver is slow at first; the end is left to be read.
func TestEverything(t *testing.T) {
	const size = 8<<20 + 17
	text := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(text)
	from, sender := tcp(t)
	to, toConn, receiver := pair(t)
	go func() {
		_, _ = sender.Write(text)
		_ = sender.CloseWrite()
	}()
	pipes := New(1)
	defer pipes.Trim()
	done := make(chan int64, 1)
	go func() {
		var total int64
		for {
			l := pipes.Take(Source(from))
			if l == nil {
				break
			}
			n, err := l.Send(to, l.Len())
			total += int64(n)
			l.Release()
			if err != nil {
				t.Error(err)
				break
			}
		}
		if n, err := from.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("after the last bytes: %d, %v", n, err)
		}
		_ = toConn.CloseWrite()
		done <- total
	}()
	got, err := io.ReadAll(receiver)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(text) {
		t.Errorf("%d bytes of %d, %v", len(got), size, err)
	}
	if total := <-done; total != size {
		t.Errorf("%d bytes are counted, want %d", total, size)
	}
}

// TestPart: what is not to be sent is not, neither now nor with what comes later.
func TestPart(t *testing.T) {
	from, sender := tcp(t)
	to, toConn, receiver := pair(t)
	pipes := New(1)
	defer pipes.Trim()
	for _, part := range []string{"sent|secret", "more"} {
		if _, err := io.WriteString(sender, part); err != nil {
			t.Fatal(err)
		}
		l := pipes.Take(Source(from))
		if l == nil || l.Len() != len(part) {
			t.Fatalf("%q: took %+v", part, l)
		}
		if n, err := l.Send(to, 4); n != 4 || err != nil {
			t.Errorf("sent %d, %v", n, err)
		}
		l.Release()
	}
	_ = toConn.CloseWrite()
	if got, err := io.ReadAll(receiver); !bytes.Equal(got, []byte("sentmore")) || err != nil {
		t.Errorf("%q, %v went on", got, err)
	}
}

// TestNothing is taken where it can't be, or nobody is to wait.
func TestNothing(t *testing.T) {
	from, sender := tcp(t)
	if _, err := io.WriteString(sender, "x"); err != nil {
		t.Fatal(err)
	}
	if l := New(0).Take(Source(from)); l != nil {
		t.Error("took bytes without a pipe")
	}
	pipes := New(1)
	defer pipes.Trim()
	l := pipes.Take(Source(from))
	if l == nil {
		t.Fatal("took nothing")
	}
	if again := pipes.Take(Source(from)); again != nil {
		t.Error("took more than there may be at once")
	}
	l.Release()
	_ = from.SetDeadline(time.Unix(1, 0))
	if l := pipes.Take(Source(from)); l != nil {
		t.Error("took bytes after the deadline")
	}
	if Source(&net.UnixConn{}) != nil {
		t.Error("a socket of another kind is a source")
	}
}

// TestSendFails when the receiver is gone or its deadline has passed, with what was sent counted.
func TestSendFails(t *testing.T) {
	from, sender := tcp(t)
	to, toConn, receiver := pair(t)
	pipes := New(1)
	defer pipes.Trim()
	send := func() (int, error) {
		if _, err := io.WriteString(sender, "x"); err != nil {
			t.Fatal(err)
		}
		l := pipes.Take(Source(from))
		if l == nil {
			t.Fatal("took nothing")
		}
		defer l.Release()
		return l.Send(to, 1)
	}
	_ = toConn.SetWriteDeadline(time.Unix(1, 0))
	if n, err := send(); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %d, %v", n, err)
	}
	_ = toConn.SetWriteDeadline(time.Time{})
	_ = receiver.Close()
	if n, err := send(); n != 0 || !errors.Is(err, unix.EPIPE) {
		t.Errorf("to nobody: %d, %v", n, err)
	}
}
