package workspace

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

// A treeState is everything of a directory that a change set can tell, by path: what tests compare.
type treeState map[string]treeEntry

type treeEntry struct {
	Node
	Content string
}

// readTree takes the state of dir. Names that start with one of skip are left out.
func readTree(t testing.TB, dir string, skip ...string) treeState {
	t.Helper()
	state := treeState{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		rel = filepath.ToSlash(rel)
		for _, s := range skip {
			if strings.HasPrefix(rel, s) {
				return nil
			}
		}
		e, err := readEntry(p)
		state[rel] = e
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func readEntry(p string) (treeEntry, error) {
	info, err := os.Lstat(p)
	if err != nil {
		return treeEntry{}, err
	}
	e := treeEntry{Node: Node{Type: Other, Mode: info.Mode() & modeBits}}
	switch {
	case info.IsDir():
		e.Type = Dir
	case info.Mode()&fs.ModeSymlink != 0:
		e.Type, e.Mode = Symlink, 0
		if e.Target, err = os.Readlink(p); err != nil {
			return e, err
		}
		e.Size, e.SHA256 = int64(len(e.Target)), hashString(e.Target)
	case info.Mode().IsRegular():
		data, err := os.ReadFile(p)
		if err != nil {
			return e, err
		}
		e.Type, e.Content, e.Size, e.SHA256 = File, string(data), int64(len(data)), hashString(string(data))
	}
	return e, nil
}

// changesBetween makes the change set that turns one state into the other, with its blobs in runDir.
// Files that moved without a change of content become renames.
func changesBetween(t testing.TB, runDir string, before, after treeState) *ChangeSet {
	t.Helper()
	cs := &ChangeSet{Version: Version, Run: "test-run", Base: "/project", Started: time.Unix(1700000000, 0)}
	for p, old := range before {
		now, ok := after[p]
		switch {
		case !ok:
			cs.Changes = append(cs.Changes, Change{Path: p, Kind: Deleted, Old: &old.Node})
		case now.Type != old.Type || now.SHA256 != old.SHA256:
			cs.Changes = append(cs.Changes, Change{Path: p, Kind: Modified, Old: &old.Node, New: &now.Node})
		case now.Mode != old.Mode:
			cs.Changes = append(cs.Changes, Change{Path: p, Kind: Mode, Old: &old.Node, New: &now.Node})
		}
	}
	for p, now := range after {
		if _, ok := before[p]; !ok {
			cs.Changes = append(cs.Changes, Change{Path: p, Kind: Added, New: &now.Node})
		}
	}
	for _, e := range after {
		if e.Type == File {
			if _, _, err := OpenBlobs(runDir).Put(strings.NewReader(e.Content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cs.Sort()
	pairRenames(cs)
	return cs
}

func pairRenames(cs *ChangeSet) {
	gone := map[string]int{}
	for i, c := range cs.Changes {
		if c.Kind == Deleted && c.Old.Type == File && c.Old.Size > 0 {
			gone[c.Old.SHA256] = i
		}
	}
	drop := map[int]bool{}
	for i := range cs.Changes {
		c := &cs.Changes[i]
		if c.Kind != Added || c.New.Type != File {
			continue
		}
		if j, ok := gone[c.New.SHA256]; ok && !drop[j] {
			drop[j] = true
			c.Kind, c.From, c.Old = Renamed, cs.Changes[j].Path, cs.Changes[j].Old
		}
	}
	kept := cs.Changes[:0:0]
	for i, c := range cs.Changes {
		if !drop[i] {
			kept = append(kept, c)
		}
	}
	cs.Changes = kept
}

// treeMaker makes random trees out of few names, so that files and directories often take each other's place.
type treeMaker struct {
	*rand.Rand
	t     testing.TB
	names []string
}

func newTreeMaker(t testing.TB, seed uint64) *treeMaker {
	return &treeMaker{Rand: rand.New(rand.NewPCG(seed, 7)), t: t, names: []string{
		"a", "b", "c", "d", "src", "with space", "tab\there", "new\nline", `quo"te`, `back\slash`, "umlaut-ü", "inv\xff\xfealid", "esc\x1b[31m", "-dash",
	}}
}

func (m *treeMaker) path(depth int) string {
	n := 1 + m.IntN(depth)
	parts := make([]string, n)
	for i := range parts {
		parts[i] = m.names[m.IntN(len(m.names))]
	}
	return strings.Join(parts, "/")
}

func (m *treeMaker) content() string {
	switch m.IntN(8) {
	case 0:
		return ""
	case 1: // binary
		b := make([]byte, m.IntN(3000))
		for i := range b {
			b[i] = byte(m.IntN(256))
		}
		return "\x00" + string(b)
	case 2:
		return "no newline at the end"
	case 3:
		return "dos\r\nlines\r\n" + randomText(m.Rand, m.IntN(10), 5)
	default:
		return randomText(m.Rand, m.IntN(60), 30)
	}
}

// step does one random operation in dir: make, rewrite, edit, delete, move, link, chmod.
func (m *treeMaker) step(dir string) {
	p := filepath.Join(dir, m.path(3))
	if m.throughLink(dir, p) {
		return
	}
	switch m.IntN(10) {
	case 0, 1, 2:
		m.put(p, m.content())
	case 3:
		_ = os.RemoveAll(p)
	case 4:
		to := filepath.Join(dir, m.path(3))
		if !m.throughLink(dir, to) {
			_ = os.Rename(p, to)
		}
	case 5:
		_ = os.Symlink(m.path(2), p)
	case 6:
		if info, err := os.Lstat(p); err == nil && info.Mode()&fs.ModeSymlink == 0 {
			_ = os.Chmod(p, []fs.FileMode{0o755, 0o700, 0o744}[m.IntN(3)])
		}
	case 7:
		_ = os.MkdirAll(p, 0o755)
	default:
		m.edit(p)
	}
}

func (m *treeMaker) throughLink(dir, p string) bool {
	for d := filepath.Dir(p); len(d) > len(dir); d = filepath.Dir(d) {
		if info, err := os.Lstat(d); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return true
		}
	}
	return false
}

func (m *treeMaker) put(p, content string) {
	if os.MkdirAll(filepath.Dir(p), 0o755) != nil {
		return
	}
	if info, err := os.Lstat(p); err == nil && (info.Mode()&fs.ModeSymlink != 0 || m.IntN(3) == 0) {
		_ = os.RemoveAll(p)
	}
	_ = os.WriteFile(p, []byte(content), []fs.FileMode{0o644, 0o755}[m.IntN(2)])
}

func (m *treeMaker) edit(p string) {
	info, err := os.Lstat(p)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	data, _ := os.ReadFile(p)
	lines := bytes.SplitAfter(data, []byte("\n"))
	i := m.IntN(len(lines))
	lines[i] = []byte(fmt.Sprintf("edited %d\n", m.IntN(100)))
	_ = os.WriteFile(p, bytes.Join(lines, nil), info.Mode())
}

// gitEnviron keeps the tests' git away from whoever runs them.
func gitEnviron(home string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C",
		"GIT_AUTHOR_NAME=U", "GIT_AUTHOR_EMAIL=u@example.org", "GIT_COMMITTER_NAME=U", "GIT_COMMITTER_EMAIL=u@example.org",
	}
}

// gitIn runs git in dir and returns what it prints.
func gitIn(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := tryGitIn(t, dir, args...)
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return out
}

func tryGitIn(t testing.TB, dir string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "safe.directory=*", "-c", "init.defaultBranch=main"}, args...)...)
	cmd.Dir, cmd.Env = dir, gitEnviron(t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// paths lists a state's paths, for messages.
func (s treeState) paths() []string {
	var out []string
	for p := range s {
		out = append(out, p)
	}
	sort.Strings(out)
	return out
}
