package workspace

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/sha1" //nolint:gosec // git's object ids, not a protection
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

func (p *patcher) idLength() int {
	if p.cfg.SHA256 {
		return 2 * sha256.Size
	}
	return 2 * sha1.Size
}

// newGitHash starts the id of a blob: git hashes a header with the length first (git-hash-object(1)).
func newGitHash(isSHA256 bool, size int64) hash.Hash {
	h := sha1.New()
	if isSHA256 {
		h = sha256.New()
	}
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

// readSide reads r once: the ids of everything, the content only of what can be shown as text.
func (p *patcher) readSide(n *Node, r io.Reader) (side, error) {
	size := n.Size
	if n.Type == Symlink {
		size = int64(len(n.Target))
	}
	id, sum := newGitHash(p.cfg.SHA256, size), sha256.New()
	var text bytes.Buffer
	var sink io.Writer = io.Discard
	if size <= maxTextBytes {
		text.Grow(int(size))
		sink = &text
	}
	got, err := io.Copy(io.MultiWriter(id, sum, sink), io.LimitReader(r, size+1))
	if err != nil {
		return side{}, err
	}
	if got != size || hex.EncodeToString(sum.Sum(nil)) != n.SHA256 {
		return side{}, errors.New("content differs from what was recorded")
	}
	s := side{id: hex.EncodeToString(id.Sum(nil)), size: size}
	if size <= maxTextBytes {
		s = s.shown(text.Bytes())
	}
	return s, nil
}

// idOf is git's id of a blob that is at hand.
func (p *patcher) idOf(content []byte) string {
	h := newGitHash(p.cfg.SHA256, int64(len(content)))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// shown is the side with its content, if that can be shown as text.
func (s side) shown(content []byte) side {
	if bytes.IndexByte(content, 0) >= 0 {
		return s
	}
	s.text = content
	if content == nil {
		s.text = []byte{}
	}
	return s
}

// body is a block with its contents at hand.
type body struct {
	section
	oldSide, newSide side
	oldLines         [][]byte
	newLines         [][]byte
	edits            []edit
	common           int64 // bytes that both sides share
}

// compare finds the edits of a text block.
func (b *body) compare() {
	if b.binary() || b.oldSide.id == b.newSide.id {
		return
	}
	b.oldLines, b.newLines = splitLines(b.oldSide.text), splitLines(b.newSide.text)
	b.edits = diffLines(b.oldLines, b.newLines)
	b.common = b.oldSide.size
	for _, e := range b.edits {
		for _, l := range b.oldLines[e.a0:e.a1] {
			b.common -= int64(len(l))
		}
	}
}

func (b *body) binary() bool { return b.oldSide.text == nil || b.newSide.text == nil }

// size is how many bytes write gives: exact for text, an upper bound for a literal.
func (b *body) size() int64 {
	var n countWriter
	_ = b.writeHeader(&n)
	if b.oldSide.id == b.newSide.id {
		return int64(n)
	}
	if b.binary() {
		return int64(n) + literalBound(b.newSide.size)
	}
	_ = b.writeHunks(&n)
	return int64(n)
}

type countWriter int64

func (n *countWriter) Write(p []byte) (int, error) {
	*n += countWriter(len(p))
	return len(p), nil
}

func (b *body) write(w io.Writer) error {
	if err := b.writeHeader(w); err != nil {
		return err
	}
	switch {
	case b.oldSide.id == b.newSide.id:
		return nil
	case b.binary():
		return b.writeLiteral(w)
	}
	return b.writeHunks(w)
}

// diffHeader is the first line of a block. Diff finds a block by it again.
func diffHeader(from, path string) string {
	return "diff --git " + quoteName("a/", from) + " " + quoteName("b/", path) + "\n"
}

func (b *body) writeHeader(w io.Writer) error {
	var h strings.Builder
	h.WriteString(diffHeader(b.from, b.path))
	switch {
	case b.old == nil:
		fmt.Fprintf(&h, "new file mode %s\nindex %s..%s\n", gitMode(b.new), b.oldSide.id, b.newSide.id)
	case b.new == nil:
		fmt.Fprintf(&h, "deleted file mode %s\nindex %s..%s\n", gitMode(b.old), b.oldSide.id, b.newSide.id)
	default:
		b.writeChange(&h)
	}
	_, err := io.WriteString(w, h.String())
	return err
}

func (b *body) writeChange(h *strings.Builder) {
	oldMode, newMode := gitMode(b.old), gitMode(b.new)
	if oldMode != newMode {
		fmt.Fprintf(h, "old mode %s\nnew mode %s\n", oldMode, newMode)
	}
	if b.from != b.path {
		fmt.Fprintf(h, "similarity index %d%%\nrename from %s\nrename to %s\n", b.similarity(), quoteName("", b.from), quoteName("", b.path))
	}
	if b.oldSide.id == b.newSide.id {
		return
	}
	fmt.Fprintf(h, "index %s..%s", b.oldSide.id, b.newSide.id)
	if oldMode == newMode {
		h.WriteString(" " + oldMode)
	}
	h.WriteByte('\n')
}

// similarity is what git shows: the part of the larger side that is common, in percent. 100 means identical.
func (b *body) similarity() int64 {
	if b.oldSide.id == b.newSide.id {
		return 100
	}
	return min(99, 100*b.common/max(b.oldSide.size, b.newSide.size, 1))
}

// contextLines is how many unchanged lines a hunk shows around an edit, as git's default.
const contextLines = 3

func (b *body) writeHunks(w io.Writer) error {
	if len(b.edits) == 0 {
		return nil
	}
	out := bufio.NewWriterSize(w, 512)
	fmt.Fprintf(out, "--- %s\n+++ %s\n", sideName(b.old, "a/", b.from), sideName(b.new, "b/", b.path))
	for start := 0; start < len(b.edits); {
		end := start + 1
		for end < len(b.edits) && b.edits[end].a0-b.edits[end-1].a1 <= 2*contextLines {
			end++
		}
		b.writeHunk(out, b.edits[start:end])
		start = end
	}
	return out.Flush()
}

// sideName is the name on a --- or +++ line. A blank in it needs a tab after it, or patch(1) takes the rest for a date.
func sideName(n *Node, prefix, path string) string {
	if n == nil {
		return "/dev/null"
	}
	q := quoteName(prefix, path)
	if q[0] != '"' && strings.Contains(q, " ") {
		q += "\t"
	}
	return q
}

func (b *body) writeHunk(out *bufio.Writer, edits []edit) {
	first, last := edits[0], edits[len(edits)-1]
	before := min(contextLines, first.a0)
	after := min(contextLines, len(b.oldLines)-last.a1)
	fmt.Fprintf(out, "@@ -%s +%s @@\n", hunkRange(first.a0-before, last.a1+after), hunkRange(first.b0-before, last.b1+after))
	at := first.a0 - before
	for _, e := range edits {
		writeLines(out, ' ', b.oldLines[at:e.a0])
		writeLines(out, '-', b.oldLines[e.a0:e.a1])
		writeLines(out, '+', b.newLines[e.b0:e.b1])
		at = e.a1
	}
	writeLines(out, ' ', b.oldLines[at:at+after])
}

// hunkRange gives "line,count" for the lines [from,to). An empty range names the line before it.
func hunkRange(from, to int) string {
	switch to - from {
	case 0:
		return fmt.Sprintf("%d,0", from)
	case 1:
		return fmt.Sprint(to)
	}
	return fmt.Sprintf("%d,%d", from+1, to-from)
}

func writeLines(out *bufio.Writer, mark byte, lines [][]byte) {
	for _, l := range lines {
		out.WriteByte(mark)
		out.Write(l)
		if l[len(l)-1] != '\n' {
			out.WriteString("\n\\ No newline at end of file\n")
		}
	}
}

// writeLiteral writes a binary block: the new content whole, compressed and in base 85.
func (b *body) writeLiteral(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "GIT binary patch\nliteral %d\n", b.newSide.size)
	lines := &base85Writer{w: out}
	z := zlib.NewWriter(lines)
	if b.newSide.open != nil {
		if err := copySide(z, b.newSide); err != nil {
			return err
		}
	}
	if err := errors.Join(z.Close(), lines.Close()); err != nil {
		return err
	}
	out.WriteByte('\n')
	return out.Flush()
}

func copySide(w io.Writer, s side) error {
	r, err := s.open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}
