package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

func boundConfig(t *testing.T, mode policy.WorkspaceMode, project ...string) Config {
	t.Helper()
	dir := t.TempDir()
	populate(t, dir, project...)
	return Config{
		Project: dir, Mode: mode, UID: os.Geteuid(), GID: os.Getegid(), Engine: Engine{Local: true},
		Hide: matcherOf(t, ".env", ".ssh/"), Protect: matcherOf(t, ".git/hooks", ".git/config", ".github/workflows", "CLAUDE.md"),
	}
}

// mountLines writes mounts as "type path [ro]".
func mountLines(mounts []Mount) []string {
	var lines []string
	for _, m := range mounts {
		line := string(m.Type) + " /" + m.Path
		if m.Source == os.DevNull {
			line += " empty"
		}
		if m.ReadOnly {
			line += " ro"
		}
		lines = append(lines, line)
	}
	return lines
}

func TestBindMounts(t *testing.T) {
	files := []string{".env=s", "a/.env=s", ".ssh/id=s", ".git/config=1", ".git/hooks/pre-commit=1", ".git/HEAD=1", ".github/workflows/ci.yml=1", "AGENTS.md=1", "CLAUDE.md@AGENTS.md"}
	v := prepare(t, boundConfig(t, policy.ModeBind, files...))
	want := []string{
		"bind /",
		"bind /.env empty ro",
		"bind /.git",
		"bind /.git/config ro",
		"bind /.git/hooks ro",
		"bind /.github",
		"bind /.github/workflows ro",
		"tmpfs /.ssh ro",
		"bind /a",
		"bind /a/.env empty ro",
	}
	if diff := cmp.Diff(want, mountLines(v.Mounts)); diff != "" {
		t.Errorf("bind (-want +got):\n%s", diff)
	}
	if len(v.Lowered) != 3 || !strings.Contains(v.Lowered[0], "CLAUDE.md") {
		t.Errorf("Lowered = %q, want the symlink, that new paths are not protected, and new sockets", v.Lowered)
	}
	for _, m := range v.Mounts {
		if m.Type == MountBind && !m.NonRecursive && m.Source != os.DevNull {
			t.Errorf("%+v shows what is mounted in the project", m)
		}
	}

	v = prepare(t, boundConfig(t, policy.ModeReadonly, files...))
	want = []string{"bind / ro", "bind /.env empty ro", "tmpfs /.ssh ro", "bind /a/.env empty ro"}
	if diff := cmp.Diff(want, mountLines(v.Mounts)); diff != "" {
		t.Errorf("readonly (-want +got):\n%s", diff)
	}
}

func TestBindRefusesAHiddenLinkToSomethingVisible(t *testing.T) {
	var no *UnsupportedError
	_, err := Prepare(t.Context(), withTestDefaults(t, boundConfig(t, policy.ModeReadonly, "env=secret", ".env@env")))
	if !errors.As(err, &no) {
		t.Errorf("got %v, want an *UnsupportedError", err)
	}
	for _, files := range [][]string{{".env@/etc/passwd"}, {".env@gone"}, {".env@.ssh/env", ".ssh/env=s"}} {
		if _, err := Prepare(t.Context(), withTestDefaults(t, boundConfig(t, policy.ModeReadonly, files...))); err != nil {
			t.Errorf("%q: %v", files, err)
		}
	}
}

func TestBindRefusesTooManyMounts(t *testing.T) {
	var files []string
	for i := range maxMounts {
		files = append(files, strings.Repeat("x", i%200+1)+strings.Repeat("y", i/200)+"/.env=s")
	}
	_, err := Prepare(t.Context(), withTestDefaults(t, boundConfig(t, policy.ModeBind, files...)))
	var no *UnsupportedError
	if !errors.As(err, &no) {
		t.Errorf("got %v, want an *UnsupportedError: hiding only some would be worse", err)
	}
}

func TestExtractBind(t *testing.T) {
	v := prepare(t, boundConfig(t, policy.ModeBind, "a=1", "same=1", "d/b=2", "gone/c=3", "moved=4", "l@a", ".env=s", ".git/objects/aa/bb=blob"))
	if _, err := v.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := v.cfg.Project
	populate(t, p, "a=22", "new/n=5", "same=1")
	for _, err := range []error{
		os.RemoveAll(filepath.Join(p, "gone")),
		os.Rename(filepath.Join(p, "moved"), filepath.Join(p, "d", "moved")),
		os.Chmod(filepath.Join(p, "d", "b"), 0o755),
		os.Remove(filepath.Join(p, "l")),
		os.Symlink("d", filepath.Join(p, "l")),
		os.Remove(filepath.Join(p, ".git/objects/aa/bb")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	populate(t, p, ".env=written by the host's user", ".git/objects/cc/dd=blob")
	cs, err := v.Extract(t.Context(), Sources{})
	if err != nil {
		t.Fatal(err)
	}
	want := `deleted .git/objects/aa/bb
added .git/objects/cc
added .git/objects/cc/dd
modified a
mode d/b
renamed moved -> d/moved
deleted gone
deleted gone/c
modified l
added new
added new/n`
	if diff := cmp.Diff(want, describe(cs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := cs.check(); err != nil {
		t.Error(err)
	}
	for _, c := range cs.Changes {
		if c.needsBlob() && !OpenBlobs(v.cfg.StateDir).Has(c.New.SHA256) {
			t.Errorf("%q: no blob", c.Path)
		}
	}
}

// A file that is written with the same length and its old modification time has another change time all the same.
func TestExtractBindSeesBackdatedWrites(t *testing.T) {
	v := prepare(t, boundConfig(t, policy.ModeBind, "a=1"))
	if _, err := v.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := filepath.Join(v.cfg.Project, "a")
	info, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	populate(t, v.cfg.Project, "a=2")
	if err := os.Chtimes(a, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	cs, err := v.Extract(t.Context(), Sources{})
	if err != nil || describe(cs) != "modified a" {
		t.Errorf("got %q, %v", describe(cs), err)
	}
}

func TestExtractBindNeedsHide(t *testing.T) {
	v := prepare(t, boundConfig(t, policy.ModeBind, "a=1"))
	if cs, err := v.Extract(t.Context(), Sources{}); err == nil {
		t.Errorf("without an index: got\n%s", describe(cs))
	}
}
