package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// piece is one piece of an attach stream.
func piece(stream byte, text string) string {
	return string(binary.BigEndian.AppendUint32([]byte{stream, 0, 0, 0}, uint32(len(text)))) + text
}

func TestDemux(t *testing.T) {
	for _, tt := range []struct {
		name, stream, stdout, stderr string
		err                          error
	}{
		{"nothing", "", "", "", nil},
		{"both", piece(1, "a") + piece(2, "x") + piece(1, "bc") + piece(2, "yz"), "abc", "xyz", nil},
		{"empty pieces", piece(1, "") + piece(2, "") + piece(1, "a"), "a", "", nil},
		{"cut in a header", piece(1, "a") + "\x01\x00", "a", "", io.ErrUnexpectedEOF},
		{"cut in standard error", piece(1, "a") + piece(2, "xyz")[:9], "a", "x", io.EOF},
		{"another stream", piece(1, "a") + piece(3, "x"), "a", "", errUnknown},
		{"standard input", piece(0, "x"), "", "", errUnknown},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "by bytes": iotest.OneByteReader, "with the error": iotest.DataErrReader,
		} {
			var diag bytes.Buffer
			got, err := io.ReadAll(&demux{r: wrap(strings.NewReader(tt.stream)), diag: &diag})
			if string(got) != tt.stdout || diag.String() != tt.stderr {
				t.Errorf("%s, %s: standard output %q, error %q", tt.name, name, got, diag.String())
			}
			switch {
			case tt.err == errUnknown && (err == nil || !strings.Contains(err.Error(), "unknown stream")):
				t.Errorf("%s, %s: error %v", tt.name, name, err)
			case tt.err != errUnknown && tt.err != io.EOF && !errors.Is(err, tt.err):
				t.Errorf("%s, %s: error %v, want %v", tt.name, name, err, tt.err)
			}
		}
	}
}

var errUnknown = errors.New("unknown stream")

// FuzzDemux: what comes out was in the stream, in its order, and nothing of it twice.
func FuzzDemux(f *testing.F) {
	f.Add([]byte(piece(1, "a")+piece(2, "x")), 1)
	f.Add([]byte("\x01\x00\x00\x00\xff\xff\xff\xffshort"), 3)
	f.Add([]byte("\x02\x00\x00\x00\xff\xff\xff\xffshort"), 3)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		if size < 1 || size > 1<<16 {
			return
		}
		var diag, out bytes.Buffer
		d := &demux{r: bytes.NewReader(stream), diag: &diag}
		buf := make([]byte, size)
		for {
			n, err := d.Read(buf)
			out.Write(buf[:n])
			if err != nil {
				break
			}
		}
		wantOut, wantDiag := split(stream)
		if out.String() != wantOut || diag.String() != wantDiag {
			t.Errorf("standard output %q, error %q; want %q and %q", out.String(), diag.String(), wantOut, wantDiag)
		}
	})
}

// split is the same by another way: over the whole stream at once.
func split(b []byte) (stdout, stderr string) {
	for len(b) >= 8 && (b[0] == 1 || b[0] == 2) {
		n := min(int(binary.BigEndian.Uint32(b[4:])), len(b)-8)
		if b[0] == 1 {
			stdout += string(b[8 : 8+n])
		} else {
			stderr += string(b[8 : 8+n])
		}
		b = b[8+n:]
	}
	return stdout, stderr
}
