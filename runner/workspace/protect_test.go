package workspace

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

func noProtection(string) (policy.Tier, string) { return policy.TierNone, "" }

// classified runs the gate on the change between two states.
func classified(t *testing.T, before, after treeState) *ChangeSet {
	t.Helper()
	c := newApplyCase(t, before, after)
	if err := (Gate{Protected: policy.Workspace{}.Protector().Tier, Project: c.Target}).Classify(c.cs); err != nil {
		t.Fatal(err)
	}
	return c.cs
}

func TestClassifyNames(t *testing.T) {
	tests := []struct {
		path string
		tier Tier
		git  bool
		why  string // part of the reason
	}{
		{"src/main.go", NoTier, false, ""},
		{"ümlaut/文件", NoTier, false, ""},
		{"with space", NoTier, false, ""},
		{".gitignore", NoTier, false, ""},
		{"git", NoTier, false, ""},
		{"digit~1", NoTier, false, ""},
		{".github/workflows/ci.yml", Reject, false, "CI"},
		{".GitHub/Workflows/ci.yml", Reject, false, "CI"},
		{".git/hooks/pre-commit", Reject, true, "hooks"},
		{".git/config", Reject, true, "config"},
		{".git/index", NoTier, true, ""},
		{"sub/.git/config", Reject, true, "config"},
		{".GIT/hooks/x", Reject, true, "for .git"},
		{".Git/index", Reject, true, "for .git"},
		{"git~1/config", Reject, true, "for .git"},
		{"GIT~1", Reject, true, "for .git"},
		{".git./config", Reject, true, "for .git"},
		{".git /config", Reject, true, "for .git"},
		{".git::$INDEX_ALLOCATION/config", Reject, true, "for .git"},
		{".g\u200cit/config", Reject, true, "for .git"},
		{".gi\ufefft/x", Reject, true, "for .git"},
		{"a\\.git\\hooks\\x", Reject, true, "for .git"},
		{"new\nline", Reject, false, "control"},
		{"tab\t", Reject, false, "control"},
		{"esc\x1b[31m", Reject, false, "control"},
		{"c1\u009b31m", Reject, false, "control"},
		{"exe\u202etxt.sh", Reject, false, "reorders"},
		{"iso\u2066late", Reject, false, "reorders"},
		{"zero\u200bwidth", Warn, false, "invisible"},
		{"line\u2028", Warn, false, "invisible"},
		{"bad\xff", Warn, false, "UTF-8"},
		{"back\\slash", Warn, false, "backslash"},
	}
	for _, tt := range tests {
		after := treeState{tt.path: fileEntry("x", 0o644)}
		for d := filepath.Dir(tt.path); d != "."; d = filepath.Dir(d) {
			after[d] = dirEntry(0o755)
		}
		got := classified(t, treeState{}, after).Find(tt.path)
		if got.Tier != tt.tier || got.Git != tt.git || !strings.Contains(got.Reason, tt.why) || (got.Reason == "") != (tt.tier == NoTier) {
			t.Errorf("%q: tier %q, git %v, reason %q; want %q, %v, %q", tt.path, got.Tier, got.Git, got.Reason, tt.tier, tt.git, tt.why)
		}
		if hasControl(got.Reason) {
			t.Errorf("%q: reason %q", tt.path, got.Reason)
		}
	}
}

func TestClassifySymlinks(t *testing.T) {
	tests := []struct {
		link, target string
		tier         Tier
	}{
		{"l", "file", NoTier},
		{"d/l", "../file", NoTier},
		{"d/l", "./e/f", NoTier},
		{"d/l", "..", NoTier},
		{"l", "..", Reject},
		{"l", "../file", Reject},
		{"d/l", "../../etc/passwd", Reject},
		{"d/l", "e/../../../x", Reject},
		{"d/l", "other/..", Reject}, // "other" may be a link to anywhere in the project
		{"d/l", "/etc/passwd", Reject},
		{"d/l", "/project/file", Warn},
		{"d/l", "/project/../etc", Reject},
		{"d/l", "/projectx/file", Reject},
		{"l", ".git/hooks", Reject},
		{"l", ".GIT", Reject},
		{"d/l", "../.git/config", Reject},
		{"l", "/project/.git/config", Reject},
		{"l", "esc\x1b", Warn},
		{"l", `C:\Windows`, Warn},
		{"l", `..\..\x`, Warn},
	}
	for _, tt := range tests {
		c := &ChangeSet{Version: Version, Base: "/project", Changes: []Change{{Path: tt.link, Kind: Added, New: &Node{Type: Symlink, Target: tt.target}}}}
		if err := (Gate{Protected: noProtection, Project: t.TempDir()}).Classify(c); err != nil {
			t.Fatal(err)
		}
		if got := c.Changes[0]; got.Tier != tt.tier {
			t.Errorf("%s -> %s: %q (%s), want %q", tt.link, tt.target, got.Tier, got.Reason, tt.tier)
		}
	}
}

