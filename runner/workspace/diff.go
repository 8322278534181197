package workspace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// DiffOptions say how to show a change set.
type DiffOptions struct {
	// RunDir is the run directory, with changes.patch. Required.
	RunDir string

	// Paths limits the output as ApplyConfig.Paths does.
	Paths []string

	// Stat gives one line per file and a sum, as `git diff --stat`.
	Stat bool

	// Width is the columns that Stat fills. Default 80.
	Width int

	// Terminal makes the output safe and complete for people: control characters, bidirectional controls and
	// bytes that are not UTF-8 are made visible in names and contents, binary contents are left out, and comment
	// lines name what a patch can't show. Without it the output is the patch, byte for byte, for `git apply`.
	Terminal bool

	// Color adds git's colours. It implies Terminal.
	Color bool
}

// Diff shows what an agent changed, from the patch that was made at extraction: what is shown does not depend on the
// host's present files. It returns fs.ErrNotExist, wrapped, when the run left no patch.
func Diff(w io.Writer, cs *ChangeSet, opts DiffOptions) error {
	opts.Terminal = opts.Terminal || opts.Color
	named, err := namedChanges(cs, opts.Paths)
	if err != nil {
		return fmt.Errorf("diff: %w", err)
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if opts.Stat {
		stats, err := stat(opts.RunDir, cs, named)
		if err != nil {
			return fmt.Errorf("diff: %w", err)
		}
		writeStat(out, stats, opts)
		return out.Flush()
	}
	d := &differView{out: out, opts: opts}
	if err := readPatch(opts.RunDir, cs, named, d); err != nil {
		return fmt.Errorf("diff: %w", err)
	}
	if opts.Terminal {
		d.notes(cs, named)
	}
	return out.Flush()
}

// lineKind is what a line of a patch is.
type lineKind int

const (
	lineStart   lineKind = iota // "diff --git"
	lineHeader                  // the extended header, --- and +++
	lineHunk                    // "@@"
	lineContext                 // also "\ No newline at end of file"
	lineOld
	lineNew
	lineBinary  // "GIT binary patch" and what follows
	lineComment // stands for a block that was left out
)

// patchVisitor gets the lines of a patch, with their newlines. c is nil for a comment.
type patchVisitor interface {
	line(c *Change, kind lineKind, text []byte) error
}

// maxPatchLine bounds a line of changes.patch: a line of text can't be longer than a text file.
const maxPatchLine = maxTextBytes + 64

// readPatch hands the lines of the named changes to v.
func readPatch(runDir string, cs *ChangeSet, named []bool, v patchVisitor) error {
	f, err := os.Open(filepath.Join(runDir, PatchFile))
	if err != nil {
		return err
	}
	defer f.Close()
	starts := patchStarts(cs, named)
	in := bufio.NewReaderSize(f, 64<<10)
	var c *Change
	at := lineComment
	for {
		text, err := readLine(in)
		if len(text) > 0 {
			at = nextKind(at, text)
			if at == lineStart || at == lineComment {
				c = starts[string(text)]
			}
			if c != nil {
				if err := v.line(c, at, text); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// patchStarts finds the change of each block by its first line, which is made of nothing but the names; a
// comment likewise, by the beginning of it.
func patchStarts(cs *ChangeSet, named []bool) map[string]*Change {
	starts := map[string]*Change{}
	for i := range cs.Changes {
		c := &cs.Changes[i]
		if !named[i] {
			continue
		}
		for _, s := range sections(c) {
			starts[diffHeader(s.from, s.path)] = c
			if c.Omitted != "" {
				starts[omittedLine(s.path, c.Omitted)] = c
			}
		}
	}
	return starts
}

func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if line == nil && err == nil {
			return part, nil
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > maxPatchLine {
			return nil, fmt.Errorf("a line of %s is longer than %d bytes", PatchFile, maxPatchLine)
		}
	}
}

// nextKind classifies a line by what came before it: the content of a hunk is marked in its first column, so
// nothing in a file passes for the start of a block.
func nextKind(last lineKind, text []byte) lineKind {
	switch {
	case bytes.HasPrefix(text, []byte("diff --git ")):
		return lineStart
	case bytes.HasPrefix(text, []byte(omittedPrefix)):
		return lineComment
	case last == lineBinary || bytes.HasPrefix(text, []byte("GIT binary patch")):
		return lineBinary
	case bytes.HasPrefix(text, []byte("@@ ")):
		return lineHunk
	case last == lineStart || last == lineHeader:
		return lineHeader
	case text[0] == '-':
		return lineOld
	case text[0] == '+':
		return lineNew
	}
	return lineContext
}

// differView writes lines for people or, unless Terminal is set, as they are.
type differView struct {
	out  *bufio.Writer
	opts DiffOptions
	last *Change // whose binary was mentioned
}

func (d *differView) line(c *Change, kind lineKind, text []byte) error {
	if !d.opts.Terminal {
		_, err := d.out.Write(text)
		return err
	}
	switch kind {
	case lineStart:
		d.write(kind, "diff --git a/"+printable(c.source())+" b/"+printable(c.Path))
		if c.Tier != NoTier {
			d.write(lineComment, "# "+string(c.Tier)+": "+printable(c.Reason))
		}
	case lineHeader:
		d.write(kind, headerLine(c, string(text)))
	case lineBinary:
		if d.last != c {
			d.last = c
			d.write(lineContext, "Binary files differ: "+sizes(c))
		}
	case lineComment:
		d.write(kind, "# not shown: "+printable(c.Path)+": "+printable(c.Omitted))
	default:
		d.write(kind, printableLine(strings.TrimSuffix(string(text), "\n")))
	}
	return nil // a bufio.Writer keeps its first error for Flush
}

// headerLine writes the names in a header line readably.
func headerLine(c *Change, text string) string {
	text = strings.TrimRight(text, "\t\n")
	switch {
	case text == "--- /dev/null", text == "+++ /dev/null":
		return text
	case strings.HasPrefix(text, "--- "):
		return "--- a/" + printable(c.source())
	case strings.HasPrefix(text, "+++ "):
		return "+++ b/" + printable(c.Path)
	case strings.HasPrefix(text, "rename from "):
		return "rename from " + printable(c.From)
	case strings.HasPrefix(text, "rename to "):
		return "rename to " + printable(c.Path)
	}
	return printable(text)
}

// printableLine is printable for a line of text, in which a tab is nothing special.
func printableLine(s string) string {
	if !strings.Contains(s, "\t") {
		return printable(s)
	}
	parts := strings.Split(s, "\t")
	for i := range parts {
		parts[i] = printable(parts[i])
	}
	return strings.Join(parts, "\t")
}

func (d *differView) write(kind lineKind, text string) {
	color := ""
	if d.opts.Color {
		color = colorOf(kind)
	}
	d.out.WriteString(color + text)
	if color != "" {
		d.out.WriteString("\x1b[m")
	}
	d.out.WriteByte('\n')
}

// colorOf gives git's default colours, see color.diff in git-config(1).
func colorOf(kind lineKind) string {
	switch kind {
	case lineStart, lineHeader:
		return "\x1b[1m"
	case lineHunk:
		return "\x1b[36m"
	case lineOld:
		return "\x1b[31m"
	case lineNew:
		return "\x1b[32m"
	case lineComment:
		return "\x1b[33m"
	}
	return ""
}

// notes tells of the changes that no patch can hold.
func (d *differView) notes(cs *ChangeSet, named []bool) {
	git := 0
	for i := range cs.Changes {
		c := &cs.Changes[i]
		switch {
		case !named[i]:
		case c.Git && c.Tier == Reject:
			d.write(lineComment, "# in .git, "+string(c.Kind)+", reject: "+printable(c.Path)+": "+printable(c.Reason))
		case c.Git:
			git++
		case len(sections(c)) == 0:
			d.note(cs, i)
		}
	}
	if git > 0 {
		d.write(lineComment, fmt.Sprintf("# and %d changes in .git, which are never applied", git))
	}
}

func (d *differView) note(cs *ChangeSet, i int) {
	c := &cs.Changes[i]
	what := ""
	switch {
	case isOther(c.Old) || isOther(c.New):
		what = "FIFO, socket or device, never applied"
	case c.Kind == Mode || c.Kind == Modified:
		what = fmt.Sprintf("%s mode %04o -> %04o", c.New.Type, unixMode(c.Old.Mode), unixMode(c.New.Mode))
	case i+1 < len(cs.Changes) && under(c.Path, cs.Changes[i+1].Path):
		return // the files in it say so
	default:
		what = "directory " + string(c.Kind)
	}
	tier := ""
	if c.Tier != NoTier {
		tier = " (" + string(c.Tier) + ": " + printable(c.Reason) + ")"
	}
	d.write(lineComment, "# "+what+": "+printable(c.Path)+tier)
}

func sizes(c *Change) string {
	size := func(n *Node) int64 {
		if n == nil {
			return 0
		}
		return n.Size
	}
	return fmt.Sprintf("%d -> %d bytes", size(c.Old), size(c.New))
}
