package workspace

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChangeSetRoundTrip(t *testing.T) {
	for seed := range uint64(5) {
		c := randomCase(t, 900+seed, 40)
		c.cs.Base = "/pro\xffject"
		c.cs.Commit, c.cs.Head, c.cs.PatchIncomplete = strings.Repeat("a", 40), "refs/heads/main", true
		c.cs.Started = c.cs.Started.UTC()
		if len(c.cs.Changes) > 0 {
			c.cs.Changes[0].Reason, c.cs.Changes[0].Tier, c.cs.Changes[0].Omitted, c.cs.Changes[0].HostChanged = "why <&>", Warn, "big", true
		}
		c.save(t)
		got, err := Load(c.RunDir)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(got, c.cs); d != "" {
			t.Errorf("(-got +want)\n%s", d)
		}
		if info, err := os.Stat(filepath.Join(c.RunDir, ChangesFile)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
}

// The JSON is a contract: this is its form.
func TestChangeSetJSON(t *testing.T) {
	cs := changesBetween(t, t.TempDir(), treeState{"gone": dirEntry(0o755)}, treeState{"a\xff": fileEntry("x", 0o755|fs.ModeSetuid), "l": linkEntry("\xfe")})
	data, err := json.MarshalIndent(cs, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "version": 1,
 "run": "test-run",
 "base": "/project",
 "started": "2023-11-14T22:13:20Z",
 "changes": [
  {
   "path": "a\ufffd",
   "path_b64": "Yf8=",
   "kind": "added",
   "new": {
    "type": "file",
    "mode": "4755",
    "size": 1,
    "sha256": "` + hashString("x") + `"
   }
  },
  {
   "path": "gone",
   "kind": "deleted",
   "old": {
    "type": "dir",
    "mode": "0755",
    "size": 0
   }
  },
  {
   "path": "l",
   "kind": "added",
   "new": {
    "type": "symlink",
    "mode": "0000",
    "size": 1,
    "sha256": "` + hashString("\xfe") + `",
    "target": "\ufffd",
    "target_b64": "/g=="
   }
  }
 ]
}`
	if d := cmp.Diff(string(data), strings.ReplaceAll(want, `\ufffd`, "\ufffd")); d != "" {
		t.Errorf("(-got +want)\n%s", d)
	}
}

func TestLoadRefuses(t *testing.T) {
	sum, link := hashString("x"), hashString("t")
	file := `{"type":"file","mode":"0644","size":1,"sha256":"` + sum + `"}`
	dir := `{"type":"dir","mode":"0755","size":0}`
	tests := map[string]string{
		"not JSON":              `{`,
		"other version":         `{"version":2,"changes":[]}`,
		"no version":            `{"changes":[]}`,
		"absolute":              changesJSON(`{"path":"/a","kind":"added","new":` + file + `}`),
		"climbing":              changesJSON(`{"path":"a/../b","kind":"added","new":` + file + `}`),
		"NUL":                   changesJSON(`{"path":"a\u0000","kind":"added","new":` + file + `}`),
		"base64 of another":     changesJSON(`{"path":"README","path_b64":"LmdpdC9j/w==","kind":"added","new":` + file + `}`),
		"base64 of plain text":  changesJSON(`{"path":"abc","path_b64":"YWJj","kind":"added","new":` + file + `}`),
		"bad base64":            changesJSON(`{"path":"abc","path_b64":"?","kind":"added","new":` + file + `}`),
		"long name":             changesJSON(`{"path":"` + strings.Repeat("n", 256) + `","kind":"added","new":` + file + `}`),
		"unknown kind":          changesJSON(`{"path":"a","kind":"copied","old":` + file + `,"new":` + file + `}`),
		"added with old":        changesJSON(`{"path":"a","kind":"added","old":` + file + `,"new":` + file + `}`),
		"deleted with new":      changesJSON(`{"path":"a","kind":"deleted","old":` + file + `,"new":` + file + `}`),
		"modified without old":  changesJSON(`{"path":"a","kind":"modified","new":` + file + `}`),
		"renamed from nowhere":  changesJSON(`{"path":"a","kind":"renamed","old":` + file + `,"new":` + file + `}`),
		"renamed climbing":      changesJSON(`{"path":"a","kind":"renamed","from":"../b","old":` + file + `,"new":` + file + `}`),
		"renamed directory":     changesJSON(`{"path":"a","kind":"renamed","from":"b","old":` + dir + `,"new":` + dir + `}`),
		"added with from":       changesJSON(`{"path":"a","kind":"added","from":"b","new":` + file + `}`),
		"from with own change":  changesJSON(`{"path":"a","kind":"renamed","from":"b","old":` + file + `,"new":` + file + `},{"path":"b","kind":"added","new":` + file + `}`),
		"twice":                 changesJSON(`{"path":"a","kind":"added","new":` + file + `},{"path":"a","kind":"added","new":` + file + `}`),
		"out of order":          changesJSON(`{"path":"b","kind":"added","new":` + file + `},{"path":"a","kind":"added","new":` + file + `}`),
		"no digest":             changesJSON(`{"path":"a","kind":"added","new":{"type":"file","mode":"0644","size":1}}`),
		"digest with a slash":   changesJSON(`{"path":"a","kind":"added","new":{"type":"file","mode":"0644","size":1,"sha256":"../` + sum[3:] + `"}}`),
		"upper-case digest":     changesJSON(`{"path":"a","kind":"added","new":{"type":"file","mode":"0644","size":1,"sha256":"` + strings.ToUpper(sum) + `"}}`),
		"link without target":   changesJSON(`{"path":"a","kind":"added","new":{"type":"symlink","mode":"0777","size":1,"sha256":"` + link + `"}}`),
		"link with other hash":  changesJSON(`{"path":"a","kind":"added","new":{"type":"symlink","mode":"0777","size":1,"sha256":"` + sum + `","target":"t"}}`),
		"directory with target": changesJSON(`{"path":"a","kind":"added","new":{"type":"dir","mode":"0777","size":1,"target":"t"}}`),
		"mode of five digits":   changesJSON(`{"path":"a","kind":"added","new":{"type":"dir","mode":"10000","size":0}}`),
		"negative size":         changesJSON(`{"path":"a","kind":"added","new":{"type":"dir","mode":"0755","size":-1}}`),
		"unknown type":          changesJSON(`{"path":"a","kind":"added","new":{"type":"door","mode":"0755","size":0}}`),
		"unknown tier":          changesJSON(`{"path":"a","kind":"added","tier":"fine","new":` + file + `}`),
		"mode with new content": changesJSON(`{"path":"a","kind":"mode","old":` + file + `,"new":{"type":"file","mode":"0755","size":1,"sha256":"` + link + `"}}`),
	}
	for name, text := range tests {
		if cs, err := decodeChangeSet([]byte(text)); err == nil {
			t.Errorf("%s: loaded %+v", name, cs)
		}
	}
	if _, err := decodeChangeSet([]byte(changesJSON(`{"path":"a","kind":"added","new":` + file + `,"later":1}`))); err != nil {
		t.Errorf("a field of a later program: %v", err)
	}
}

func changesJSON(changes string) string { return `{"version":1,"changes":[` + changes + `]}` }

func TestSaveChecksAndKeepsTheOld(t *testing.T) {
	c := newApplyCase(t, treeState{}, treeState{"f": fileEntry("f", 0o644)})
	want, err := os.ReadFile(filepath.Join(c.RunDir, ChangesFile))
	if err != nil {
		t.Fatal(err)
	}
	c.cs.Changes[0].Path = "../f"
	if err := c.cs.Save(c.RunDir); err == nil {
		t.Error("no error")
	}
	if got, err := os.ReadFile(filepath.Join(c.RunDir, ChangesFile)); err != nil || string(got) != string(want) {
		t.Errorf("changes.json is %q, %v", got, err)
	}
}

func TestCounts(t *testing.T) {
	before := treeState{"m": fileEntry("1", 0o644), "mode": fileEntry("1", 0o644), "mv": fileEntry("mv", 0o644), "d": fileEntry("1", 0o644), "dir": dirEntry(0o755)}
	after := treeState{"m": fileEntry("2", 0o644), "mode": fileEntry("1", 0o755), "to": fileEntry("mv", 0o644), "dir": dirEntry(0o700), "n": linkEntry("x"), ".git": dirEntry(0o755), ".git/config": fileEntry("x", 0o644)}
	c := newApplyCase(t, before, after)
	if err := (Gate{Protected: noProtection, Project: c.Target}).Classify(c.cs); err != nil {
		t.Fatal(err)
	}
	c.cs.Find("m").Tier, c.cs.Find(".git/config").Tier = Warn, Reject
	want := Counts{Added: 1, Modified: 1, Deleted: 1, Renamed: 1, Mode: 1, Dirs: 1, Git: 2, Warn: 1, Reject: 1}
	if got := c.cs.Counts(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestBlobs(t *testing.T) {
	b := OpenBlobs(t.TempDir())
	for range 2 {
		sum, n, err := b.Put(strings.NewReader("hello"))
		if err != nil || n != 5 || sum != hashString("hello") || !b.Has(sum) {
			t.Fatalf("put: %s %d %v", sum, n, err)
		}
	}
	boom := errors.New("boom")
	if _, _, err := b.Put(failingReader{boom}); !errors.Is(err, boom) {
		t.Errorf("failing reader: %v", err)
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, bad := range []string{"", "../" + hashString("hello"), strings.ToUpper(hashString("hello")), hashString("hello")[:63]} {
		if _, err := b.Open(bad); err == nil || b.Has(bad) {
			t.Errorf("opened %q", bad)
		}
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// What Load takes is safe to use as a path below the project, and is what Save writes.
func FuzzLoadChangeSet(f *testing.F) {
	sum := hashString("x")
	f.Add([]byte(changesJSON(`{"path":"a/b","kind":"renamed","from":"c","old":{"type":"file","mode":"0644","size":1,"sha256":"` + sum + `"},"new":{"type":"file","mode":"0644","size":1,"sha256":"` + sum + `"}}`)))
	f.Add([]byte(changesJSON(`{"path":"l","kind":"added","new":{"type":"symlink","mode":"0777","size":1,"sha256":"` + hashString("t") + `","target":"t"}}`)))
	f.Add([]byte(changesJSON(`{"path":"a\ufffd","path_b64":"Yf8=","kind":"deleted","old":{"type":"dir","mode":"0755","size":0}}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		cs, err := decodeChangeSet(data)
		if err != nil {
			return
		}
		for _, c := range cs.Changes {
			for _, p := range []string{c.Path, c.source()} {
				if !filepath.IsLocal(p) || filepath.ToSlash(filepath.Clean(p)) != p || strings.Contains(p, "\x00") {
					t.Errorf("path %q", p)
				}
			}
		}
		dir := t.TempDir()
		if err := cs.Save(dir); err != nil {
			t.Fatalf("loaded but can't be saved: %v", err)
		}
		again, err := Load(dir)
		if err != nil {
			t.Fatalf("saved but can't be loaded: %v", err)
		}
		if d := cmp.Diff(again, cs); d != "" {
			t.Errorf("(-again +first)\n%s", d)
		}
	})
}

// A path that checkPath takes stays below the directory that it is joined to.
func FuzzPath(f *testing.F) {
	for _, p := range []string{"a", "a/b", "..", "a/../..", "/a", "a//b", "./a", "a/.", "a\x00b", "..a/...", "\xff"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if checkPath(p) != nil {
			return
		}
		if joined := filepath.Join("/root", p); !strings.HasPrefix(joined, "/root/") || joined != "/root/"+p {
			t.Errorf("%q becomes %q", p, joined)
		}
	})
}

// A journal that is loaded names nothing outside of the project and its stage.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Target":"L3A=","Stage":".agent-sandbox-apply-0123456789abcdef","Phase":"staging","Steps":[{"Op":"put","Path":"YQ=="}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := decodeJournal(data)
		if err != nil {
			return
		}
		if strings.ContainsAny(j.Stage, "/\\") || !strings.HasPrefix(j.Stage, stagePrefix) {
			t.Errorf("stage %q", j.Stage)
		}
		for _, s := range j.Steps {
			if !filepath.IsLocal(string(s.Path)) || !filepath.IsLocal(slotPath(j.Stage, s.Slot)) {
				t.Errorf("step %+v", s)
			}
		}
	})
}
