//go:build docker

package runner

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/workspace"
)

// stateOf is everything that can be said of the files below dir but their access times: bytes, modes, owners, inodes,
// link counts, and both times of a change.
func stateOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%x", sha256.Sum256(b))
		case unix.S_IFLNK:
			if content, err = os.Readlink(p); err != nil {
				return err
			}
		}
		all[strings.TrimPrefix(p, dir)] = fmt.Sprintf("%o %d:%d inode %d links %d modified %v changed %v %s",
			st.Mode, st.Uid, st.Gid, st.Ino, st.Nlink, st.Mtim, st.Ctim, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// havoc is what an agent does to a project, with the tools of the image.
const havoc = `set -e
	echo rewritten > README; echo more >> src/a.go; true > src/b.go; rm gone; chmod 700 tool.sh; mv dir moved; ln -sf /etc/passwd link
	touch -d 2001-01-01 src/a.go; mkdir -p new/deep; echo n > new/deep/file; rm -rf new/deep; mkdir new/deep
	git mv src source; git add -A; git commit -q -m havoc; git branch other; git gc -q; git config core.fsmonitor evil; echo evil > .git/hooks/pre-commit`

// TestEscapeHostUntouched: whatever an agent does to the project, every byte, time, mode, owner and link of the host's
// files stays as it was.
func TestEscapeHostUntouched(t *testing.T) {
	l := testLab(t)
	run := func(t *testing.T, mode, script string, owner int) (before, after map[string]string, b *box) {
		prepare := func(t *testing.T, project string) {
			repository(t, project)
			chownAll(t, project, owner)
			before = stateOf(t, project)
		}
		b = l.start(t, setup{policy: "workspace: {mode: " + mode + "}\n", prepare: prepare}, []string{"sh", "-c", script}, nil)
		return before, stateOf(t, b.project), b
	}
	for _, mode := range []string{"overlay", "copy", "readonly"} {
		for name, owner := range map[string]int{"root's": 0, "a user's": 1000} {
			l.entry(t, "workspace", "changing the host's files, "+mode+", "+name, "copy on write, or read-only", func(t *testing.T, _ func(string)) {
				script := havoc
				if mode == "readonly" { // where nothing works, all of it is tried
					script = strings.NewReplacer("set -e", "", ";", "\n").Replace(havoc) + "\ntrue"
				}
				before, after, b := run(t, mode, script, owner)
				if b.err != nil || b.result.ExitCode != 0 {
					t.Errorf("exit %d, %v\n%s", b.result.ExitCode, b.err, b.stderr)
				}
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("the host's files changed:\n%s", diff)
				}
				if n := b.result.Summary.Changes.Total(); (n > 5) == (mode == "readonly") {
					t.Errorf("%d changes: the entry proves nothing", n)
				}
			})
		}
	}
	t.Run("control", func(t *testing.T) {
		before, after, b := run(t, "bind", havoc, 1000)
		if cmp.Equal(before, after) {
			t.Errorf("a bound project stays as it was (%v): the entries prove nothing\n%s", b.err, b.stderr)
		}
	})
}

func chownAll(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Lchown(p, uid, uid)) })
	if err != nil {
		t.Fatal(err)
	}
}

// TestEscapeHardLink: a file of the project that has another name outside keeps it as it was.
func TestEscapeHardLink(t *testing.T) {
	l := testLab(t)
	l.entry(t, "workspace", "writing through a hard link out of the tree", "copy on write; apply replaces files", func(t *testing.T, _ func(string)) {
		for _, mode := range []string{"overlay", "bind"} {
			outside := filepath.Join(l.dir, "outside-"+mode)
			prepare := func(t *testing.T, project string) {
				inside := filepath.Join(project, "linked")
				if err := errors.Join(os.WriteFile(outside, []byte("precious"), 0o644), os.Link(outside, inside)); err != nil {
					t.Fatal(err)
				}
				chownAll(t, project, 1000)
			}
			b := l.try(t, setup{policy: "workspace: {mode: " + mode + "}\n", prepare: prepare}, []step{write("linked", "overwritten")})
			if mode == "overlay" {
				if res, err := apply(t, b, "linked"); err != nil || len(res.Applied) != 1 {
					t.Errorf("apply: %+v, %v", res, err)
				}
			}
			got, err := os.ReadFile(outside)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[string]string{"overlay": "precious", "bind": "overwritten"}[mode]; string(got) != want {
				t.Errorf("%s: the file outside is %q, want %q", mode, got, want)
			}
		}
	})
}

