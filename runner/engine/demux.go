package engine

import (
	"encoding/binary"
	"fmt"
	"io"
)

// demux splits an attach stream: standard output is what Read yields, standard error goes to diag. The engine puts
// eight bytes before each piece: stream number, three zeros, length ("Stream format" of ContainerAttach in the API).
type demux struct {
	r    io.Reader
	diag io.Writer
	left int64 // bytes of standard output before the next header
}

const (
	streamStdout = 1
	streamStderr = 2
)

// Read reads standard output.
func (d *demux) Read(b []byte) (int, error) {
	for d.left == 0 {
		if err := d.next(); err != nil {
			return 0, err
		}
	}
	n, err := d.r.Read(b[:min(int64(len(b)), d.left)])
	d.left -= int64(n)
	return n, err
}

func (d *demux) next() error {
	var head [8]byte
	if _, err := io.ReadFull(d.r, head[:]); err != nil {
		return err
	}
	size := int64(binary.BigEndian.Uint32(head[4:]))
	switch head[0] {
	case streamStdout:
		d.left = size
		return nil
	case streamStderr:
		_, err := io.CopyN(d.diag, d.r, size)
		return err
	default:
		return fmt.Errorf("container engine: unknown stream %d in the attached output", head[0])
	}
}
