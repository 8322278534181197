package actions

import (
	"bytes"
	"fmt"
)

// showable makes the control characters visible that a log has no use for, among them those that begin escape codes other than for
// colours, and go back in a line to write over it.
func showable(b []byte) []byte {
	if bytes.IndexFunc(b, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 }) < 0 {
		return b
	}
	var out bytes.Buffer
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == 0xc2 && i+1 < len(b) && b[i+1] >= 0x80 && b[i+1] < 0xa0: // U+0080 to U+009F: controls too
			fmt.Fprintf(&out, `\u%04x`, b[i+1])
			i++
		case c == '\n' || c == '\t' || c >= ' ' && c != 0x7f:
			out.WriteByte(c)
		case c == '\r' && i+1 < len(b) && b[i+1] == '\n': // an end of line
		case c == 0x1b:
			n := colour(b[i:])
			if n == 0 {
				out.WriteString(`\x1b`)
				continue
			}
			out.Write(b[i : i+n])
			i += n - 1
		default:
			fmt.Fprintf(&out, `\x%02x`, c)
		}
	}
	return out.Bytes()
}

// maxColour bounds a sequence for colours, in bytes.
const maxColour = 32

// colour is the length of the escape sequence for colours that b begins with; 0 if it is none (ECMA-48, SGR).
func colour(b []byte) int {
	if len(b) < 3 || b[1] != '[' {
		return 0
	}
	for i := 2; i < min(len(b), maxColour); i++ {
		switch c := b[i]; {
		case c == 'm':
			return i + 1
		case c != ';' && (c < '0' || c > '9'):
			return 0
		}
	}
	return 0
}

// unfinished is the length of what b ends with and only the next bytes can tell the meaning of: the first half of a control character in
// UTF-8, of an end of line, or the beginning of a sequence for colours.
func unfinished(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	if last := b[len(b)-1]; last == 0xc2 || last == '\r' {
		return 1
	}
	near := b[max(0, len(b)-maxColour):]
	at := bytes.LastIndexByte(near, 0x1b)
	if at < 0 || len(near)-at > 1 && near[at+1] != '[' {
		return 0
	}
	for _, c := range near[min(at+2, len(near)):] {
		if c != ';' && (c < '0' || c > '9') {
			return 0
		}
	}
	return len(near) - at
}
