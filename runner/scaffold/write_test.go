package scaffold

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := project(t, map[string]string{"kept": "before", "link/x": ""})
	target, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	for _, tt := range []struct {
		path  string
		force bool
		want  error
		state State // afterwards
	}{
		{"new/deep/file", false, nil, Same},
		{"new/deep/file", false, fs.ErrExist, Same},
		{"kept", false, fs.ErrExist, Differs},
		{"kept", true, nil, Same},
	} {
		f := File{Path: tt.path, Content: "after"}
		if err := target.Write(f, tt.force); !errors.Is(err, tt.want) {
			t.Errorf("Write(%s, %t) = %v, want %v", tt.path, tt.force, err, tt.want)
		}
		if got, _, err := target.Compare(f); got != tt.state || err != nil {
			t.Errorf("Compare(%s) = %s, %v, want %s", tt.path, got, err, tt.state)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("the project has %v, %v: something was left", entries, err)
	}
}

// The project's links lead nowhere else, with force neither.
func TestWriteStaysInside(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "agent-sandbox.yml")
	if err := os.WriteFile(victim, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := project(t, map[string]string{".github/x": ""})
	for link, to := range map[string]string{".github/workflows": outside, PolicyFile: victim} {
		if err := os.Symlink(to, filepath.Join(dir, filepath.FromSlash(link))); err != nil {
			t.Fatal(err)
		}
	}
	target, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if err := target.Write(File{Path: WorkflowFile, Content: "after"}, true); err == nil {
		t.Error("a linked directory was written to")
	}
	if err := target.Write(File{Path: PolicyFile, Content: "after"}, false); err == nil {
		t.Error("a link was written through")
	}
	if err := target.Write(File{Path: PolicyFile, Content: "after"}, true); err != nil {
		t.Errorf("a link in the file's place could not be replaced: %v", err)
	}
	if b, err := os.ReadFile(victim); string(b) != "before" || err != nil {
		t.Errorf("the file outside is %q, %v", b, err)
	}
}
