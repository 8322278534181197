package policy

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fixtures are the files of one archive in testdata.
func fixtures(t testing.TB, name string) []txtar.File {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	return archive.Files
}

// checkGolden compares with testdata/name, or writes it with -update.
func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got); -update accepts it:\n%s", name, diff)
	}
}

func mustLoad(t testing.TB, src string) *Policy {
	t.Helper()
	p, err := Load("policy.yaml", []byte(src))
	if err != nil {
		t.Fatalf("Load:\n%v\nof:\n%s", err, src)
	}
	return p
}

func TestLoadValid(t *testing.T) {
	for _, f := range fixtures(t, "valid") {
		if _, err := Load(f.Name, f.Data); err != nil {
			t.Errorf("Load(%s):\n%v", f.Name, err)
		}
	}
}

// TestLoadProblems holds every message with its place.
func TestLoadProblems(t *testing.T) {
	for _, kind := range []string{"invalid", "beyond", "yaml"} {
		t.Run(kind, func(t *testing.T) {
			var out strings.Builder
			for _, f := range fixtures(t, kind) {
				p, err := Load(f.Name, f.Data)
				if err == nil || p != nil {
					t.Errorf("Load(%s) = %v, %v; want no policy and an error", f.Name, p, err)
					continue
				}
				fmt.Fprintf(&out, "%v\n\n", err)
			}
			checkGolden(t, kind+".golden", []byte(out.String()))
		})
	}
}

func TestTenMistakes(t *testing.T) {
	for _, f := range fixtures(t, "invalid") {
		if f.Name != "ten-mistakes.yaml" {
			continue
		}
		_, err := Load(f.Name, f.Data)
		var problems Problems
		if !errors.As(err, &problems) {
			t.Fatalf("Load = %v, want Problems", err)
		}
		lines := map[int]bool{}
		for _, p := range problems {
			if p.Place.Line == 0 || p.Place.Column == 0 || p.Path == "" || p.Message == "" {
				t.Errorf("incomplete problem %+v", p)
			}
			lines[p.Place.Line] = true
		}
		if len(problems) != 10 || len(lines) != 10 {
			t.Errorf("got %d problems in %d lines, want ten of each:\n%v", len(problems), len(lines), err)
		}
		return
	}
	t.Fatal("no fixture ten-mistakes.yaml")
}
