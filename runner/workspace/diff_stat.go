package workspace

import (
	"bufio"
	"fmt"
	"strings"
	"unicode/utf8"
)

// fileStats counts the changed lines of one file.
type fileStats struct {
	Change         *Change
	Added, Deleted int  // lines
	Binary         bool // no lines to count
}

// stat counts the changed lines of each named file in the patch of a run, in the order of the change set. What git can't show
// (directories, modes beyond the executable bit, .git) is not in it.
func stat(runDir string, cs *ChangeSet, named []bool) ([]fileStats, error) {
	var s statCounter
	if err := readPatch(runDir, cs, named, &s); err != nil {
		return nil, err
	}
	return s.files, nil
}

type statCounter struct{ files []fileStats }

func (s *statCounter) line(c *Change, kind lineKind, _ []byte) error {
	if n := len(s.files); n == 0 || s.files[n-1].Change != c {
		s.files = append(s.files, fileStats{Change: c})
	}
	f := &s.files[len(s.files)-1]
	switch kind {
	case lineOld:
		f.Deleted++
	case lineNew:
		f.Added++
	case lineBinary:
		f.Binary = true
	}
	return nil
}

// writeStat lays the counts out as git does.
func writeStat(out *bufio.Writer, files []fileStats, opts DiffOptions) {
	width := opts.Width
	if width <= 0 {
		width = 80
	}
	names, nameWidth, most := make([]string, len(files)), 0, 0
	for i, f := range files {
		names[i] = statName(f.Change)
		nameWidth = max(nameWidth, utf8.RuneCountInString(names[i]))
		most = max(most, f.Added+f.Deleted)
	}
	digits := max(len(fmt.Sprint(most)), len("Bin"))
	nameWidth = min(nameWidth, max(width-digits-16, 10))
	graph := max(width-nameWidth-digits-5, 10)
	added, deleted := 0, 0
	for i, f := range files {
		added, deleted = added+f.Added, deleted+f.Deleted
		fmt.Fprintf(out, " %s | %s\n", pad(shorten(names[i], nameWidth), nameWidth), statBar(f, digits, graph, most, opts.Color))
	}
	out.WriteString(statSum(len(files), added, deleted))
}

func statName(c *Change) string {
	if c.From != "" {
		return printable(c.From) + " => " + printable(c.Path)
	}
	return printable(c.Path)
}

// shorten keeps the end of a name, which tells more than its beginning.
func shorten(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return "..." + string(r[len(r)-width+3:])
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

func statBar(f fileStats, digits, graph, most int, color bool) string {
	switch {
	case f.Change.Omitted != "":
		return "(not in the patch: " + printable(f.Change.Omitted) + ")"
	case f.Binary:
		return fmt.Sprintf("%*s %s", digits, "Bin", sizes(f.Change))
	case f.Added+f.Deleted == 0:
		return fmt.Sprintf("%*d", digits, 0)
	}
	plus, minus := scale(f.Added, graph, most), scale(f.Deleted, graph, most)
	bar := [2]string{strings.Repeat("+", plus), strings.Repeat("-", minus)}
	if color {
		bar[0] = colorOf(lineNew) + bar[0] + "\x1b[m"
		bar[1] = colorOf(lineOld) + bar[1] + "\x1b[m"
	}
	return fmt.Sprintf("%*d %s%s", digits, f.Added+f.Deleted, bar[0], bar[1])
}

// scale fits n of most lines into a graph, and shows at least one sign for any line.
func scale(n, graph, most int) int {
	if n == 0 || most <= graph {
		return n
	}
	return max(1, n*(graph-1)/most)
}

func statSum(files, added, deleted int) string {
	s := " " + plural(files, "file", "files") + " changed"
	if added > 0 {
		s += ", " + plural(added, "insertion(+)", "insertions(+)")
	}
	if deleted > 0 {
		s += ", " + plural(deleted, "deletion(-)", "deletions(-)")
	}
	return s + "\n"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
