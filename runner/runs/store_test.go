package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	idA = ID("20261123-152240-3k7f9c")
	idB = ID("20261123-152241-0a0000")
	idC = ID("20261124-000000-zzzzzz")
)

func ids(list []*Run) []ID {
	var out []ID
	for _, r := range list {
		out = append(out, r.ID)
	}
	return out
}

func TestOpenMakesPrivateDirectory(t *testing.T) {
	s := openStore(t)
	info, err := os.Stat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, want 0700", info.Mode())
	}
}

func TestOpenModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no mode bits on windows")
	}
	for mode, ok := range map[fs.FileMode]bool{0o700: true, 0o755: true, 0o750: true, 0o770: false, 0o707: false, 0o777: false, 0o1777: false} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode&0o777|(mode&0o1000)<<11); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if (err == nil) != ok {
			t.Errorf("Open of a directory with mode %#o: %v", mode, err)
			continue
		}
		if err != nil {
			if !strings.Contains(err.Error(), dir) {
				t.Errorf("error %q does not name the directory", err)
			}
			continue
		}
		_ = s.Close()
		if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
			t.Errorf("mode %#o stayed %v", mode, info.Mode())
		}
	}
}

func TestOpenRefusesOtherOwner(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no owner on windows")
	}
	dir := "/" // of root
	if os.Geteuid() == 0 {
		dir = t.TempDir()
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "belongs to uid") {
		t.Errorf("Open of somebody else's directory: %v", err)
	}
}

func TestOpenRefusesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("Open of a file gave no error")
	}
}

func TestCreate(t *testing.T) {
	s := openStore(t)
	r := create(t, s, idA)
	if info, err := os.Stat(r.Dir()); err != nil || !info.IsDir() || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("run directory: %v, %v", info, err)
	}
	if _, err := s.Create(idA); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second Create: %v, want fs.ErrExist", err)
	}
	for _, bad := range []ID{"", "..", "../x", "last"} {
		if _, err := s.Create(bad); err == nil {
			t.Errorf("Create(%q) gave no error", bad)
		}
	}
	wantState(t, r, Running)
}

func TestListToleratesRubbish(t *testing.T) {
	s := openStore(t)
	for _, id := range []ID{idB, idA, idC} {
		create(t, s, id)
	}
	for _, dir := range []string{".gone-x", "not-a-run"} {
		if err := os.Mkdir(filepath.Join(s.Path(), dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Path(), "20261125-000000-aaaaaa"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(s.Path(), "20261126-000000-aaaaaa")); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	for limit, want := range map[int][]ID{0: {idC, idB, idA}, 2: {idC, idB}, 9: {idC, idB, idA}} {
		list, err := s.List(limit)
		if diff := cmp.Diff(want, ids(list)); diff != "" || err != nil {
			t.Errorf("List(%d): %v\n%s", limit, err, diff)
		}
	}
}

func TestResolve(t *testing.T) {
	s := openStore(t)
	if _, err := s.Resolve("last"); !errors.Is(err, ErrNotFound) {
		t.Errorf("last of nothing: %v", err)
	}
	for _, id := range []ID{idA, idB, idC} {
		create(t, s, id)
	}
	for name, want := range map[string]ID{"last": idC, string(idA): idA, "20261124": idC, "20261123-152241": idB} {
		if r, err := s.Resolve(name); err != nil || r.ID != want {
			t.Errorf("Resolve(%q) = %v, %v; want %s", name, r, err, want)
		}
	}
	for _, name := range []string{"", "x", "../" + string(idA), string(idA) + "/..", "LAST", string(idA) + "0"} {
		if r, err := s.Resolve(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("Resolve(%q) = %v, %v; want ErrNotFound", name, r, err)
		}
	}
	_, err := s.Resolve("20261123")
	ambiguous, ok := errors.AsType[*AmbiguousError](err)
	if !ok || !slices.Equal(ambiguous.Candidates, []ID{idB, idA}) || ambiguous.Total != 2 {
		t.Errorf("Resolve of a common prefix: %v", err)
	}
}

func TestAmbiguousIsBounded(t *testing.T) {
	s := openStore(t)
	for i := range 15 {
		create(t, s, ID(fmt.Sprintf("20261123-1522%02d-aaaaaa", i)))
	}
	_, err := s.Resolve("2")
	ambiguous, ok := errors.AsType[*AmbiguousError](err)
	if !ok || len(ambiguous.Candidates) != 10 || !strings.HasSuffix(err.Error(), "and 5 more") {
		t.Errorf("error %v", err)
	}
}

// However Create, Finish and State interleave, a run that lives or ended is never taken for dead.
func TestLiveRunIsNeverInterrupted(t *testing.T) {
	s := openStore(t)
	stop := make(chan struct{})
	var watchers sync.WaitGroup
	for range 2 {
		watchers.Go(func() { watch(t, s, stop) })
	}
	for i := range 100 {
		id := ID(fmt.Sprintf("20261123-15%02d%02d-aaaaaa", i/60, i%60))
		if i%2 == 0 {
			finish(t, s, id)
		} else {
			create(t, s, id)
		}
	}
	close(stop)
	watchers.Wait()
}

func watch(t *testing.T, s *Store, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		list, err := s.List(3)
		if err != nil {
			t.Error(err)
			return
		}
		for _, r := range list {
			if state, err := r.State(); err != nil || state == Interrupted {
				t.Errorf("run %s: %q, %v", r.ID, state, err)
			}
		}
	}
}

func TestStoreLockIsBounded(t *testing.T) {
	s := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := s.locked(exclusive, func() error {
			_, err := s.Create(idA)
			return err
		})
		if waited := time.Since(start); !errors.Is(err, ErrBusy) || waited < busyLimit || waited > 2*busyLimit {
			t.Errorf("Create with the store locked: %v after %v, want ErrBusy", err, waited)
		}
	})
}

// Claim: Resolve gives runs of the store, and only those that begin with the name.
func FuzzResolve(f *testing.F) {
	s := openStore(f)
	for _, id := range []ID{idA, idB, idC} {
		create(f, s, id)
	}
	for _, name := range []string{"last", "2", "../x", string(idA), "20261123"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		r, err := s.Resolve(name)
		if (r == nil) == (err == nil) {
			t.Fatalf("Resolve(%q) = %v, %v", name, r, err)
		}
		if r != nil && name != "last" && !strings.HasPrefix(string(r.ID), name) {
			t.Fatalf("Resolve(%q) = %s", name, r.ID)
		}
		if r != nil && !slices.Contains([]ID{idA, idB, idC}, r.ID) {
			t.Fatalf("Resolve(%q) = %s", name, r.ID)
		}
	})
}
