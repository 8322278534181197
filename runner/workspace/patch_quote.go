package workspace

import (
	"fmt"
	"io"
	"strings"
)

// quoteName gives prefix and name as git writes them in a patch: as they are, or in double quotes with C
// escapes when a byte is a control character, a quote, a backslash or above 0x7e (core.quotePath, git-config(1)).
func quoteName(prefix, name string) string {
	s := prefix + name
	if !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e || r == '"' || r == '\\' }) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		writeQuoted(&b, s[i])
	}
	b.WriteByte('"')
	return b.String()
}

func writeQuoted(b *strings.Builder, c byte) {
	const letters = "abtnvfr" // from 7 on
	switch {
	case c >= 7 && c < 7+byte(len(letters)):
		b.WriteByte('\\')
		b.WriteByte(letters[c-7])
	case c == '"' || c == '\\':
		b.WriteByte('\\')
		b.WriteByte(c)
	case c < 0x20 || c > 0x7e:
		fmt.Fprintf(b, "\\%03o", c)
	default:
		b.WriteByte(c)
	}
}

// base85Line is how many bytes one line of a binary patch holds.
const base85Line = 52

// base85Writer writes lines of git's base 85 (base85.c): a letter for the line's length, A-Z for 1 to 26 and
// a-z for 27 to 52, then five digits for each four bytes, the last group filled up with zeros.
type base85Writer struct {
	w   io.Writer
	buf [base85Line]byte
	n   int
}

func (b *base85Writer) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		k := copy(b.buf[b.n:], p[done:])
		done += k
		if b.n += k; b.n == base85Line {
			if err := b.flush(); err != nil {
				return done, err
			}
		}
	}
	return len(p), nil
}

// Close writes the last, shorter line. It does not close the writer below.
func (b *base85Writer) Close() error {
	if b.n == 0 {
		return nil
	}
	return b.flush()
}

func (b *base85Writer) flush() error {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
	var line [1 + base85Line/4*5 + 1]byte
	if b.n <= 26 {
		line[0] = byte('A' + b.n - 1)
	} else {
		line[0] = byte('a' + b.n - 27)
	}
	clear(b.buf[b.n:])
	out := 1
	for i := 0; i < b.n; i += 4 {
		v := uint32(b.buf[i])<<24 | uint32(b.buf[i+1])<<16 | uint32(b.buf[i+2])<<8 | uint32(b.buf[i+3])
		for d := 4; d >= 0; d-- {
			line[out+d] = digits[v%85]
			v /= 85
		}
		out += 5
	}
	line[out] = '\n'
	b.n = 0
	_, err := b.w.Write(line[:out+1])
	return err
}

// literalBound is the most that a literal of size bytes takes in a patch: deflate stores incompressible
// data with 5 bytes for each block, base 85 takes 67 bytes for 52.
func literalBound(size int64) int64 {
	deflated := size + size/1000 + 1024
	return 64 + (deflated/base85Line+1)*67
}
