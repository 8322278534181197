package egress

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func sized(lengthBytes int, body []byte) []byte {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(body)))
	return slices.Concat(n[4-lengthBytes:], body)
}

func ext(kind uint16, body []byte) []byte {
	return slices.Concat(binary.BigEndian.AppendUint16(nil, kind), sized(2, body))
}

// sni is the body of a server_name extension.
func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = slices.Concat(list, []byte{0}, sized(2, []byte(n)))
	}
	return sized(2, list)
}

// helloBody is a ClientHello that servers accept, with these extensions and what a handshake needs.
func helloBody(extensions ...[]byte) []byte {
	needed := slices.Concat(
		ext(43, []byte{2, 3, 4}),          // supported_versions: 1.3
		ext(10, []byte{0, 2, 0, 29}),      // supported_groups: x25519
		ext(13, []byte{0, 4, 4, 3, 8, 4}), // signature_algorithms
		ext(51, sized(2, append([]byte{0, 29, 0, 32}, bytes.Repeat([]byte{9}, 32)...))), // key_share
	)
	return slices.Concat(
		[]byte{3, 3}, bytes.Repeat([]byte{7}, 32), sized(1, bytes.Repeat([]byte{5}, 32)),
		sized(2, []byte{0x13, 0x01, 0xc0, 0x2f}), []byte{1, 0},
		sized(2, slices.Concat(slices.Concat(extensions...), needed)),
	)
}

func handshake(body []byte) []byte { return append([]byte{1}, sized(3, body)...) }

func tlsRecord(part []byte) []byte { return append([]byte{22, 3, 1}, sized(2, part)...) }

func rawHello(extensions ...[]byte) []byte { return tlsRecord(handshake(helloBody(extensions...))) }

// inPieces cuts a handshake message over records.
func inPieces(message []byte, size int) []byte {
	var out []byte
	for part := range slices.Chunk(message, size) {
		out = append(out, tlsRecord(part)...)
	}
	return out
}

func TestReadHello(t *testing.T) {
	a := ext(0, sni("a.example"))
	message := handshake(helloBody(a))
	tests := []struct {
		name string
		raw  []byte
		want string
		ok   bool
	}{
		{"plain", rawHello(a), "a.example", true},
		{"a real client's", helloFor(t, "a.example"), "a.example", true},
		{"GREASE before and after", rawHello(ext(0x0a0a, nil), a, ext(0xfafa, []byte{0})), "a.example", true},
		{"no extension for it", rawHello(), "", true},
		{"a byte to a record", inPieces(message, 1), "a.example", true},
		{"cut within the length", inPieces(message, 3), "a.example", true},
		{"cut within the name", inPieces(message, 100), "a.example", true},
		{"twice", rawHello(a, ext(0, sni("b.example"))), "", false},
		{"two names in the list", rawHello(ext(0, sni("a.example", "b.example"))), "", false},
		{"empty list", rawHello(ext(0, []byte{0, 0})), "", false},
		{"empty name", rawHello(ext(0, sni(""))), "", false},
		{"bytes behind the list", rawHello(ext(0, append(sni("a.example"), 0))), "", false},
		{"name of another type", rawHello(ext(0, sized(2, append([]byte{1}, sized(2, []byte("a.example"))...)))), "", false},
		{"any extension twice", rawHello(a, ext(16, nil), ext(16, nil)), "", false},
		{"bytes behind the extensions", tlsRecord(handshake(append(helloBody(a), 0))), "", false},
		{"bytes behind the message", tlsRecord(append(slices.Clone(message), 0)), "", false},
		{"two messages in a record", tlsRecord(slices.Concat(message, message)), "", false},
		{"an empty record between", slices.Concat(tlsRecord(message[:9]), tlsRecord(nil), tlsRecord(message[9:])), "", false},
		{"an alert between", slices.Concat(tlsRecord(message[:9]), []byte{21, 3, 1, 0, 2, 1, 0}, tlsRecord(message[9:])), "", false},
		{"another message", tlsRecord(append([]byte{2}, message[1:]...)), "", false},
		{"a record that is too long", append([]byte{22, 3, 1, 0x40, 1}, make([]byte, 0x4001)...), "", false},
		{"a length beyond all bounds", tlsRecord([]byte{1, 0xff, 0xff, 0xff}), "", false},
		{"cut off", rawHello(a)[:80], "", false},
		{"nothing", nil, "", false},
	}
	for _, tt := range tests {
		h, raw, err := readHello(bytes.NewReader(tt.raw))
		if (err == nil) != tt.ok || h.serverName != tt.want {
			t.Errorf("%s: %q, %v, want %q, %v", tt.name, h.serverName, err, tt.want, tt.ok)
		}
		if cut := tt.name == "cut off" || tt.name == "nothing"; !tt.ok && errors.Is(err, errHello) == cut {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.ok && !bytes.Equal(raw, tt.raw) {
			t.Errorf("%s: %d bytes of %d are kept", tt.name, len(raw), len(tt.raw))
		}
	}
}

// TestReadHelloReadsNoFurther leaves the bytes behind the message, such as early data, where they are.
func TestReadHelloReadsNoFurther(t *testing.T) {
	r := strings.NewReader(string(rawHello(ext(0, sni("a.example")))) + "rest")
	if _, _, err := readHello(r); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("left: %q", rest)
	}
}

