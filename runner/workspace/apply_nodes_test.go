package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestApplyStripsSpecialBits(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	after := treeState{
		"su": fileEntry("x", 0o755|fs.ModeSetuid|fs.ModeSetgid), "d": dirEntry(0o777 | fs.ModeSticky | fs.ModeSetgid), "plain": fileEntry("x", 0o640),
	}
	c := newApplyCase(t, treeState{}, after)
	c.AllowProtected = patterns(t, "su")
	c.mustApply(t)
	c.wantTree(t, treeState{"su": fileEntry("x", 0o755), "d": dirEntry(0o777), "plain": fileEntry("x", 0o640)})
	if res := c.mustApply(t); !res.AlreadyApplied() {
		t.Errorf("second time: %+v", res)
	}
}

func TestApplyNeverMakesOtherNodes(t *testing.T) {
	c := newApplyCase(t, treeState{}, treeState{"fifo": {Node: Node{Type: Other, Mode: 0o644}}, "f": fileEntry("f", 0o644)})
	c.AllowProtected = patterns(t, "*")
	res := c.mustApply(t)
	if len(res.Skipped) != 1 || res.Skipped[0].Path != "fifo" {
		t.Errorf("result %+v", res)
	}
	c.wantTree(t, treeState{"f": fileEntry("f", 0o644)})
}

func TestApplyRefusesDamagedBlobs(t *testing.T) {
	c := newApplyCase(t, treeState{"a": fileEntry("a", 0o644)}, treeState{"a": fileEntry("A", 0o644), "f": fileEntry("good", 0o644)})
	blob := filepath.Join(c.RunDir, BlobsDir, hashString("good"))
	write(t, blob, "evil")
	if _, err := c.apply(t); !errors.Is(err, ErrBlobDamaged) {
		t.Errorf("err %v", err)
	}
	c.wantTree(t, c.before)
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	if _, err := c.apply(t); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing blob: err %v", err)
	}
	c.wantTree(t, c.before)
}

// The host's hard links to elsewhere (a package store, say) keep the content and the mode that they have.
func TestApplyLeavesHardLinksAlone(t *testing.T) {
	c := newApplyCase(t, treeState{"f": fileEntry("1", 0o644), "m": fileEntry("2", 0o644)}, treeState{"f": fileEntry("changed", 0o644), "m": fileEntry("2", 0o755)})
	out := t.TempDir()
	for _, name := range []string{"f", "m"} {
		if err := os.Link(c.path(name), filepath.Join(out, name)); err != nil {
			t.Fatal(err)
		}
	}
	c.mustApply(t)
	c.wantTree(t, c.after)
	if d := cmp.Diff(readTree(t, out), c.before); d != "" {
		t.Errorf("outside (-got +want)\n%s", d)
	}
	// Who writes into the file, and puts none in its place, changes the other name.
	inPlace := filepath.Join(t.TempDir(), "f")
	if err := os.Link(filepath.Join(out, "f"), inPlace); err != nil {
		t.Fatal(err)
	}
	write(t, inPlace, "changed")
	if got := readTree(t, out)["f"].Content; got != "changed" {
		t.Errorf("a write in place leaves %q outside: the test proves nothing", got)
	}
}