// TestEscapeSwap: a directory that became a symlink out of the project between review and apply is not followed.
func TestEscapeSwap(t *testing.T) {
	l := testLab(t)
	l.entry(t, "workspace", "a directory swapped for a symlink before apply", "apply goes through no symlink", func(t *testing.T, _ func(string)) {
		for _, swapped := range []bool{true, false} {
			outside := t.TempDir()
			if err := os.WriteFile(filepath.Join(outside, "x"), []byte("x\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			b := l.try(t, setup{prepare: repository}, []step{write("dir/x", "changed\n"), {"new", "write", []string{"/workspace/dir/new", "new"}}})
			dir := filepath.Join(b.project, "dir")
			if swapped {
				if err := errors.Join(os.Rename(dir, dir+"-was"), os.Symlink(outside, dir)); err != nil {
					t.Fatal(err)
				}
			}
			before := stateOf(t, outside)
			_, err := apply(t, b, "")
			if swapped != errors.Is(err, workspace.ErrConflict) {
				t.Errorf("swapped %t: %v", swapped, err)
			}
			if diff := cmp.Diff(before, stateOf(t, outside)); diff != "" {
				t.Errorf("written outside:\n%s", diff)
			}
		}
	})
}

// TestEscapeRemade: what the agent saw is what apply leaves, where a path is another directory than it was.
func TestEscapeRemade(t *testing.T) {
	l := testLab(t)
	l.entry(t, "workspace", "old files behind a directory that was removed and made again", "opaque and redirected directories are followed", func(t *testing.T, _ func(string)) {
		for _, mode := range []string{"overlay", "copy"} {
			b := l.try(t, setup{policy: "workspace: {mode: " + mode + "}\n", prepare: repository}, []step{
				{"1", "remove", []string{"/workspace/dir"}},
				{"2", "mkdir", []string{"/workspace/dir"}},
				{"3", "write", []string{"/workspace/dir/again", "again\n"}},
				{"4", "rename", []string{"/workspace/src", "/workspace/source"}},
				{"5", "write", []string{"/workspace/source/a.go", "changed\n"}},
			})
			for name, a := range b.answers {
				if a.Answer != "ok" {
					t.Fatalf("%s, step %s: %+v", mode, name, a)
				}
			}
			if _, err := apply(t, b, ""); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, name := range []string{"dir/x", "dir/sub/y", "dir/again", "src/a.go", "src/b.go", "source/a.go", "source/b.go"} {
				if text, err := os.ReadFile(filepath.Join(b.project, name)); err == nil {
					got[name] = string(text)
				}
			}
			want := map[string]string{"dir/again": "again\n", "source/a.go": "changed\n", "source/b.go": "package b\n"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: after apply (-agent +host):\n%s", mode, diff)
			}
		}
	})
}

// TestEscapeGitRuns: after a run that has filled .git with traps, and its apply, git on the host runs none of them.
func TestEscapeGitRuns(t *testing.T) {
	l := testLab(t)
	l.entry(t, "workspace", "git on the host runs what the agent left", "the agent's .git stays in the sandbox", func(t *testing.T, _ func(string)) {
		for _, allow := range [][]string{nil, {".git/**"}} {
			canary := filepath.Join(t.TempDir(), "canary")
			touch := "touch " + canary
			config := "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfsmonitor = \"" + touch + "; false\"\n\thooksPath = .evil\n\tsshCommand = " + touch + "\n" +
				"\tpager = " + touch + "\n\teditor = " + touch + "\n[filter \"evil\"]\n\tclean = " + touch + "\n\tsmudge = " + touch + "\n\trequired = true\n" +
				"[diff \"evil\"]\n\ttextconv = " + touch + "\n\tcommand = " + touch + "\n[merge \"evil\"]\n\tdriver = " + touch + "\n[include]\n\tpath = ../.evil/config\n" +
				"[alias]\n\tst = !" + touch + "\n[gpg]\n\tprogram = " + touch + "\n[commit]\n\tgpgSign = true\n"
			hook := "#!/bin/sh\n" + touch + "\n"
			steps := []step{
				write(".git/config", config), write(".git/hooks/post-checkout", hook),
				{"", "chmod", []string{"/workspace/.git/hooks/post-checkout", "755"}},
				write(".git/info/attributes", "* filter=evil diff=evil merge=evil\n"), write(".gitattributes", "* filter=evil diff=evil merge=evil\n"), write("README", "changed\n"),
			}
			b := l.try(t, setup{prepare: repository}, steps)
			if _, err := apply(t, b, "", allow...); err != nil {
				t.Fatalf("apply: %v", err)
			}
			status := func(args ...string) { gitQuietly(t, b.project, args...) }
			status("status")
			status("diff")
			status("add", "-A")
			status("commit", "-q", "-m", "second")
			status("checkout", "-q", "-b", "other")
			_, err := os.Stat(canary)
			if ran := err == nil; ran != (allow != nil) {
				t.Errorf("with %q allowed: ran: %t", allow, ran)
			}
		}
	})
}

// gitQuietly does not mind that git fails: with traps in the way it may.
func gitQuietly(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := gitCommand(t, dir, args...)
	_, _ = cmd.CombinedOutput()
}

// TestEscapeHostSockets: programs of the host that listen in the project can't be talked to.
func TestEscapeHostSockets(t *testing.T) {
	l := testLab(t)
	var socket string
	prepare := func(t *testing.T, project string) {
		socket = filepath.Join(project, "host.sock")
		listener, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		fifo := filepath.Join(project, "host.fifo")
		if err := errors.Join(os.Chmod(socket, 0o777), unix.Mkfifo(fifo, 0o666), os.Chmod(fifo, 0o666)); err != nil {
			t.Fatal(err)
		}
		reader, err := os.OpenFile(fifo, os.O_RDWR|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = reader.Close() })
	}
	// Opening a FIFO for writing without waiting fails where nobody reads; a mask is a device that takes everything.
	steps := []step{{"socket", "unix", []string{"/workspace/host.sock"}}, {"fifo", "stat", []string{"/workspace/host.fifo"}}, {"write", "open", []string{"/workspace/host.fifo", "w"}}}
	for _, mode := range []string{"overlay", "readonly", "bind", "copy"} {
		l.entry(t, "workspace", "a socket and a FIFO of the host in the project, "+mode, "inodes of the overlay's own, masks, or left out", func(t *testing.T, _ func(string)) {
			b := l.try(t, setup{policy: "workspace: {mode: " + mode + "}\n", prepare: prepare}, steps)
			if got := b.answers["socket"].Answer; got != "ECONNREFUSED" && got != "ENOENT" && got != "EACCES" {
				t.Errorf("socket: %s", got)
			}
			isFIFO := strings.HasPrefix(b.answers["fifo"].Detail, "mode 10")
			if got := b.answers["write"].Answer; isFIFO && got != "ENXIO" {
				t.Errorf("FIFO: %s %s", got, b.answers["fifo"].Detail)
			}
			if got := l.outside(t, []step{{"control", "unix", []string{socket}}})["control"].Answer; got != "ok" {
				t.Errorf("the control: %s", got)
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		off := setup{policy: "workspace: {mode: readonly}\n", prepare: prepare, mounts: func(project string) []engine.Mount {
			return []engine.Mount{
				{Source: filepath.Join(project, "host.sock"), Target: "/workspace/host.sock", ReadOnly: true},
				{Source: filepath.Join(project, "host.fifo"), Target: "/workspace/host.fifo", ReadOnly: true},
			}
		}}
		b := l.try(t, off, steps)
		if b.answers["socket"].Answer != "ok" || b.answers["write"].Answer != "ok" {
			t.Errorf("without the masks: %+v (%v): the entries prove nothing", b.answers, b.err)
		}
	})
}