func TestClassifyNodes(t *testing.T) {
	before := treeState{"was": fileEntry("x", 0o755|fs.ModeSetuid), ".github": dirEntry(0o755), ".github/run.sh": fileEntry("x", 0o644), "l": linkEntry("/abs"), "bad\nname": fileEntry("x", 0o644)}
	after := treeState{
		"was": fileEntry("y", 0o755|fs.ModeSetuid), "suid": fileEntry("x", 0o755|fs.ModeSetuid), "sgid": fileEntry("x", 0o755|fs.ModeSetgid), "dir": dirEntry(0o755 | fs.ModeSetgid),
		".github": dirEntry(0o755), ".github/run.sh": fileEntry("x", 0o755), "run.sh": fileEntry("x", 0o755), "fifo": {Node: Node{Type: Other}}, "l": linkEntry("/abs"), "bad\nname": fileEntry("y", 0o644),
	}
	cs := classified(t, before, after)
	want := map[string]Tier{"was": NoTier, "suid": Reject, "sgid": Reject, "dir": NoTier, ".github/run.sh": Warn, "run.sh": NoTier, "fifo": Warn, "bad\nname": NoTier}
	for p, tier := range want {
		if c := cs.Find(p); c.Tier != tier {
			t.Errorf("%s: %q (%s), want %q", p, c.Tier, c.Reason, tier)
		}
	}
}

// Whoever moves or removes a protected file changes what it protects, too.
func TestClassifyLooksAtBothNames(t *testing.T) {
	before := treeState{"CODEOWNERS": fileEntry("* @boss\n", 0o644), ".envrc": fileEntry("x", 0o644)}
	cs := classified(t, before, treeState{"notes": fileEntry("* @boss\n", 0o644)})
	for _, p := range []string{"notes", ".envrc"} {
		if c := cs.Find(p); c == nil || c.Tier != Reject {
			t.Errorf("%s: %+v", p, c)
		}
	}
}

func TestClassifyCaseCollisions(t *testing.T) {
	before := treeState{"README": fileEntry("x", 0o644), "Src": dirEntry(0o755), "Src/Kelvin": fileEntry("x", 0o644), "gone": fileEntry("g", 0o644)}
	after := treeState{
		"README": fileEntry("x", 0o644), "readme": fileEntry("y", 0o644), "Src": dirEntry(0o755), "Src/Kelvin": fileEntry("x", 0o644), "Src/\u212aelvin": fileEntry("y", 0o644),
		"Src/own": fileEntry("1", 0o644), "Src/OWN": fileEntry("2", 0o644), "Gone": fileEntry("new", 0o644), "other": fileEntry("x2", 0o644),
	}
	cs := classified(t, before, after)
	for p, want := range map[string]bool{"readme": true, "Src/\u212aelvin": true, "Src/own": true, "Src/OWN": true, "Gone": false, "other": false} {
		if c := cs.Find(p); strings.Contains(c.Reason, "only by case") != want {
			t.Errorf("%q: %q (%s)", p, c.Tier, c.Reason)
		}
	}
}

