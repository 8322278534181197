package workspace

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// oldFrom serves old contents from a state.
func oldFrom(s treeState) func(string) (io.ReadCloser, error) {
	return func(p string) (io.ReadCloser, error) {
		e, ok := s[p]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return io.NopCloser(strings.NewReader(e.Content)), nil
	}
}

// asGitSees drops what git doesn't track: directories, and of modes all but the executable bit.
func asGitSees(s treeState) map[string]string {
	out := map[string]string{}
	for p, e := range s {
		if n := gitNode(&e.Node); n != nil {
			out[p] = gitMode(n) + " " + e.Content + e.Target
		}
	}
	return out
}

// copyFiles leaves out empty directories, which git does not know and stumbles over.
func copyFiles(t testing.TB, s treeState, dir string) {
	t.Helper()
	kept := treeState{}
	for p, e := range s {
		if e.Type == Dir {
			continue
		}
		kept[p] = e
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			kept[d] = s[d]
		}
	}
	copyTree(t, kept, dir)
}

func copyTree(t testing.TB, s treeState, dir string) {
	t.Helper()
	for _, p := range s.paths() {
		e, at := s[p], filepath.Join(dir, filepath.FromSlash(p))
		var err error
		switch e.Type {
		case Dir:
			err = os.Mkdir(at, 0o755)
		case Symlink:
			err = os.Symlink(e.Target, at)
		case File:
			err = os.WriteFile(at, []byte(e.Content), 0o600)
		}
		if err == nil && e.Type != Symlink {
			err = os.Chmod(at, e.Mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// git itself is the judge: its apply of our patch to the old tree gives the new tree.
func TestPatchAppliesWithGit(t *testing.T) {
	for seed := range uint64(40) {
		m := newTreeMaker(t, seed)
		dir, run := t.TempDir(), t.TempDir()
		for range 40 {
			m.step(dir)
		}
		before := readTree(t, dir)
		work := t.TempDir()
		copyFiles(t, before, work)
		for range 25 {
			m.step(dir)
		}
		after := readTree(t, dir)
		cs := changesBetween(t, run, before, after)
		if err := SavePatch(t.Context(), run, cs, PatchConfig{Old: oldFrom(before), Blobs: OpenBlobs(run)}); err != nil {
			t.Fatal(err)
		}
		patch := filepath.Join(run, PatchFile)
		if data, _ := os.ReadFile(patch); len(data) == 0 {
			continue
		}
		if out, err := tryGitIn(t, work, "apply", "--binary", "--whitespace=nowarn", patch); err != nil {
			data, _ := os.ReadFile(patch)
			t.Fatalf("seed %d: git apply: %v\n%s\n%s", seed, err, out, data)
		}
		if d := cmp.Diff(asGitSees(readTree(t, work)), asGitSees(after)); d != "" {
			t.Fatalf("seed %d: (-git apply +agent)\n%s", seed, d)
		}
	}
}

// patchOf gives the patch between two states, as text.
func patchOf(t *testing.T, before, after treeState, cfg PatchConfig) (string, *ChangeSet) {
	t.Helper()
	run := t.TempDir()
	cs := changesBetween(t, run, before, after)
	if err := (Gate{Protected: noProtection, Project: t.TempDir()}).Classify(cs); err != nil {
		t.Fatal(err)
	}
	cfg.Blobs = OpenBlobs(run)
	if cfg.Old == nil {
		cfg.Old = oldFrom(before)
	}
	var b bytes.Buffer
	if err := WritePatch(t.Context(), &b, cs, cfg); err != nil {
		t.Fatal(err)
	}
	return b.String(), cs
}

func fileEntry(content string, mode fs.FileMode) treeEntry {
	return treeEntry{Content: content, Node: Node{Type: File, Mode: mode, Size: int64(len(content)), SHA256: hashString(content)}}
}

func linkEntry(target string) treeEntry {
	return treeEntry{Node: Node{Type: Symlink, Target: target, Size: int64(len(target)), SHA256: hashString(target)}}
}

func dirEntry(mode fs.FileMode) treeEntry {
	return treeEntry{Node: Node{Type: Dir, Mode: mode}}
}

// The text of a patch is what git would have written: compared with git's own output.
func TestPatchIsWhatGitWrites(t *testing.T) {
	before := treeState{
		"gone": fileEntry("x\n", 0o644), "edit me": fileEntry("1\n2\n3\n4\n5\n6\n7\n8\n9\n", 0o644),
		"tool": fileEntry("#!/bin/sh\n", 0o644), "old/name": fileEntry("same\nsame\nsame\n", 0o644), "link": linkEntry("gone"),
		"turns": fileEntry("file\n", 0o644), "old": dirEntry(0o755),
	}
	after := treeState{
		"edit me": fileEntry("1\n2\n3\n4\nfive\n6\n7\n8\n9", 0o644), "tool": fileEntry("#!/bin/sh\n", 0o755),
		"new\tname": fileEntry("same\nsame\nsame\n", 0o644), "link": linkEntry("tool"), "empty": fileEntry("", 0o644), "turns": linkEntry("tool"),
		"old": dirEntry(0o755),
	}
	got, _ := patchOf(t, before, after, PatchConfig{})
	repo := t.TempDir()
	gitIn(t, repo, "init", "-q")
	copyTree(t, before, repo)
	gitIn(t, repo, "add", "-A")
	gitIn(t, repo, "commit", "-qm", "before")
	for _, p := range before.paths() {
		if err := os.RemoveAll(filepath.Join(repo, p)); err != nil {
			t.Fatal(err)
		}
	}
	copyTree(t, after, repo)
	gitIn(t, repo, "add", "-A")
	want := gitIn(t, repo, "diff", "--cached", "--binary", "--full-index", "-M")
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("patch (-ours +git)\n%s", d)
	}
}

func TestPatchLeavesOutWithANote(t *testing.T) {
	text := strings.Repeat("a line\n", 100)
	after := treeState{"a": fileEntry(text, 0o644), "b\n# c": fileEntry(text, 0o644), "z": fileEntry("1\n", 0o644)}
	got, cs := patchOf(t, treeState{}, after, PatchConfig{MaxBytes: 1500})
	if !cs.PatchIncomplete || cs.Find("a").Omitted != "" || cs.Find("b\n# c").Omitted == "" || cs.Find("z").Omitted != "" {
		t.Errorf("PatchIncomplete = %v, changes %+v", cs.PatchIncomplete, cs.Changes)
	}
	if want := `# agent-sandbox: left out "b\n# c": the patch would be longer than 1500 bytes` + "\n"; !strings.Contains(got, want) {
		t.Errorf("patch lacks %q:\n%s", want, got)
	}
	if len(got) > 1700 {
		t.Errorf("patch of %d bytes", len(got))
	}
}

// A host file that is no longer what the agent saw can't be diffed: a patch against the wrong base would lie.
func TestPatchRefusesAChangedBase(t *testing.T) {
	before := treeState{"f": fileEntry("1\n", 0o644), "g": fileEntry("g\n", 0o644)}
	after := treeState{"f": fileEntry("2\n", 0o644), "g": fileEntry("G\n", 0o644)}
	for name, old := range map[string]treeState{
		"content": {"f": fileEntry("changed on the host\n", 0o644), "g": fileEntry("g\n", 0o644)},
		"gone":    {"g": fileEntry("g\n", 0o644)},
	} {
		got, cs := patchOf(t, before, after, PatchConfig{Old: oldFrom(old)})
		if !cs.PatchIncomplete || cs.Find("f").Omitted == "" || cs.Find("g").Omitted != "" {
			t.Errorf("%s: %+v", name, cs.Changes)
		}
		if strings.Contains(got, "+2") || !strings.Contains(got, "# agent-sandbox: left out f: ") {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

func TestPatchHasNothingOfGit(t *testing.T) {
	after := treeState{".git/config": fileEntry("x\n", 0o644), "sub/.GIT/hooks/pre-commit": fileEntry("x\n", 0o755), "git~1/config": fileEntry("x\n", 0o644), ".g\u200cit": fileEntry("x", 0o644), ".gitignore": fileEntry("x\n", 0o644)}
	got, _ := patchOf(t, treeState{}, after, PatchConfig{})
	if n := strings.Count(got, "diff --git"); n != 1 || !strings.Contains(got, "b/.gitignore\n") {
		t.Errorf("%d blocks:\n%s", n, got)
	}
}

// Larger than the text limit: as a literal, streamed, and git takes it.
func TestPatchOfALargeFile(t *testing.T) {
	big := strings.Repeat("0123456789abcde\n", maxTextBytes/16+1)
	before := treeState{"f": fileEntry(big, 0o644)}
	after := treeState{"f": fileEntry(big+"x", 0o644)}
	got, _ := patchOf(t, before, after, PatchConfig{})
	work := t.TempDir()
	copyTree(t, before, work)
	patch := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(patch, []byte(got), 0o600); err != nil {
		t.Fatal(err)
	}
	gitIn(t, work, "apply", patch)
	if readTree(t, work)["f"].Content != after["f"].Content {
		t.Error("git apply gave another content")
	}
}
