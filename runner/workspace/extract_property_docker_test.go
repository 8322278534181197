//go:build docker

package workspace

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/policy"
)

// Random operations through a real overlay, on a copy and on a plain tree: all three must tell the same story, and the
// project must keep every byte, mode and time.
func TestChangeSetsAgreeWithAPlainCopy(t *testing.T) {
	for seed := range uint64(100) {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { agree(t, seed) }) {
			return
		}
	}
}

func agree(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	project, plain := t.TempDir(), t.TempDir()
	newActor(t, rand.New(rand.NewPCG(seed, 2)), project).build()
	clone(t, project, plain)
	before, stamps := readTree(t, project), readStamps(t, project)
	hide := matcherOf(t, "secret", "*.pem")
	hidden := removeHidden(t, plain, hide)

	uid := []int{0, 1000}[r.IntN(2)] // 1000: through a mapped mount, the project being root's
	opSeed := r.Uint64()
	ops := func(dir string) {
		newActor(t, rand.New(rand.NewPCG(opSeed, 3)), dir).act(40)
	}
	ops(plain)
	want := readTree(t, plain)

	for _, mode := range []policy.WorkspaceMode{policy.ModeOverlay, policy.ModeCopy} {
		v := prepare(t, Config{Project: project, Mode: mode, Hide: hide, UID: uid, GID: uid, Engine: Engine{Local: true, SharesPIDs: true}})
		var saw treeState
		var from Sources
		if mode == policy.ModeOverlay {
			saw = inOverlay(t, v, ops)
		} else {
			saw, from = inCopy(t, v, ops)
		}
		if diff := cmp.Diff(want, saw); diff != "" {
			t.Fatalf("%s: the agent's own view differs from a plain tree (-plain +view):\n%s", mode, diff)
		}
		cs, err := v.Extract(t.Context(), from)
		if err != nil {
			t.Fatalf("%s: Extract: %v", mode, err)
		}
		if err := cs.check(); err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		got := reference(t, v, cs, before)
		if diff := cmp.Diff(withHidden(want, before, hidden), got); diff != "" {
			t.Errorf("%s: project + change set is not what the agent had (-agent +applied):\n%s\n%s", mode, diff, describe(cs))
		}
		if left, _ := filepath.Glob(filepath.Join(v.cfg.StateDir, "[^b]*")); len(left) > 0 {
			t.Errorf("%s: left behind: %q", mode, left)
		}
		for _, c := range cs.Changes {
			if c.HostChanged {
				t.Errorf("%s: %q is marked as changed on the host", mode, c.Path)
			}
		}
	}
	if diff := cmp.Diff(before, readTree(t, project)); diff != "" {
		t.Errorf("the project changed:\n%s", diff)
	}
	if diff := cmp.Diff(stamps, readStamps(t, project)); diff != "" {
		t.Errorf("the project's times or owners changed:\n%s", diff)
	}
}

// inOverlay mounts what Prepare asks an engine to mount, in a mount namespace of one thread that ends with it.
func inOverlay(t *testing.T, v *View, ops func(dir string)) (saw treeState) {
	t.Helper()
	if _, err := v.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	merged := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, and the namespace with it, end here
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			// volatile: else each unmount syncs the whole disk.
			if err := unix.Mount("overlay", merged, "overlay", 0, v.Mounts[0].Options["o"]+",volatile"); err != nil {
				return fmt.Errorf("mount %s: %w", v.Mounts[0].Options["o"], err)
			}
			ops(merged)
			saw = readTree(t, merged)
			return unix.Unmount(merged, 0)
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return saw
}

// inCopy unpacks the view's archive with tar and packs it again, as an engine does.
func inCopy(t *testing.T, v *View, ops func(dir string)) (treeState, Sources) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "workspace")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	unpackWithTar(t, v, dir)
	ops(dir)
	saw := readTree(t, dir)
	return saw, Sources{Tar: packWithTar(t, dir)}
}

// withHidden is what must be on the host in the end: what the agent had, and the hidden files as they were, with the
// directories that hold them. What the agent put at a hidden path stays away.
func withHidden(saw, before treeState, hidden []string) treeState {
	want := treeState{}
	for p, e := range saw {
		if !isHidden(hidden, p) {
			want[p] = e
		}
	}
	for _, h := range hidden {
		for p, e := range before {
			if p == h || strings.HasPrefix(p, h+"/") {
				want[p] = e
			}
		}
		for dir := path.Dir(h); dir != "."; dir = path.Dir(dir) {
			if want[dir].Type != Dir {
				want[dir] = before[dir]
			}
		}
	}
	return want
}

func clone(t *testing.T, from, to string) {
	t.Helper()
	run(t, "cp", "-a", from+"/.", to)
}

func unpackWithTar(t *testing.T, v *View, dir string) {
	t.Helper()
	var b bytes.Buffer
	if err := v.Pack(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "tar", "-xp", "--numeric-owner", "-C", dir)
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar -x: %v\n%s", err, out)
	}
}

func packWithTar(t *testing.T, dir string) io.Reader {
	t.Helper()
	var b, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "tar", "-c", "--format=pax", "-C", filepath.Dir(dir), filepath.Base(dir))
	cmd.Stdout, cmd.Stderr = &b, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("tar -c: %v\n%s", err, &stderr)
	}
	return &b
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// readStamps takes what a change set can't tell and the project must keep all the same.
func readStamps(t *testing.T, dir string) map[string]string {
	t.Helper()
	stamps := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := statOf(info)
		stamps[p] = fmt.Sprint(info.ModTime(), st.ctime, st.owner, st.ino, st.nlink)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return stamps
}

// removeHidden removes from dir what hide takes in, and returns it.
func removeHidden(t testing.TB, dir string, hide Matcher) (hidden []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if !hide.Match(filepath.ToSlash(rel), d.IsDir()) {
			return nil
		}
		hidden = append(hidden, filepath.ToSlash(rel))
		if err := os.RemoveAll(p); err != nil || !d.IsDir() {
			return err
		}
		return fs.SkipDir
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(hidden)
	return hidden
}
