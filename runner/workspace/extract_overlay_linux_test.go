package workspace

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/workspace/ovl"
)

// fakeXattrs stands for the attributes that only root could have set.
type fakeXattrs map[string]ovl.Attrs

func (f fakeXattrs) Xattrs(context.Context, string) (map[string]ovl.Attrs, error) { return f, nil }

// overlayOf prepares an overlay view of a listing, hides, and puts a listing into upper/ as the kernel would:
// "path!" is a whiteout.
func overlayOf(t *testing.T, cfg Config, project, upper []string) *View {
	t.Helper()
	cfg.Project, cfg.Mode, cfg.Engine = t.TempDir(), policy.ModeOverlay, Engine{Local: true, SharesPIDs: true}
	cfg.UID, cfg.GID = os.Geteuid(), os.Getegid()
	populate(t, cfg.Project, project...)
	v := prepare(t, cfg)
	if _, err := v.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, line := range upper {
		name, isWhiteout := strings.CutSuffix(line, "!")
		if !isWhiteout {
			populate(t, v.upper(), line)
			continue
		}
		populate(t, v.upper(), filepath.Dir(name)+"/")
		if err := unix.Mknod(filepath.Join(v.upper(), name), unix.S_IFCHR, 0); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// overlayTest is a project, what is in upper/, and the change set that it makes as describe has it.
type overlayTest struct {
	name           string
	project, upper []string
	attrs          fakeXattrs
	hide           []string
	want           string
}

func checkOverlays(t *testing.T, tests []overlayTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := overlayOf(t, Config{Hide: matcherOf(t, tt.hide...)}, tt.project, tt.upper)
			cs, err := v.Extract(t.Context(), Sources{Xattrs: tt.attrs})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, describe(cs)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := cs.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestExtractOverlay(t *testing.T) {
	opaque := ovl.Attrs{Opaque: true}
	checkOverlays(t, []overlayTest{
		{name: "nothing", project: []string{"a=1"}, want: ""},
		{name: "added, modified", project: []string{"a=1"}, upper: []string{"a=2", "b=2"}, want: "modified a\nadded b"},
		{name: "copied up and left as it was", project: []string{"d/a=1"}, upper: []string{"d/a=1"}, want: ""},
		{name: "deleted", project: []string{"a=1", "d/b=1", "d/c=2"}, upper: []string{"a!", "d/b!"}, want: "deleted a\ndeleted d/b"},
		{name: "directory deleted", project: []string{"d/e/b=1"}, upper: []string{"d!"}, want: "deleted d\ndeleted d/e\ndeleted d/e/b"},
		{
			name: "directory made again", project: []string{"d/a=1", "d/b=2"}, upper: []string{"d/b=3"}, attrs: fakeXattrs{"d": opaque},
			want: "deleted d/a\nmodified d/b",
		},
		{name: "file becomes directory", project: []string{"a=1"}, upper: []string{"a/b=1"}, attrs: fakeXattrs{"a": opaque}, want: "modified a\nadded a/b"},
		{name: "directory becomes file", project: []string{"a/b=1"}, upper: []string{"a=2"}, want: "modified a\ndeleted a/b"},
		{name: "file becomes symlink", project: []string{"a=1"}, upper: []string{"a@/etc/passwd"}, want: "modified a"},
		{
			name: "a symlink to a directory becomes one", project: []string{"d/x=1", "a@d"}, upper: []string{"a/x=1"}, attrs: fakeXattrs{"a": opaque},
			want: "modified a\nadded a/x",
		},
		{name: "whiteout in an attribute", project: []string{"d/a=1"}, upper: []string{"d/a="}, attrs: fakeXattrs{"d": {Whiteouts: []string{"a"}}}, want: "deleted d/a"},
		{name: "an empty file is no whiteout", project: []string{"d/a=1"}, upper: []string{"d/a="}, want: "modified d/a"},
		{name: "in .git", project: []string{".git/HEAD=1"}, upper: []string{".git/HEAD=2"}, want: "modified .git/HEAD"},
		{name: "hidden stays", project: []string{".env=s", "d/.env=s", "d/a=1"}, hide: []string{".env"}, want: ""},
		{
			name: "directory with a hidden file deleted", project: []string{"d/.env=s", "d/a=1"}, hide: []string{".env"}, attrs: fakeXattrs{"d": opaque},
			want: "deleted d/a",
		},
		{
			name: "hidden path written", project: []string{"d/a=1", ".ssh/id=s"}, hide: []string{".ssh/"}, upper: []string{"new=1"},
			want: "added new",
		},
	})
}

// What becomes of directories that were made again or renamed, if nobody reads what the kernel notes of them: the host's old files stay, or are lost.
func TestExtractOverlayWithoutAttributes(t *testing.T) {
	again, renamed := []string{"d/b=3"}, []string{"d!", "e/"}
	checkOverlays(t, []overlayTest{
		{name: "made again", project: []string{"d/a=1", "d/b=2"}, upper: again, attrs: fakeXattrs{"d": {Opaque: true}}, want: "deleted d/a\nmodified d/b"},
		{name: "made again, unread", project: []string{"d/a=1", "d/b=2"}, upper: again, want: "modified d/b"},
		{name: "renamed", project: []string{"d/a=1"}, upper: renamed, attrs: fakeXattrs{"e": {Redirect: "d"}}, want: "deleted d\nadded e\nrenamed d/a -> e/a"},
		{name: "renamed, unread", project: []string{"d/a=1"}, upper: renamed, want: "deleted d\ndeleted d/a\nadded e"},
	})
}

func TestExtractOverlayRenames(t *testing.T) {
	opaque := ovl.Attrs{Opaque: true}
	checkOverlays(t, []overlayTest{
		{name: "file moved", project: []string{"a=1"}, upper: []string{"a!", "b=1"}, want: "renamed a -> b"},
		{name: "moved and put back empty", project: []string{"a="}, upper: []string{"a!", "b="}, want: "deleted a\nadded b"},
		{
			name: "directory renamed", project: []string{"d/a=1", "d/s/b=", "d/l@a"}, upper: []string{"d!", "e/"}, attrs: fakeXattrs{"e": {Redirect: "d"}},
			want: "deleted d\ndeleted d/s\nadded e\nrenamed d/a -> e/a\nrenamed d/l -> e/l\nadded e/s\nrenamed d/s/b -> e/s/b",
		},
		{
			name: "directory renamed, with edits", project: []string{"d/a=1", "d/b=2"}, upper: []string{"d!", "e/a=9", "e/b!", "e/c=8"}, attrs: fakeXattrs{"e": {Redirect: "/d"}},
			want: "deleted d\ndeleted d/a\ndeleted d/b\nadded e\nadded e/a\nadded e/c",
		},
		{
			name: "renamed inside a renamed one", project: []string{"d/s/a=1"}, upper: []string{"d!", "e/s!", "e/t/"}, attrs: fakeXattrs{"e": {Redirect: "d"}, "e/t": {Redirect: "s"}},
			want: "deleted d\ndeleted d/s\nadded e\nadded e/t\nrenamed d/s/a -> e/t/a",
		},
		{
			name: "moved below a new one", project: []string{"d/a=1"}, upper: []string{"d!", "new/e/"}, attrs: fakeXattrs{"new": opaque, "new/e": {Redirect: "/d"}},
			want: "deleted d\nadded new\nadded new/e\nrenamed d/a -> new/e/a",
		},
		{
			name: "renamed over an empty one", project: []string{"d/a=1", "e/"}, upper: []string{"d!", "e/"}, attrs: fakeXattrs{"e": {Redirect: "d"}},
			want: "deleted d\nrenamed d/a -> e/a",
		},
		{
			name: "renamed, and its place taken", project: []string{"d/a=1"}, upper: []string{"d/a=1", "e/"}, attrs: fakeXattrs{"d": opaque, "e": {Redirect: "d"}},
			want: "added e\nadded e/a",
		},
		{
			name: "two that changed places", project: []string{"d/a=1", "e/b=2"}, upper: []string{"d/", "e/"}, attrs: fakeXattrs{"d": {Redirect: "e"}, "e": {Redirect: "d"}},
			want: "renamed e/b -> d/b\nrenamed d/a -> e/a",
		},
		{name: "out of .git is no rename", project: []string{".git/x=1"}, upper: []string{".git/x!", "x=1"}, want: "deleted .git/x\nadded x"},
	})
}

func TestExtractGatesHiddenPaths(t *testing.T) {
	v := overlayOf(t, Config{Hide: matcherOf(t, ".env", ".ssh/")}, []string{".env=secret", ".ssh/id=secret", "d/.env=secret"}, nil)
	for _, p := range []string{".env", ".ssh", "d"} { // as the agent would: what it can't see it can make
		if err := os.RemoveAll(filepath.Join(v.upper(), p)); err != nil {
			t.Fatal(err)
		}
	}
	populate(t, v.upper(), ".env=mine", ".ssh/id=mine", "d=mine")
	cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{".ssh": {Opaque: true}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(cs.Changes) != 4 {
		t.Fatalf("got\n%s", describe(cs))
	}
	for _, c := range cs.Changes {
		if c.Tier != Reject || !strings.HasPrefix(c.Reason, "hidden from the agent: would overwrite") {
			t.Errorf("%q: tier %q, reason %q", c.Path, c.Tier, c.Reason)
		}
		if c.Old != nil && c.Old.SHA256 != "" {
			t.Errorf("%q: the digest of a hidden file is in the change set", c.Path)
		}
	}
}

func TestExtractNoticesHostChanges(t *testing.T) {
	v := overlayOf(t, Config{}, []string{"a=1", "b=1", "c=1", "d/x=1"}, []string{"a=2", "b!", "new=2"})
	project := v.cfg.Project
	populate(t, project, "a=host", "new=host")
	if err := os.Chmod(filepath.Join(project, "b"), 0o600); err != nil {
		t.Fatal(err)
	}
	cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
	if err != nil {
		t.Fatal(err)
	}
	want := "modified a (host changed)\ndeleted b (host changed)\nmodified new (host changed)"
	if got := describe(cs); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever the host's user puts in the place of a directory meanwhile, Extract looks at nothing outside of the project.
func TestExtractDoesNotFollowTheHostsSymlinks(t *testing.T) {
	v := overlayOf(t, Config{}, []string{"d/a=1"}, []string{"d/a=2", "d/passwd!"})
	if err := os.Rename(filepath.Join(v.cfg.Project, "d"), filepath.Join(v.cfg.Project, "old")); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	populate(t, outside, "a=outside", "passwd=outside")
	if err := os.Symlink(outside, filepath.Join(v.cfg.Project, "d")); err != nil {
		t.Fatal(err)
	}
	cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(cs), "modified d (host changed)\nadded d/a"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestExtractRefusesForgedAttributes(t *testing.T) {
	for _, redirect := range []string{"/../../etc", "../etc", "/a//b", "a/b", "/", "/a\x00b", "/" + strings.Repeat("a/", 3000) + "a"} {
		v := overlayOf(t, Config{}, []string{"a/b=1"}, []string{"e/"})
		cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{"e": {Redirect: redirect}}})
		if err == nil {
			t.Errorf("redirect %.30q: got\n%s\nwant an error", redirect, describe(cs))
		}
	}
}

func TestExtractLimits(t *testing.T) {
	deep := strings.Repeat("d/", 20) + "f=1"
	for _, tt := range []struct {
		name   string
		limits Limits
		upper  []string
		what   string
	}{
		{"changes", Limits{Changes: 3}, []string{"a=1", "b=1", "c=1", "d=1"}, "changes"},
		{"bytes", Limits{Bytes: 10}, []string{"a=12345", "b=12345", "c=1"}, "bytes of new contents"},
		{"depth", Limits{Depth: 10}, []string{"a=1", deep}, "directories above each other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := overlayOf(t, Config{Limits: tt.limits}, nil, tt.upper)
			cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
			var over *LimitError
			if !errors.As(err, &over) || over.What != tt.what {
				t.Fatalf("got error %v, want one of the limit of %s", err, tt.what)
			}
			if cs == nil || len(cs.Changes) == 0 || cs.check() != nil {
				t.Errorf("the part within the limits: %v", cs)
			}
		})
	}
}

// A file of a petabyte that takes no room on the disk must not be read.
func TestExtractDoesNotReadSparseGiants(t *testing.T) {
	v := overlayOf(t, Config{}, nil, []string{"giant="})
	if err := os.Truncate(filepath.Join(v.upper(), "giant"), 1<<43); err != nil {
		t.Skip(err) // not every filesystem has files so large
	}
	_, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
	var over *LimitError
	if !errors.As(err, &over) {
		t.Errorf("got %v, want a *LimitError", err)
	}
}

func TestExtractReadsWhatTheAgentClosed(t *testing.T) {
	v := overlayOf(t, Config{}, nil, []string{"d/e/f=1", "d/g=2"})
	for _, p := range []string{"d/e/f", "d/e", "d"} {
		if err := os.Chmod(filepath.Join(v.upper(), p), 0); err != nil {
			t.Fatal(err)
		}
	}
	cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(cs), "added d\nadded d/e\nadded d/e/f\nadded d/g"; got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	for _, p := range []string{"d", "d/e", "d/e/f"} {
		if got := cs.Find(p).New.Mode; got != 0 {
			t.Errorf("%s: mode %v, want what the agent gave it, 0", p, got)
		}
	}
	if got := readBlob(t, cs.Blobs(v.cfg.StateDir), cs.Find("d/e/f").New.SHA256); got != "1" {
		t.Errorf("blob: %q", got)
	}
	if err := Discard(v.cfg.StateDir); err != nil {
		t.Error(err)
	}
}

func TestExtractRecordsOthersAndSpecialBits(t *testing.T) {
	v := overlayOf(t, Config{}, []string{"a=1"}, []string{"a=1", "setuid=1"})
	if err := unix.Mkfifo(filepath.Join(v.upper(), "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for p, mode := range map[string]os.FileMode{"setuid": 0o755 | os.ModeSetuid, "a": 0o700} {
		if err := os.Chmod(filepath.Join(v.upper(), p), mode); err != nil {
			t.Fatal(err)
		}
	}
	cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(cs), "mode a\nadded fifo\nadded setuid"; got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	if got := cs.Find("fifo").New.Type; got != Other {
		t.Errorf("fifo: type %q", got)
	}
	if got, want := cs.Find("setuid").New.Mode, os.ModeSetuid|0o755; got != want {
		t.Errorf("setuid: mode %v, want %v", got, want)
	}
}

func TestExtractOnce(t *testing.T) {
	v := overlayOf(t, Config{}, nil, []string{"a=1"})
	if _, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}}); err != nil {
		t.Fatal(err)
	}
	if cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}}); err == nil {
		t.Errorf("the second time: %v; the contents are gone, so it must be an error", cs)
	}
}
