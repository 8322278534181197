package ovl

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func example() map[string]Attrs {
	return map[string]Attrs{
		".":                {Whiteouts: []string{"a", "inv\xffalid"}},
		"d":                {Opaque: true},
		"new\nline/e":      {Redirect: "/d/e"},
		"inv\xffalid":      {Redirect: "beside"},
		"with both/kinds ": {Opaque: true, Redirect: "x"},
	}
}

func encode(t testing.TB, dirs map[string]Attrs) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, dirs); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParseReadsWhatDumpWrites(t *testing.T) {
	for _, want := range []map[string]Attrs{{}, example()} {
		got, err := Parse(bytes.NewReader(encode(t, want)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestParseRefusesEveryPart(t *testing.T) {
	whole := encode(t, example())
	for n := range whole {
		if got, err := Parse(bytes.NewReader(whole[:n])); err == nil {
			t.Fatalf("the first %d of %d bytes: got %v, want an error", n, len(whole), got)
		}
	}
	if _, err := Parse(io.MultiReader(bytes.NewReader(whole), strings.NewReader("x"))); err == nil {
		t.Error("with more behind it: want an error")
	}
}

func TestParseRefuses(t *testing.T) {
	for name, dirs := range map[string]map[string]Attrs{
		"climbing path":            {"../x": {Opaque: true}},
		"absolute path":            {"/x": {Opaque: true}},
		"empty path":               {"": {Opaque: true}},
		"path with NUL":            {"a\x00b": {Opaque: true}},
		"long path":                {strings.Repeat("a/", 2500) + "a": {Opaque: true}},
		"climbing redirect":        {"a": {Redirect: "/../etc"}},
		"redirect with slash":      {"a": {Redirect: "b/c"}},
		"redirect to the root":     {"a": {Redirect: "/"}},
		"redirect upwards":         {"a": {Redirect: ".."}},
		"directory without any":    {"a": {}},
		"whiteout elsewhere":       {"a": {Whiteouts: []string{"../x"}}},
		"whiteouts out of order":   {"a": {Whiteouts: []string{"b", "a"}}},
		"whiteout without a name":  {"a": {Whiteouts: []string{""}}},
		"whiteout with long names": {"a": {Whiteouts: []string{strings.Repeat("n", 256)}}},
	} {
		if got, err := Parse(bytes.NewReader(encode(t, dirs))); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func TestParseBelievesNoLength(t *testing.T) {
	for _, n := range []uint64{1 << 21, 1 << 40, 1<<64 - 1} {
		b := binary.AppendUvarint([]byte(magic), n)
		if _, err := Parse(bytes.NewReader(b)); err == nil {
			t.Errorf("%d directories that are not there: want an error", n)
		}
		b = binary.AppendUvarint(binary.AppendUvarint([]byte(magic), 1), n)
		if _, err := Parse(bytes.NewReader(b)); err == nil {
			t.Errorf("a path of %d bytes: want an error", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encode(f, example()))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		dirs, err := Parse(bytes.NewReader(data))
		if err != nil {
			return
		}
		for path, a := range dirs {
			if err := check(path, a); err != nil {
				t.Errorf("Parse let through what check refuses: %v", err)
			}
		}
		again, err := Parse(bytes.NewReader(encode(t, dirs)))
		if err != nil || !cmp.Equal(dirs, again) {
			t.Errorf("not the same after writing and reading: %v", err)
		}
	})
}
