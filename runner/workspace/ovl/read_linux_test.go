package ovl

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestDumpReadsAttributes(t *testing.T) {
	root := t.TempDir()
	if !CanRead(root) {
		t.Skip("this user sees no trusted attributes here")
	}
	for _, dir := range []string{"plain", "opaque/new\nline", "moved", "x"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"x/gone", "x/empty", "plain/noted"} {
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range [][3]string{
		{"opaque", attrOpaque, "y"},
		{"opaque/new\nline", attrRedirect, "/a/b"},
		{"moved", attrRedirect, "beside"},
		{"x", attrOpaque, "x"},
		{"x/gone", attrWhiteout, ""},
		{"plain/noted", attrWhiteout, ""}, // the kernel looks for them only where opaque is "x"
		{"plain", "trusted.overlay.impure", "y"},
	} {
		if err := unix.Setxattr(filepath.Join(root, a[0]), a[1], []byte(a[2]), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Dump(&b, root); err != nil {
		t.Fatal(err)
	}
	got, err := Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Attrs{
		"opaque": {Opaque: true}, "opaque/new\nline": {Redirect: "/a/b"}, "moved": {Redirect: "beside"}, "x": {Whiteouts: []string{"gone"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadRefusesASymlink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "upper")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(link); err == nil {
		t.Errorf("got %v, want an error", got)
	}
}
