package splice

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// capacity of a pipe in bytes: a socket's buffer is seldom larger, and a user's pipes are counted (pipe(7)).
	capacity = 256 << 10
	// spare is how many pipes are kept for later.
	spare = 4

	flags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
)

// Pipes are those that the connections of one process share; each has one only while there are bytes in it. The zero Pipes has none.
// They are safe for concurrent use.
type Pipes struct {
	slots chan struct{}
	free  chan *pipe
}

type pipe struct{ read, write int }

// New is for at most so many pipes at once.
func New(limit int) *Pipes {
	return &Pipes{slots: make(chan struct{}, limit), free: make(chan *pipe, min(limit, spare))}
}

// take is nil when there are too many, or none can be had.
func (p *Pipes) take() *pipe {
	select {
	case p.slots <- struct{}{}:
	default:
		return nil
	}
	select {
	case b := <-p.free:
		return b
	default:
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		<-p.slots
		return nil
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, capacity) // a smaller one does as well
	return &pipe{fds[0], fds[1]}
}

// give takes a pipe back, which must be empty to be kept.
func (p *Pipes) give(b *pipe, empty bool) {
	defer func() { <-p.slots }()
	if empty {
		select {
		case p.free <- b:
			return
		default:
		}
	}
	b.close()
}

func (b *pipe) close() {
	_ = unix.Close(b.read)
	_ = unix.Close(b.write)
}

// Trim closes the pipes that are kept for later.
func (p *Pipes) Trim() {
	for {
		select {
		case b := <-p.free:
			b.close()
		default:
			return
		}
	}
}

// Load is what was taken from one socket and is still to be sent on another.
type Load struct {
	pipes *Pipes
	pipe  *pipe
	n     int
}

// Take waits until src has bytes, has ended or has failed, or its deadline has passed. It takes what is there, or returns nil: then read
// it, which gives the bytes, the end or the error. A Load must be released.
func (p *Pipes) Take(src syscall.RawConn) *Load {
	var l *Load
	_ = src.Read(func(fd uintptr) bool {
		b := p.take()
		if b == nil {
			return true
		}
		n, err := spliceOnce(int(fd), b.write, capacity)
		if n > 0 {
			l = &Load{p, b, n}
			return true
		}
		p.give(b, true)
		return !errors.Is(err, unix.EAGAIN)
	})
	return l
}

// Len is how many bytes it has.
func (l *Load) Len() int { return l.n }

// Send sends so many of the bytes, at most Len, and reports how many it could.
func (l *Load) Send(dst syscall.RawConn, n int) (sent int, err error) {
	var failed error
	err = dst.Write(func(fd uintptr) bool {
		for sent < n {
			m, err := spliceOnce(l.pipe.read, int(fd), n-sent)
			sent += max(m, 0)
			l.n -= max(m, 0)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil:
				failed = err
				return true
			case m == 0:
				failed = unix.EIO // can't be: the pipe has bytes
				return true
			}
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return sent, err
}

// Release gives the pipe back. Bytes that were not sent are dropped.
func (l *Load) Release() { l.pipes.give(l.pipe, l.n == 0) }

func spliceOnce(from, to, n int) (int, error) {
	for {
		m, err := unix.Splice(from, nil, to, nil, n, flags)
		if !errors.Is(err, unix.EINTR) {
			return int(m), err
		}
	}
}
