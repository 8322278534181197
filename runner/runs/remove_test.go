package runs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// hostileTree fills dir as an agent might, and returns a file outside that must survive.
func hostileTree(t *testing.T, dir string) (outside string) {
	t.Helper()
	outside = filepath.Join(t.TempDir(), "outside")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(outside, "sub"), 0o755))
	must(os.WriteFile(filepath.Join(outside, "file"), []byte("x"), 0o644))
	upper := filepath.Join(dir, "upper")
	must(os.MkdirAll(filepath.Join(upper, "a", "closed", "deep", "er"), 0o755))
	must(os.MkdirAll(filepath.Join(upper, ".moved-1", ".moved-2"), 0o755)) // a name that we use
	odd := "name\n\x1b\xff"
	if os.MkdirAll(filepath.Join(upper, odd, "empty"), 0o755) != nil { // not every file system takes it
		odd = "odd"
		must(os.MkdirAll(filepath.Join(upper, odd, "empty"), 0o755))
	}
	must(os.WriteFile(filepath.Join(upper, "a", "closed", "deep", "file"), nil, 0))
	_ = os.Symlink(outside, filepath.Join(upper, "a", "link"))
	_ = os.Symlink(outside, filepath.Join(upper, "link"))
	deep := upper
	for i := range 60 {
		deep = filepath.Join(deep, fmt.Sprint("d", i))
	}
	must(os.MkdirAll(deep, 0o755))
	for _, closed := range []string{"a/closed/deep/er", "a/closed/deep", "a/closed", odd + "/empty", "d0/d1", ".moved-1"} {
		must(os.Chmod(filepath.Join(upper, closed), 0))
	}
	must(os.Mkdir(filepath.Join(dir, "work"), 0o700))
	must(os.Mkdir(filepath.Join(dir, "work", "work"), 0)) // as overlay makes it
	return outside
}

func wantOutside(t *testing.T, outside string) {
	t.Helper()
	for _, path := range []string{filepath.Join(outside, "file"), filepath.Join(outside, "sub")} {
		if !exists(t, path) {
			t.Errorf("%s, outside of the run, is gone", path)
		}
	}
	if info, _ := os.Stat(outside); info.Mode().Perm() != 0o755 {
		t.Errorf("the directory outside has mode %v now", info.Mode())
	}
}

func TestRemove(t *testing.T) {
	s := openStore(t)
	r := finish(t, s, idA)
	outside := hostileTree(t, r.Dir())
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	if exists(t, r.Dir()) || exists(t, filepath.Join(s.Path(), gonePrefix+string(idA))) {
		t.Error("something is left")
	}
	wantOutside(t, outside)
	if err := r.Remove(); !errors.Is(err, ErrNotFound) {
		t.Errorf("a second Remove: %v, want ErrNotFound", err)
	}
	if exists(t, r.Dir()) {
		t.Error("a second Remove made the directory again")
	}
}

// The way for trees that RemoveAll does not manage is tried by itself, because for root it always manages.
func TestDismantle(t *testing.T) {
	dir := t.TempDir()
	outside := hostileTree(t, dir)
	tree, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := dismantle(tree); err != nil {
		t.Fatal(err)
	}
	if rest, err := os.ReadDir(dir); len(rest) != 0 || err != nil {
		t.Errorf("left: %v, %v", rest, err)
	}
	wantOutside(t, outside)
}

func TestSweep(t *testing.T) {
	s := openStore(t)
	finish(t, s, idA)
	gone := filepath.Join(s.Path(), gonePrefix+string(idB))
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	outside := hostileTree(t, gone)
	removed, err := s.Sweep()
	if err != nil || len(removed) != 1 || exists(t, gone) {
		t.Errorf("Sweep = %v, %v", removed, err)
	}
	wantOutside(t, outside)
	if list, _ := s.List(0); len(list) != 1 {
		t.Error("Sweep took a run along")
	}
}

func TestPrune(t *testing.T) {
	const day = 24 * time.Hour
	now := testTime()
	at := func(d time.Duration) ID { return NewID(now.Add(-d)) }
	unknown := errors.New("no plan")
	keep := func(d time.Duration) func(*Run) (time.Duration, error) {
		return func(*Run) (time.Duration, error) { return d, nil }
	}
	for _, tt := range []struct {
		name string
		keep func(*Run) (time.Duration, error)
		dry  bool
		want []int // indices of the runs that go
		err  error
	}{
		{name: "by age", keep: keep(5 * day), want: []int{2, 4}},
		{name: "to the moment", keep: keep(204 * time.Hour)},
		{name: "a dry run", keep: keep(5 * day), dry: true, want: []int{2, 4}},
		{name: "each its own", want: []int{4}, keep: func(r *Run) (time.Duration, error) {
			if r.ID == at(6 * day)[:15]+r.ID[15:] {
				return day, nil
			}
			return 90 * day, nil
		}},
		{name: "one that nobody can tell of", want: []int{2}, err: unknown, keep: func(r *Run) (time.Duration, error) {
			if r.ID.Time().After(now.Add(-7 * day)) {
				return 0, unknown
			}
			return day, nil
		}},
	} {
		s := openStore(t)
		// 10 and 9 days old but not ended, then 8.5, 3 and 6 days old.
		list := []*Run{create(t, s, at(10*day)), die(t, s, at(9*day)), finish(t, s, at(204*time.Hour)), finish(t, s, at(3*day)), finish(t, s, at(6*day))}
		got, err := s.Prune(PruneConfig{Now: now.Truncate(time.Second), Keep: tt.keep, DryRun: tt.dry})
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		want, gone := []ID{}, map[ID]bool{}
		for _, i := range tt.want {
			want, gone[list[i].ID] = append(want, list[i].ID), !tt.dry
		}
		for _, r := range list {
			if exists(t, r.Dir()) == gone[r.ID] {
				t.Errorf("%s: run %s: gone should be %v", tt.name, r.ID, gone[r.ID])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: Prune (-want +got):\n%s", tt.name, diff)
		}
	}
}
