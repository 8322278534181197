package workspace

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// opener opens files of one directory by nothing but the system calls that it takes: os.Root walks to each, and os.File asks
// whether it can be waited for, which takes longer than to read a small one.
type opener struct{ dir *os.File }

func newOpener(dir *os.Root) (opener, error) {
	f, err := dir.Open(".")
	return opener{f}, err
}

func (o opener) close() { _ = o.dir.Close() }

// regular is a regular file, as long as it was when it was opened.
type regular struct {
	fd   int
	left int64
}

// open follows no link and never waits for the other end of a FIFO.
func (o opener) open(name string) (*regular, error) {
	fd, err := unix.Openat(int(o.dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNotRegular
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, &os.PathError{Op: "read", Path: name, Err: err}
	}
	return &regular{fd, st.Size}, nil
}

// Read tells of the end with the last bytes: to ask once more would be one call of four.
func (r *regular) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := unix.Read(r.fd, p[:min(r.left, int64(len(p)))])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(r.fd, p[:min(r.left, int64(len(p)))])
	}
	if err != nil {
		return 0, &os.PathError{Op: "read", Path: "file", Err: err}
	}
	if r.left -= int64(n); r.left == 0 || n == 0 {
		err = io.EOF
	}
	return n, err
}

func (r *regular) close() { _ = unix.Close(r.fd) }
