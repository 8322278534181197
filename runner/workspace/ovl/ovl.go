// Package ovl reads the extended attributes with which overlayfs notes, in an upper directory, what became of
// directories: replaced, renamed, or with files deleted. They are trusted.*, so only CAP_SYS_ADMIN sees them.
//
// It is small and imports little, so that a helper which runs as root in a container can Dump them for a runner
// which has no such rights and will Parse them. It refuses to follow a symlink, and believes no length that it reads.
package ovl

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Attrs is what overlayfs notes on one directory.
// https://docs.kernel.org/filesystems/overlayfs.html
type Attrs struct {
	// Opaque says that the lower directory of that name does not show through.
	Opaque bool

	// Redirect is where the lower directory is: "/a/b" from the lower root, or "name" beside its own place.
	// "" is a directory that was not renamed.
	Redirect string

	// Whiteouts names the children that stand for a deleted file although they are regular files, sorted.
	// The usual whiteouts, character devices 0/0, are not among them.
	Whiteouts []string
}

func (a Attrs) empty() bool {
	return !a.Opaque && a.Redirect == "" && len(a.Whiteouts) == 0
}

// Bounds of what Dump writes and Parse takes.
const (
	MaxDirs  = 1 << 20 // directories with attributes
	MaxDepth = 1024    // of directories
	maxPath  = 4096
	maxName  = 255
	maxTotal = 256 << 20 // bytes of all strings
)

const magic = "overlay-attributes 1\n"

// Dump writes the attributes of the directories below root, and of root itself as ".", for Parse.
func Dump(w io.Writer, root string) error {
	dirs, err := Read(root)
	if err != nil {
		return err
	}
	return write(w, dirs)
}

func write(w io.Writer, dirs map[string]Attrs) error {
	b := bufio.NewWriter(w)
	b.WriteString(magic)
	putUint(b, uint64(len(dirs)))
	for path, a := range dirs {
		putString(b, path)
		putString(b, a.Redirect)
		opaque := uint64(0)
		if a.Opaque {
			opaque = 1
		}
		putUint(b, opaque)
		putUint(b, uint64(len(a.Whiteouts)))
		for _, name := range a.Whiteouts {
			putString(b, name)
		}
	}
	b.WriteString(magic) // so that a stream cut short is never taken for a whole one
	return b.Flush()     // reports the first error of all the writes
}

func putUint(b *bufio.Writer, n uint64) {
	b.Write(binary.AppendUvarint(nil, n))
}

func putString(b *bufio.Writer, s string) {
	putUint(b, uint64(len(s)))
	b.WriteString(s)
}

// Parse reads what Dump wrote. Anything malformed, over the bounds, cut short or followed by more is an error.
func Parse(r io.Reader) (map[string]Attrs, error) {
	p := parser{r: bufio.NewReader(r)}
	dirs, err := p.all()
	if err != nil {
		return nil, fmt.Errorf("read overlay attributes: %w", err)
	}
	return dirs, nil
}

type parser struct {
	r     *bufio.Reader
	total int
}

func (p *parser) all() (map[string]Attrs, error) {
	if err := p.magic(); err != nil {
		return nil, err
	}
	n, err := p.uint(MaxDirs)
	if err != nil {
		return nil, err
	}
	dirs := make(map[string]Attrs)
	for range n {
		path, a, err := p.dir()
		if err != nil {
			return nil, err
		}
		if _, twice := dirs[path]; twice {
			return nil, fmt.Errorf("directory %q twice", path)
		}
		dirs[path] = a
	}
	if err := p.magic(); err != nil {
		return nil, err
	}
	if _, err := p.r.ReadByte(); err != io.EOF {
		return nil, errors.New("data after the end")
	}
	return dirs, nil
}

func (p *parser) dir() (path string, a Attrs, err error) {
	if path, err = p.string(maxPath); err != nil {
		return "", a, err
	}
	if a.Redirect, err = p.string(maxPath); err != nil {
		return "", a, err
	}
	opaque, err := p.uint(1)
	if err != nil {
		return "", a, err
	}
	a.Opaque = opaque == 1
	n, err := p.uint(maxTotal)
	if err != nil {
		return "", a, err
	}
	for range n {
		name, err := p.string(maxName)
		if err != nil {
			return "", a, err
		}
		a.Whiteouts = append(a.Whiteouts, name)
	}
	return path, a, check(path, a)
}

// check refuses what Read never gives, in above all paths that climb.
func check(path string, a Attrs) error {
	if path != "." && !clean(path) {
		return fmt.Errorf("path %q is not relative and clean", path)
	}
	if a.empty() || a.Redirect != "" && !validRedirect(a.Redirect) {
		return fmt.Errorf("directory %q with the redirect %q", path, a.Redirect)
	}
	for _, name := range a.Whiteouts {
		if !clean(name) || strings.Contains(name, "/") {
			return fmt.Errorf("directory %q with a whiteout named %q", path, name)
		}
	}
	if !slices.IsSorted(a.Whiteouts) {
		return fmt.Errorf("directory %q with whiteouts out of order", path)
	}
	return nil
}

// validRedirect takes "/a/b" and "name". The kernel refuses the same: a relative redirect with a slash
// in it, and components that aren't names.
func validRedirect(s string) bool {
	if rest, absolute := strings.CutPrefix(s, "/"); absolute {
		return clean(rest)
	}
	return clean(s) && !strings.Contains(s, "/")
}

func clean(path string) bool {
	if len(path) > maxPath || strings.Contains(path, "\x00") {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > maxName {
			return false
		}
	}
	return true
}

func (p *parser) magic() error {
	b := make([]byte, len(magic))
	if _, err := io.ReadFull(p.r, b); err != nil {
		return noEOF(err)
	}
	if !bytes.Equal(b, []byte(magic)) {
		return errors.New("not a list of overlay attributes")
	}
	return nil
}

func (p *parser) uint(most uint64) (uint64, error) {
	n, err := binary.ReadUvarint(p.r)
	if err != nil {
		return 0, noEOF(err)
	}
	if n > most {
		return 0, fmt.Errorf("number %d where at most %d may be", n, most)
	}
	return n, nil
}

func (p *parser) string(most int) (string, error) {
	n, err := p.uint(uint64(most))
	if err != nil {
		return "", err
	}
	if p.total += int(n); p.total > maxTotal {
		return "", errors.New("too long")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(p.r, b); err != nil {
		return "", noEOF(err)
	}
	return string(b), nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
