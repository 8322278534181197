//go:build unix

package workspace

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A file that became a FIFO on the host is a conflict, and nobody waits for a writer.
func TestApplyDoesNotWaitForAFIFO(t *testing.T) {
	for _, when := range []string{"before", "staged"} {
		c := newApplyCase(t, treeState{"f": fileEntry("1", 0o644), "m": fileEntry("m", 0o644)}, treeState{"f": fileEntry("2", 0o644), "m": fileEntry("m", 0o755)})
		swap := func() error {
			return errors.Join(os.Remove(c.path("f")), syscall.Mkfifo(c.path("f"), 0o644))
		}
		c.fault = func(step string) error {
			if step == when {
				return swap()
			}
			return nil
		}
		if when == "before" {
			if err := swap(); err != nil {
				t.Fatal(err)
			}
		}
		res, err := c.apply(t)
		if !errors.Is(err, ErrConflict) || len(res.Conflicts) != 1 || res.Conflicts[0].Path != "f" {
			t.Errorf("%s: %v, %+v", when, err, res)
		}
		if when == "before" && !strings.Contains(res.Conflicts[0].Reason, "special file") {
			t.Errorf("reason %q", res.Conflicts[0].Reason)
		}
		if info, err := os.Lstat(c.path("f")); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			t.Errorf("%s: the FIFO is gone: %v", when, err)
		}
	}
}

// HostFiles serves the patch from a project that somebody may be changing.
func TestHostFilesOpenOnlyFiles(t *testing.T) {
	c := newApplyCase(t, treeState{"d": dirEntry(0o755), "d/f": fileEntry("1", 0o644)}, treeState{})
	if err := errors.Join(syscall.Mkfifo(c.path("fifo"), 0o644), os.Symlink("d", c.path("l")), os.Symlink("/etc/passwd", c.path("p"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(c.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	open := HostFiles(root)
	for _, p := range []string{"fifo", "l/f", "p", "d", "no"} {
		if r, err := open(p); err == nil {
			r.Close()
			t.Errorf("opened %q", p)
		}
	}
	r, err := open("d/f")
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}
