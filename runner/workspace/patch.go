package workspace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PatchConfig says where a patch takes contents from and how large it may get.
type PatchConfig struct {
	// Old opens the content that a file had before the run, by path: HostFiles does for the project itself.
	// What it gives is compared with Change.Old, so it may be out of date. Required.
	Old func(path string) (io.ReadCloser, error)

	// Blobs holds the new contents.
	Blobs Blobs

	// MaxBytes is the most that the patch may hold. A change that does not fit any more is left out, with a comment
	// line in its place, and ChangeSet.PatchIncomplete is set. Default 64 MiB.
	MaxBytes int64

	// SHA256 makes the index lines those of a repository with extensions.objectFormat=sha256.
	SHA256 bool
}

const (
	defaultPatchBytes = 64 << 20
	maxTextBytes      = 8 << 20 // of either side; a larger file is written as a binary literal
)

// HostFiles opens files of the project for PatchConfig.Old. It follows no symlink and waits for no FIFO. What it
// gives is not safe for concurrent use. Close the root when done.
func HostFiles(root *os.Root) func(string) (io.ReadCloser, error) {
	tree := newTree(&dirHandle{path: ".", root: root})
	return func(path string) (io.ReadCloser, error) {
		defer tree.forget()
		return tree.open(path)
	}
}

// SavePatch writes runDir/changes.patch (mode 0600, all or nothing) and sets Omitted and PatchIncomplete in
// cs. So save cs after it.
func SavePatch(ctx context.Context, runDir string, cs *ChangeSet, cfg PatchConfig) error {
	err := writeFile(filepath.Join(runDir, PatchFile), func(w io.Writer) error {
		buf := bufio.NewWriterSize(w, 64<<10)
		return errors.Join(WritePatch(ctx, buf, cs, cfg), buf.Flush())
	})
	if err != nil {
		return fmt.Errorf("save patch: %w", err)
	}
	return nil
}

// WritePatch writes the change set as `git apply` takes it (git-diff(1), "Generating patch text with -p"),
// with full index lines, quoted names and binary literals. It leaves out what git can't express (directories,
// FIFOs, modes beyond the executable bit) and everything in .git. It sets Omitted and PatchIncomplete in cs.
func WritePatch(ctx context.Context, w io.Writer, cs *ChangeSet, cfg PatchConfig) error {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultPatchBytes
	}
	p := &patcher{w: w, cfg: cfg, left: cfg.MaxBytes}
	cs.PatchIncomplete = false
	return inTurn(slices.Chunk(cs.Changes, patchBatch), p.ahead, func(batch []*prepared) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		incomplete, err := p.batch(batch)
		cs.PatchIncomplete = cs.PatchIncomplete || incomplete
		return err
	})
}

// section is one "diff --git" block: both nodes are of the same git type, or one is nil.
type section struct {
	from, path string
	old, new   *Node
}

// sections gives the blocks of a change, in the order in which git apply must see them.
func sections(c *Change) []section {
	if c.Git {
		return nil
	}
	from := c.Path
	if c.From != "" {
		from = c.From
	}
	s := section{from: from, path: c.Path, old: gitNode(c.Old), new: gitNode(c.New)}
	switch {
	case s.old == nil && s.new == nil:
		return nil
	case s.old == nil:
		s.from = s.path
		return []section{s}
	case s.new == nil:
		s.path = s.from
		return []section{s}
	case s.old.Type != s.new.Type: // git can't turn a file into a symlink, it removes the one and makes the other
		return []section{{from: s.from, path: s.from, old: s.old}, {from: s.path, path: s.path, new: s.new}}
	case s.from == s.path && s.old.SHA256 == s.new.SHA256 && gitMode(s.old) == gitMode(s.new):
		return nil
	}
	return []section{s}
}

// gitNode drops what git doesn't track.
func gitNode(n *Node) *Node {
	if n == nil || (n.Type != File && n.Type != Symlink) {
		return nil
	}
	return n
}

// gitMode is the mode as git has it in trees and patches.
func gitMode(n *Node) string {
	switch {
	case n.Type == Symlink:
		return "120000"
	case n.Mode&0o100 != 0:
		return "100755"
	}
	return "100644"
}

// omit writes the line that stands for a block. git apply skips it.
func (p *patcher) omit(s section, why string) (string, error) {
	_, err := io.WriteString(p.w, omittedLine(s.path, why))
	return why, err
}

const omittedPrefix = "# agent-sandbox: left out "

func omittedLine(path, why string) string {
	return omittedPrefix + quoteName("", path) + ": " + why + "\n"
}

// side is one side of a block.
type side struct {
	id   string // git's blob id, all zeros for no file
	size int64
	text []byte // the content, nil when binary
	open func() (io.ReadCloser, error)
}

// load reads a side and checks it against the node.
func (p *patcher) load(n *Node, open func() (io.ReadCloser, error)) (side, error) {
	if n == nil {
		return side{id: strings.Repeat("0", p.idLength()), text: []byte{}}, nil
	}
	if n.Type == Symlink {
		target := n.Target
		open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(target)), nil }
	}
	if content := p.cfg.Blobs.inMemory(n.SHA256); n.Type == File && content != nil && int64(len(content)) == n.Size {
		s := side{id: p.idOf(content), size: n.Size, open: open}
		return s.shown(content), nil
	}
	r, err := open()
	if err != nil {
		return side{}, err
	}
	defer r.Close()
	s, err := p.readSide(n, r)
	s.open = open
	return s, err
}
