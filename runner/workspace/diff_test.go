package workspace

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/org/agent-sandbox/policy"
)

// diffCase makes a run with its patch.
func diffCase(t *testing.T, before, after treeState, maxBytes int64) (*ChangeSet, string) {
	t.Helper()
	run := t.TempDir()
	cs := changesBetween(t, run, before, after)
	if err := (Gate{Protected: policy.Workspace{}.Protector().Tier, Project: t.TempDir()}).Classify(cs); err != nil {
		t.Fatal(err)
	}
	if err := SavePatch(t.Context(), run, cs, PatchConfig{Old: oldFrom(before), Blobs: OpenBlobs(run), MaxBytes: maxBytes}); err != nil {
		t.Fatal(err)
	}
	return cs, run
}

func diffText(t *testing.T, cs *ChangeSet, opts DiffOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := Diff(&b, cs, opts); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func diffTrees() (before, after treeState) {
	before = treeState{"a": fileEntry("1\n2\n3\n", 0o644), "old": fileEntry("same\n", 0o644), "bin": fileEntry("\x00", 0o644), "m": fileEntry("m", 0o644)}
	after = treeState{
		"a": fileEntry("1\ntwo\n3\n", 0o644), "new": fileEntry("same\n", 0o644), "bin": fileEntry("\x00\x01\x02", 0o644), "m": fileEntry("m", 0o600), "e": dirEntry(0o755),
		".git": dirEntry(0o755), ".git/index": fileEntry("x", 0o644), ".git/hooks": dirEntry(0o755), ".git/hooks/pre-commit": fileEntry("x", 0o755), ".envrc": fileEntry("evil\n", 0o644),
	}
	return before, after
}

// Not for a terminal, the output is the patch, or whole blocks of it.
func TestDiffIsThePatch(t *testing.T) {
	before, after := diffTrees()
	cs, run := diffCase(t, before, after, 0)
	want, err := os.ReadFile(filepath.Join(run, PatchFile))
	if err != nil {
		t.Fatal(err)
	}
	if got := diffText(t, cs, DiffOptions{RunDir: run}); got != string(want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	got := diffText(t, cs, DiffOptions{RunDir: run, Paths: []string{"a", "new"}})
	if n := strings.Count(got, "diff --git"); n != 2 || !strings.HasPrefix(got, "diff --git a/a b/a\n") || !strings.HasSuffix(got, "rename to new\n") {
		t.Errorf("limited to two paths: %s", got)
	}
}

func TestDiffForPeople(t *testing.T) {
	before, after := diffTrees()
	cs, run := diffCase(t, before, after, 0)
	got := diffText(t, cs, DiffOptions{RunDir: run, Terminal: true})
	want := `diff --git a/.envrc b/.envrc
# reject: REASON
new file mode 100644
index 0000000000000000000000000000000000000000..c7a1376bb4eb01afbbbef17fd7a8a1de9dc5b55c
--- /dev/null
+++ b/.envrc
@@ -0,0 +1 @@
+evil
diff --git a/a b/a
index 01e79c32a8c99c557f0757da7cb6d65b3414466d..3e8cb5f6f7c8d6c24b5e0b0f2d9d1d8ddb0ae1ea 100644
--- a/a
+++ b/a
@@ -1,3 +1,3 @@
 1
-2
+two
 3
diff --git a/bin b/bin
index f76dd238ade08917e6712764a16a22005a50573d..ab3ac1ee2f5d8e7bce0c92dd9bda5bcbd8e2a0b5 100644
Binary files differ: 1 -> 3 bytes
diff --git a/old b/new
similarity index 100%
rename from old
rename to new
# in .git, added, reject: .git: REASON
# in .git, added, reject: .git/hooks: REASON
# in .git, added, reject: .git/hooks/pre-commit: REASON
# directory added: e
# file mode 0644 -> 0600: m
# and 1 changes in .git, which are never applied
`
	for _, c := range cs.Changes { // the reasons are policy's, the ids git's: other tests have them
		if c.Reason != "" {
			got = strings.ReplaceAll(got, c.Reason, "REASON")
		}
	}
	if d := cmp.Diff(withoutIDs(got), withoutIDs(want)); d != "" {
		t.Errorf("(-got +want)\n%s", d)
	}
}

func withoutIDs(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		if strings.HasPrefix(lines[i], "index ") {
			lines[i] = "index"
		}
	}
	return strings.Join(lines, "\n")
}

// Nothing that the agent names or writes reaches the terminal as a control sequence, or reorders text there.
func TestDiffIsSafeForTerminals(t *testing.T) {
	evil := "x\x1b]0;title\x07\x1b[2J\r\u202e\u2066\u200b\u0085\xff\x9b31m\x7f"
	after := treeState{
		evil: fileEntry(evil+"\n", 0o644), "link" + evil: linkEntry(evil), "dir" + evil: dirEntry(0o755), ".git": dirEntry(0o755), ".git/config": fileEntry("x", 0o644),
		".git/" + evil: fileEntry("x", 0o644), "big" + evil: fileEntry(strings.Repeat("x\n", 2000), 0o644),
	}
	before := treeState{"tab": fileEntry("a\n", 0o644)}
	after["tab"] = fileEntry("a\tb\n", 0o644)
	cs, run := diffCase(t, before, after, 3000)
	for _, opts := range []DiffOptions{{Terminal: true}, {Color: true}, {Stat: true, Color: true}, {Stat: true}} {
		opts.RunDir = run
		got := diffText(t, cs, opts)
		for _, color := range []string{"\x1b[m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"} {
			got = strings.ReplaceAll(got, color, "")
		}
		for _, r := range got {
			if unprintable(r) && r != '\n' && r != '\t' {
				t.Errorf("%+v: %q gets through:\n%q", opts, r, got)
				break
			}
		}
		if !opts.Stat && (!strings.Contains(got, "^[]0;title^G^[[2J^M<U+202E><U+2066><U+200B><U+0085><FF><9B>31m^?") || !strings.Contains(got, "+a\tb\n")) {
			t.Errorf("%+v: not shown:\n%s", opts, got)
		}
	}
}

func TestDiffColors(t *testing.T) {
	cs, run := diffCase(t, treeState{"a": fileEntry("1\n", 0o644)}, treeState{"a": fileEntry("2\n", 0o644)}, 0)
	got := diffText(t, cs, DiffOptions{RunDir: run, Color: true})
	for _, want := range []string{"\x1b[1mdiff --git a/a b/a\x1b[m\n", "\x1b[1m+++ b/a\x1b[m\n", "\x1b[36m@@ -1 +1 @@\x1b[m\n", "\x1b[31m-1\x1b[m\n", "\x1b[32m+2\x1b[m\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%q", want, got)
		}
	}
}

