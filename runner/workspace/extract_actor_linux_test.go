package workspace

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// actor does random things to a directory, as agents and their tools do. The same seed does the same on another tree with
// the same names: it chooses from a list, never from what is there.
type actor struct {
	*rand.Rand
	t   testing.TB
	dir string
}

func newActor(t testing.TB, r *rand.Rand, dir string) *actor {
	return &actor{Rand: r, t: t, dir: dir}
}

// names are few, so that operations meet each other.
func (a *actor) name() string {
	names := []string{
		"a", "b", "c", "d", "e", "secret", "key.pem", ".git", "with space", "co,mma", "co:lon", `back\slash`, "new\nline",
		"tab\t", "inv\xff\xfe", "-rf", ".wh.a", "esc\x1b[31m", "\u00fc",
	}
	if a.IntN(3) > 0 {
		return names[a.IntN(7)]
	}
	return names[a.IntN(len(names))]
}

func (a *actor) path() string {
	p := a.dir
	for range 1 + a.IntN(4) {
		p = filepath.Join(p, a.name())
	}
	return p
}

// real reports whether no directory above p is a symlink.
func (a *actor) real(p string) bool {
	for d := filepath.Dir(p); len(d) > len(a.dir); d = filepath.Dir(d) {
		if info, err := os.Lstat(d); err == nil && info.Mode()&os.ModeSymlink != 0 {
			return false
		}
	}
	return true
}

// build makes a tree of about sixty entries, all from some time ago.
func (a *actor) build() {
	for range 60 {
		p := a.path()
		switch a.IntN(6) {
		case 0:
			_ = os.MkdirAll(p, 0o755)
		case 1:
			_ = os.MkdirAll(filepath.Dir(p), 0o755)
			_ = os.Symlink(a.name(), p)
		default:
			if os.MkdirAll(filepath.Dir(p), 0o755) == nil && a.real(p) {
				_ = os.WriteFile(p, a.content(), []os.FileMode{0o644, 0o755, 0o600}[a.IntN(3)])
			}
		}
	}
}

// content is now and then the same as somewhere else.
func (a *actor) content() []byte {
	b := make([]byte, a.IntN(6)*a.IntN(800))
	for i := range b {
		b[i] = byte('a' + i%7)
	}
	return b
}

// act does n operations. Errors are part of it: both trees have them alike.
func (a *actor) act(n int) {
	for range n {
		p, q, kind, content := a.path(), a.path(), a.IntN(22), a.content()
		mode := []os.FileMode{0o644, 0o755, 0o600, 0o400, 0, 0o755 | os.ModeSetuid}[a.IntN(6)]
		if os.Geteuid() != 0 {
			mode |= 0o700 // the test must read it afterwards
		}
		if a.real(p) && a.real(q) {
			a.operate(kind, p, q, content, mode)
		}
	}
}

func (a *actor) operate(kind int, p, q string, content []byte, mode os.FileMode) {
	regular := func(p string) bool {
		info, err := os.Lstat(p)
		return err == nil && info.Mode().IsRegular()
	}
	exists := func(p string) bool {
		_, err := os.Lstat(p)
		return err == nil
	}
	remove := func(p string) {
		if exists(p) { // else os.RemoveAll opens what is above it, and waits if that is a FIFO
			_ = os.RemoveAll(p)
		}
	}
	switch kind {
	case 0, 1, 2: // write
		if !exists(p) || regular(p) {
			_ = os.MkdirAll(filepath.Dir(p), 0o755)
			_ = os.WriteFile(p, content, mode.Perm())
		}
	case 3: // append
		if regular(p) {
			a.write(p, os.O_APPEND|os.O_WRONLY)
		}
	case 4: // overwrite the first bytes
		if regular(p) {
			a.write(p, os.O_WRONLY)
		}
	case 5:
		if regular(p) {
			_ = os.Truncate(p, int64(len(content)/2))
		}
	case 6:
		if info, err := os.Lstat(p); err == nil && info.Mode()&os.ModeSymlink == 0 {
			_ = os.Chmod(p, mode)
		}
	case 7, 8, 9, 10: // also over what is there, and directories
		_ = os.Rename(p, q)
	case 11:
		_ = os.Remove(p)
	case 12:
		remove(p)
	case 13: // removed and made again
		remove(p)
		_ = os.MkdirAll(filepath.Join(p, "again"), 0o755)
	case 14:
		_ = os.MkdirAll(p, 0o755)
	case 15:
		_ = os.Symlink(filepath.Base(q), p)
	case 16:
		if regular(p) {
			_ = os.Link(p, q)
		}
	case 17: // a directory becomes a file
		remove(p)
		_ = os.WriteFile(p, content, 0o644)
	case 18: // touched, and written again as it was
		if regular(p) {
			data, _ := os.ReadFile(p)
			_ = os.WriteFile(p, data, 0o644)
			_ = os.Chtimes(p, time.Time{}, time.Unix(1e9, 0))
		}
	case 19:
		_ = unix.Mkfifo(p, 0o644)
	case 20: // as editors save
		if regular(p) && os.WriteFile(p+"~", content, 0o644) == nil {
			_ = os.Rename(p+"~", p)
		}
	case 21:
		_ = unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, unix.RENAME_EXCHANGE)
	}
}

func (a *actor) write(p string, flags int) {
	f, err := os.OpenFile(p, flags, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString("written")
}
