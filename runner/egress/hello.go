package egress

import (
	"errors"
	"io"
)

// What is read of a TLS client's first message (RFC 8446, section 4.1.2, and the older versions, which start alike).
const (
	recordHeader    = 5
	recordHandshake = 22
	maxRecord       = 1 << 14
	typeClientHello = 1
	maxHello        = 64 << 10 // post-quantum key shares make it a few kilobytes

	extensionServerName = 0
	extensionECH        = 0xfe0d // RFC 9849
	nameTypeHost        = 0      // RFC 6066, section 3
)

// hello is what matters of a ClientHello.
type hello struct {
	serverName string // as sent; empty when there is none
	ech        bool   // another server name may be inside, encrypted
}

var errHello = errors.New("the first message is no TLS ClientHello, or not as it is written")

// readHello reads the records that hold the client's first handshake message, however it is cut up, and
// nothing after them. raw has all bytes that were read.
func readHello(r io.Reader) (h hello, raw []byte, err error) {
	var message []byte
	for {
		start := len(raw)
		raw = append(raw, make([]byte, recordHeader)...)
		if n, err := io.ReadFull(r, raw[start:]); err != nil {
			return hello{}, raw[:start+n], err
		}
		head := raw[start:]
		size := int(head[3])<<8 | int(head[4])
		// An empty record or one of another kind between the parts is read in more than one way by real servers.
		if head[0] != recordHandshake || head[1] != 3 || size == 0 || size > maxRecord || len(raw)+size > maxHello {
			return hello{}, raw, errHello
		}
		start = len(raw)
		raw = append(raw, make([]byte, size)...)
		if n, err := io.ReadFull(r, raw[start:]); err != nil {
			return hello{}, raw[:start+n], err
		}
		message = append(message, raw[start:]...)
		if message[0] != typeClientHello {
			return hello{}, raw, errHello
		}
		if len(message) < 4 {
			continue
		}
		want := 4 + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
		switch {
		case want > maxHello, len(message) > want: // RFC 8446, section 5.1: nothing follows in the same record
			return hello{}, raw, errHello
		case len(message) == want:
			h, ok := parseHello(message[4:])
			if !ok {
				return hello{}, raw, errHello
			}
			return h, raw, nil
		}
	}
}

// bytesReader takes fields off the front; after a field that is too short everything fails.
type bytesReader struct {
	b  []byte
	ok bool
}

func (r *bytesReader) take(n int) []byte {
	if !r.ok || n > len(r.b) {
		r.ok = false
		return nil
	}
	field := r.b[:n]
	r.b = r.b[n:]
	return field
}

func (r *bytesReader) number(size int) int {
	n := 0
	for _, b := range r.take(size) {
		n = n<<8 | int(b)
	}
	return n
}

// vector takes a field that follows its length, which has so many bytes.
func (r *bytesReader) vector(lengthBytes int) *bytesReader {
	field := r.take(r.number(lengthBytes))
	return &bytesReader{field, r.ok}
}

func (r *bytesReader) more() bool { return r.ok && len(r.b) > 0 }

// parseHello is strict wherever two parsers could come to different names: lengths that don't add up, extensions
// that are there twice, lists of several names.
func parseHello(body []byte) (hello, bool) {
	r := &bytesReader{body, true}
	r.take(2 + 32) // version, random
	session, suites, compressions := r.vector(1), r.vector(2), r.vector(1)
	if !r.ok || len(session.b) > 32 || len(suites.b) == 0 || len(suites.b)%2 != 0 || len(compressions.b) == 0 {
		return hello{}, false
	}
	if !r.more() {
		return hello{}, true // RFC 5246, section 7.4.1.2: extensions may be left out
	}
	extensions := r.vector(2)
	if !r.ok || len(r.b) > 0 {
		return hello{}, false
	}
	return parseExtensions(extensions)
}

func parseExtensions(r *bytesReader) (hello, bool) {
	var h hello
	seen := map[int]bool{}
	for r.more() {
		kind := r.number(2)
		data := r.vector(2)
		if !r.ok || seen[kind] {
			return hello{}, false
		}
		seen[kind] = true
		switch kind {
		case extensionECH:
			h.ech = true
		case extensionServerName:
			name, ok := parseServerName(data)
			if !ok {
				return hello{}, false
			}
			h.serverName = name
		}
	}
	return h, r.ok
}

// parseServerName wants exactly one host name.
func parseServerName(r *bytesReader) (string, bool) {
	list := r.vector(2)
	kind := list.number(1)
	name := list.vector(2)
	ok := r.ok && list.ok && name.ok && len(r.b) == 0 && len(list.b) == 0 && len(name.b) > 0 && kind == nameTypeHost
	return string(name.b), ok
}