// Lines of a file that look like a patch's own stay content.
func TestDiffIsNotFooledByContent(t *testing.T) {
	text := "diff --git a/x b/x\n-- a\n++ b\n@@ -1 +1 @@\nGIT binary patch\n# agent-sandbox: left out a: b\n"
	cs, run := diffCase(t, treeState{"f": fileEntry("a\n", 0o644)}, treeState{"f": fileEntry("a\n"+text, 0o644), "g": fileEntry("-- \n++ \n", 0o644)}, 0)
	stats, err := stat(run, cs, []bool{true, true})
	if err != nil || len(stats) != 2 || stats[0].Added != 6 || stats[0].Deleted != 0 || stats[1].Added != 2 || stats[0].Binary {
		t.Errorf("stat %+v, %v", stats, err)
	}
}

func TestDiffStat(t *testing.T) {
	before, after := diffTrees()
	after["long/"+strings.Repeat("n", 90)] = fileEntry(strings.Repeat("l\n", 300), 0o644)
	after["long"] = dirEntry(0o755)
	cs, run := diffCase(t, before, after, 0)
	got := diffText(t, cs, DiffOptions{RunDir: run, Stat: true, Width: 60})
	want := ` .envrc                                    |   1 +
 a                                         |   2 +-
 bin                                       | Bin 1 -> 3 bytes
 ...nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn | 300 ++++++++++
 old => new                                |   0
 5 files changed, 302 insertions(+), 1 deletion(-)
`
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("(-got +want)\n%s", d)
	}
	for line := range strings.Lines(got) {
		if len(line) > 61 && !strings.Contains(line, "Bin") {
			t.Errorf("%d columns: %q", len(line)-1, line)
		}
	}
}

func TestDiffSaysWhatIsMissing(t *testing.T) {
	cs, run := diffCase(t, treeState{}, treeState{"a": fileEntry(strings.Repeat("x\n", 1000), 0o644), "b": fileEntry(strings.Repeat("y\n", 900), 0o644)}, 500)
	for _, opts := range []DiffOptions{{Terminal: true}, {}, {Stat: true}} {
		opts.RunDir = run
		if got := diffText(t, cs, opts); strings.Count(got, "longer than 500 bytes") != 2 {
			t.Errorf("%+v: %s", opts, got)
		}
	}
	if err := Diff(&bytes.Buffer{}, cs, DiffOptions{RunDir: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a patch: %v", err)
	}
}