// FuzzHello holds the parser against that of crypto/tls: no accepted message has another name for a real server.
func FuzzHello(f *testing.F) {
	f.Add(rawHello(ext(0, sni("a.example"))))
	f.Add(helloFor(f, "a.example"))
	f.Add(inPieces(handshake(helloBody(ext(0, sni("a.example")))), 40))
	f.Add(rawHello(ext(0, sni("a.example")), ext(0, sni("b.example"))))
	f.Add(rawHello(ext(0xfe0d, []byte{0}), ext(0, sni("a.example"))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, kept, err := readHello(bytes.NewReader(raw))
		if !bytes.HasPrefix(raw, kept) {
			t.Fatal("bytes were changed")
		}
		if err != nil {
			return
		}
		if name, seen := serverReads(raw); seen && name != h.serverName {
			t.Errorf("a server reads %q, we read %q", name, h.serverName)
		}
	})
}

// FuzzHelloExtensions gets further than FuzzHello: the lengths around the extensions are right, and the cuts anywhere.
func FuzzHelloExtensions(f *testing.F) {
	f.Add(ext(0, sni("a.example")), 300)
	f.Add(slices.Concat(ext(0x0a0a, nil), ext(0, sni("a.example")), ext(16, []byte{0, 3, 2, 'h', '2'})), 7)
	f.Add(slices.Concat(ext(0, sni("a.example", "b.example")), ext(0xfe0d, []byte{1})), 1)
	f.Add(ext(0, sni("a.example.")), 50)
	f.Fuzz(func(t *testing.T, extensions []byte, piece int) {
		if piece < 1 || piece > maxRecord || len(extensions) > 4096 {
			return
		}
		raw := inPieces(handshake(helloBody(extensions)), piece)
		h, _, err := readHello(bytes.NewReader(raw))
		if err != nil {
			return
		}
		if name, seen := serverReads(raw); seen && name != h.serverName {
			t.Errorf("a server reads %q, we read %q", name, h.serverName)
		}
	})
}

// serverReads is the name that crypto/tls takes from the bytes, if it takes any.
func serverReads(raw []byte) (name string, seen bool) {
	stop := errors.New("seen")
	server := tls.Server(&replay{Reader: bytes.NewReader(raw)}, &tls.Config{
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			name, seen = info.ServerName, true
			return nil, stop
		},
	})
	_ = server.Handshake()
	return name, seen
}

// replay is a connection from which these bytes come.
type replay struct {
	io.Reader
	net.Conn
}

func (r *replay) Read(p []byte) (int, error)     { return r.Reader.Read(p) }
func (*replay) Write(p []byte) (int, error)      { return len(p), nil }
func (*replay) Close() error                     { return nil }
func (*replay) SetDeadline(time.Time) error      { return nil }
func (*replay) SetReadDeadline(time.Time) error  { return nil }
func (*replay) SetWriteDeadline(time.Time) error { return nil }

// TestServerReads is the positive control of the comparison above.
func TestServerReads(t *testing.T) {
	for _, raw := range [][]byte{helloFor(t, "a.example"), rawHello(ext(0, sni("a.example"))), inPieces(handshake(helloBody(ext(0, sni("a.example")))), 7)} {
		if name, seen := serverReads(raw); !seen || name != "a.example" {
			t.Errorf("crypto/tls reads %q, %v", name, seen)
		}
	}
}
