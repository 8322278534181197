//go:build docker

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// small is a state directory on a file system of so many bytes.
func (u *user) small(size string) {
	u.t.Helper()
	dir := u.t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+size); err != nil {
		u.t.Skipf("can't mount a small disk: %v", err)
	}
	u.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			u.t.Error(err)
		}
	})
	u.env = append(u.env, "XDG_STATE_HOME="+dir)
	u.state = dir
	u.openRuns()
}

// TestRunDiskFull: the disk with the runs' records is full.
func TestRunDiskFull(t *testing.T) {
	t.Parallel()
	wantSaid := func(t *testing.T, u *user, stderr string) {
		t.Helper()
		for _, must := range []string{"no space left on device", u.state, "free some space"} {
			if !strings.Contains(stderr, must) {
				t.Errorf("stderr has no %q: %s", must, stderr)
			}
		}
	}
	t.Run("before", func(t *testing.T) {
		u := newUser(t)
		u.small("64K")
		if err := os.WriteFile(u.state+"/fill", make([]byte, 60<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		r := u.run("--", "true")
		u.wantCode(r, exitFailure)
		wantSaid(t, u, r.stderr)
	})
	t.Run("by the agent's files", func(t *testing.T) {
		u := newUser(t)
		u.small("2M")
		r := u.sh("head -c 8M /dev/zero >fill; echo status $?; rm fill && echo gone")
		u.wantCode(r, 0)
		if r.stdout != "status 1\ngone\n" || !strings.Contains(r.stderr, "No space left on device") {
			t.Errorf("inside: %q %s", r.stdout, r.stderr)
		}
		u.wantOutcome(event.Success, 0)
	})
	t.Run("by the agent's files, which stay", func(t *testing.T) {
		u := newUser(t)
		u.small("2M")
		r := u.sh("echo mine >small; head -c 8M /dev/zero >fill; exit 0")
		u.wantCode(r, exitFailure)
		wantSaid(t, u, r.stderr)
		u.wantNothingLeft(string(u.last().ID))
		if err := unix.Mount("", u.state, "", unix.MS_REMOUNT, "size=32M"); err != nil {
			t.Fatal(err)
		}
		u.wantCode(u.finish(u.command("doctor", "--clean")), 0)
		u.wantCode(u.finish(u.command("apply", "last", "small")), 0)
		if b, err := os.ReadFile(filepath.Join(u.project, "small")); string(b) != "mine\n" {
			t.Errorf("applied: %q, %v", b, err)
		}
	})
	t.Run("by the output", func(t *testing.T) {
		u := newUser(t)
		u.small("1M")
		r := u.sh("head -c 8M /dev/zero; exec sleep 1000") // what can't be recorded is stopped
		u.wantCode(r, exitFailure)
		wantSaid(t, u, r.stderr)
		u.wantNothingLeft(string(u.last().ID))
	})
}

// TestRunNotRoot is a runner without privileges, in the group that may use the engine. It can't read what overlayfs
// notes about directories, so a container of ours does.
func TestRunNotRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("becoming another user takes root")
	}
	u := newUser(t)
	socket := engine.SocketPath(u.engine.Host())
	info, err := os.Stat(socket)
	if err != nil {
		t.Skipf("the engine has no socket here: %v", err)
	}
	if info.Mode().Perm()&0o060 != 0o060 {
		t.Skipf("%s is for its owner alone: %s", socket, info.Mode())
	}
	const uid = 34567
	as := &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{info.Sys().(*syscall.Stat_t).Gid}}
	u.become(as)
	u.asUser(as, "sh", "-c", `git init -q -b main . && mkdir -p a/b && echo one >a/b/file && echo two >a/two && git add . &&
		git -c user.name=U -c user.email=u@example.org commit -qm first`)

	cmd := u.command("run", "--", "sh", "-c", "id -u; git mv a moved && echo three >>moved/two && git commit -qam second && git status --short && ls -R moved; umask 077; mkdir closed; echo mine >closed/own")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	r := u.finish(cmd)
	u.wantCode(r, 0)
	if want := "34567\nmoved:\nb\ntwo\n\nmoved/b:\nfile\n"; r.stdout != want {
		t.Errorf("inside: %q, want %q", r.stdout, want)
	}
	u.wantOutcome(event.Success, 0)
	diff := u.command("diff", "last")
	diff.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	r = u.finish(diff)
	u.wantCode(r, 0)
	for _, must := range []string{"rename from a/b/file", "rename to moved/b/file", "+three", "b/closed/own"} {
		if !strings.Contains(r.stdout, must) {
			t.Errorf("the diff has no %q:\n%s", must, r.stdout)
		}
	}
}

// become gives the user's files to somebody, with a program and a cache that are theirs to use.
func (u *user) become(as *syscall.Credential) {
	u.t.Helper()
	home := filepath.Dir(u.project)
	program := filepath.Join(home, "agent-sandbox")
	b, err := os.ReadFile(u.program)
	if err := errors.Join(err, os.WriteFile(program, b, 0o755), os.Chmod(filepath.Dir(home), 0o755)); err != nil {
		u.t.Fatal(err)
	}
	u.program = program
	u.env = append(u.env, "XDG_CACHE_HOME="+filepath.Join(home, "cache"))
	err = filepath.WalkDir(home, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(as.Uid), int(as.Gid)))
	})
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) asUser(as *syscall.Credential, name string, args ...string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = u.project, u.env, &syscall.SysProcAttr{Credential: as}
	if out, err := cmd.CombinedOutput(); err != nil {
		u.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