// A directory that git takes for a repository runs what its config says, whatever it is called.
func TestClassifyBareRepositories(t *testing.T) {
	before := treeState{"half": dirEntry(0o755), "half/objects": dirEntry(0o755), "half/refs": dirEntry(0o755)}
	bare := func(dir string) treeState {
		return treeState{
			dir: dirEntry(0o755), dir + "/HEAD": fileEntry("ref: refs/heads/x\n", 0o644), dir + "/config": fileEntry("[core]\n\tfsmonitor = evil\n", 0o644), dir + "/objects": dirEntry(0o755),
			dir + "/refs": dirEntry(0o755), dir + "/hooks": dirEntry(0o755), dir + "/hooks/pre-commit": fileEntry("x", 0o755),
		}
	}
	cs := classified(t, treeState{}, bare("innocent"))
	for _, p := range []string{"innocent/HEAD", "innocent/config", "innocent/hooks/pre-commit"} {
		if c := cs.Find(p); c.Tier != Reject {
			t.Errorf("%s: %q (%s)", p, c.Tier, c.Reason)
		}
	}
	after := bare("half") // the other half was there before
	if c := classified(t, before, after).Find("half/config"); c.Tier != Reject {
		t.Errorf("half/config: %q (%s)", c.Tier, c.Reason)
	}
	cs = classified(t, treeState{}, treeState{"app": dirEntry(0o755), "app/config": fileEntry("x", 0o644), "app/objects": dirEntry(0o755)})
	if c := cs.Find("app/config"); c.Tier != NoTier {
		t.Errorf("app/config: %q (%s)", c.Tier, c.Reason)
	}
}

func TestClassifyNeverLowers(t *testing.T) {
	c := newApplyCase(t, treeState{}, treeState{"f": fileEntry("x", 0o644), ".gitattributes": fileEntry("x", 0o644)})
	c.cs.Find("f").Tier, c.cs.Find("f").Reason = Reject, "hidden from the agent"
	gate := Gate{Protected: policy.Workspace{}.Protector().Tier, Project: c.Target}
	for range 2 {
		if err := gate.Classify(c.cs); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.cs.Find("f"); got.Tier != Reject || got.Reason != "hidden from the agent" {
		t.Errorf("%+v", got)
	}
	if got := c.cs.Find(".gitattributes"); got.Tier != Warn || strings.Count(got.Reason, "attributes") != 1 {
		t.Errorf("%+v", got)
	}
}

func TestClassifyFailsClosed(t *testing.T) {
	cs := &ChangeSet{Version: Version}
	if err := (Gate{Project: t.TempDir()}).Classify(cs); err == nil {
		t.Error("without protected paths: no error")
	}
	if err := (Gate{Protected: noProtection, Project: filepath.Join(t.TempDir(), "no")}).Classify(cs); err == nil {
		t.Error("without a project: no error")
	}
	unknown := func(string) (policy.Tier, string) { return "later", "why" }
	cs.Changes = []Change{{Path: "f", Kind: Added, New: &Node{Type: File}}}
	if err := (Gate{Protected: unknown, Project: t.TempDir()}).Classify(cs); err != nil || cs.Changes[0].Tier != Reject {
		t.Errorf("unknown tier: %v, %+v", err, cs.Changes[0])
	}
}

// Whatever the names, Classify looks up nothing outside of the project.
func TestClassifyStaysInTheProject(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "NAME"), "x")
	c := newApplyCase(t, treeState{}, treeState{"l/name": fileEntry("x", 0o644)})
	if err := os.Symlink(outside, c.path("l")); err != nil {
		t.Fatal(err)
	}
	if err := (Gate{Protected: noProtection, Project: c.Target}).Classify(c.cs); err != nil {
		t.Fatal(err)
	}
	if got := c.cs.Changes[0]; got.Reason != "" {
		t.Errorf("%+v", got)
	}
}

// What git itself takes for .git, the gate does.
func FuzzGitName(f *testing.F) {
	for _, s := range []string{".git", ".GIT", "git~1", ".git.", ".git ", ".git:x", ".g\u200cit", "git", ".gitx", "a\\.git"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		plain := strings.ToLower(strings.TrimRight(name, ". "))
		if (plain == ".git" || plain == "git~1") && !isGitName(name) {
			t.Errorf("%q passes", name)
		}
		if isGitName(name) && !inGit("a/"+name+"/b") && !strings.Contains(name, "/") {
			t.Errorf("%q passes in a path", name)
		}
	})
}

// Nothing that printable gives can do anything to a terminal.
func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[31m\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		if out := printable(s); strings.ContainsFunc(out, func(r rune) bool { return unprintable(r) && r != '\ufffd' }) {
			t.Errorf("%q becomes %q", s, out)
		}
	})
}
