package runs

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNewIDSortsByTime(t *testing.T) {
	at := testTime()
	last := ID("")
	for range 5000 { // crosses second and minute
		id := NewID(at)
		if id <= last {
			t.Fatalf("%s, made at %v, does not sort after %s", id, at, last)
		}
		if _, err := ParseID(string(id)); err != nil {
			t.Fatal(err)
		}
		last, at = id, at.Add(5*time.Millisecond)
	}
}

func TestNewIDIsUTC(t *testing.T) {
	id := NewID(testTime().In(time.FixedZone("", 5*3600)))
	if !strings.HasPrefix(string(id), "20261123-152240-g0") {
		t.Errorf("NewID = %s", id)
	}
	if got, want := id.Time(), testTime().Truncate(time.Second); !got.Equal(want) {
		t.Errorf("Time = %v, want %v", got, want)
	}
}

func TestNewIDDiffers(t *testing.T) {
	seen := map[ID]bool{}
	for range 100 {
		seen[NewID(testTime())] = true
	}
	if len(seen) < 99 { // the chance of two pairs among 2^20 is one in 90,000
		t.Errorf("%d of 100 ids differ", len(seen))
	}
}

func TestParseID(t *testing.T) {
	for _, bad := range []string{
		"", "last", ".", "..", "20261123-152240-3k7f9", "20261123-152240-3k7f9cc", "20261123-152240-3K7F9C", "20261123-152240-3k7f9u",
		"20261323-152240-3k7f9c", "20261123_152240-3k7f9c", "20261123-152240-3k7f9c\n", "20261123-152240-../../", "20261123-15224\x00-3k7f9c",
	} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) = %q", bad, id)
		}
	}
}

// Claim: an id is one plain file name with a time.
func FuzzParseID(f *testing.F) {
	f.Add("20261123-152240-3k7f9c")
	f.Add("../../../../etc/passwd")
	f.Add("20261123-152240-3k7/9c")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			return
		}
		if string(id) != s || !filepath.IsLocal(s) || filepath.Base(s) != s || strings.ContainsAny(s, `./\: `) {
			t.Errorf("ParseID(%q) = %q", s, id)
		}
		if id.Time().IsZero() || !strings.HasPrefix(s, id.Time().Format(idTime)) {
			t.Errorf("%q has the time %v", s, id.Time())
		}
	})
}
