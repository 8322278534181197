package workspace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/org/agent-sandbox/policy"
)

// Hide takes from the agent's sight what the policy hides, and returns those paths, sorted. It must have returned
// without an error before the container starts; creating the container meanwhile is fine in mode overlay and
// copy. It walks the whole project, the one step of the set-up that grows with it; in mode bind it reads every file
// too, for what will have changed is told from the digests.
func (v *View) Hide(ctx context.Context) ([]string, error) {
	switch v.Mode { // Prepare did it for these: the masks are among the mounts
	case policy.ModeReadonly:
		return v.hidden, nil
	case policy.ModeBind:
		before, err := v.scanProject(ctx, nil)
		if err != nil {
			return nil, err
		}
		v.index = before.found
		return v.hidden, nil
	}
	search := v.cfg.Search
	if search == nil {
		search = BeginSearch(ctx, v.cfg.Project, v.cfg.Hide, v.cfg.UID)
		defer search.Close()
	}
	matches, err := search.wait()
	if err != nil {
		return nil, err
	}
	hidden := paths(matches)
	if v.Mode == policy.ModeCopy {
		return hidden, nil // Pack leaves them out, and notes for itself what it left out
	}
	v.hidden = hidden
	return hidden, v.whiteOut(hidden)
}

// Search is a walk of a project for what a policy hides. It needs nothing but the project, so it can begin before there is a view.
type Search struct {
	cancel context.CancelFunc
	done   chan struct{}
	// What follows is written before done is closed.
	matches []match
	err     error
}

// BeginSearch starts the walk for a [Config] with the same project, Hide and UID. Whoever begins it closes it.
func BeginSearch(ctx context.Context, project string, hide Matcher, uid int) *Search {
	ctx, cancel := context.WithCancel(ctx)
	s := &Search{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.matches, s.err = findMatches(ctx, project, hide, uid)
	}()
	return s
}

func (s *Search) wait() ([]match, error) {
	<-s.done
	return s.matches, s.err
}

// Close ends the walk, if it has not ended, and waits for that. A nil Search is closed.
func (s *Search) Close() {
	if s != nil {
		s.cancel()
		<-s.done
	}
}

func paths(matches []match) []string {
	var all []string
	for _, m := range matches {
		all = append(all, m.path)
	}
	return all
}

// match is one path that a set of patterns takes in.
type match struct {
	path string
	typ  fs.FileMode // type bits
}

// findMatches walks the project and returns what m takes in, sorted by path. A directory that matches counts as a whole:
// nothing below it is looked at. No symlink is followed. It reads directories in parallel and no entry's inode
// unless the filesystem does not say in the directory what the entry is. A directory that can't be read is an
// error, for what would have matched there might be shown; it is left out only if agent is who runs this, and
// so can't read it either.
func findMatches(ctx context.Context, project string, m Matcher, agent int) ([]match, error) {
	root, err := os.OpenRoot(project)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	w := &finder{root: root, m: m, sameUser: agent == os.Geteuid(), queue: []string{"."}}
	w.wake.L = &w.mu
	stop := context.AfterFunc(ctx, func() { w.fail(ctx.Err()) })
	defer stop()
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 8) {
		wg.Go(w.run)
	}
	wg.Wait()
	if w.err != nil {
		return nil, fmt.Errorf("look for paths to hide or protect: %w", w.err)
	}
	slices.SortFunc(w.found, func(a, b match) int { return cmp.Compare(a.path, b.path) })
	return w.found, nil
}

// orSpecial matches, besides what its Matcher does, everything that is neither file, directory nor symlink.
type orSpecial struct{ Matcher }

func isSpecial(typ fs.FileMode) bool { return typ&^(fs.ModeDir|fs.ModeSymlink) != 0 }

// finder is a pool of workers over a stack of directories.
type finder struct {
	root     *os.Root
	m        Matcher
	sameUser bool
	failed   atomic.Bool // set with err, so that a worker in the middle of a directory sees it

	mu    sync.Mutex
	wake  sync.Cond
	queue []string // directories to read
	busy  int      // workers that may still add to queue
	found []match
	err   error // the first
}

func (w *finder) run() {
	d := dirReader{root: w.root}
	for {
		dir, ok := w.next()
		if !ok {
			return
		}
		found, dirs, err := w.scan(&d, dir)
		if err != nil && !w.harmless(err, dir) {
			w.fail(err)
		}
		w.done(found, dirs)
	}
}

// harmless knows a directory that is gone since its parent was read, and one that the agent can't read.
func (w *finder) harmless(err error, dir string) bool {
	return errors.Is(err, fs.ErrNotExist) && dir != "." || errors.Is(err, fs.ErrPermission) && w.sameUser
}

// next waits for a directory. It reports false when all have been read, or one failed.
func (w *finder) next() (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) == 0 && w.busy > 0 && w.err == nil {
		w.wake.Wait()
	}
	if len(w.queue) == 0 || w.err != nil {
		return "", false
	}
	dir := w.queue[len(w.queue)-1]
	w.queue = w.queue[:len(w.queue)-1]
	w.busy++
	return dir, true
}

func (w *finder) done(found []match, dirs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found = append(w.found, found...)
	w.queue = append(w.queue, dirs...)
	w.busy--
	w.wake.Broadcast()
}

func (w *finder) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.failed.Store(true)
	w.wake.Broadcast()
}

// scan reads one directory.
func (w *finder) scan(d *dirReader, dir string) (found []match, dirs []string, err error) {
	prefix := dir + "/"
	if dir == "." {
		prefix = ""
	}
	err = d.read(dir, func(name string, typ fs.FileMode) {
		if w.failed.Load() {
			return
		}
		path := prefix + name
		_, special := w.m.(orSpecial)
		switch {
		case w.m.MatchEntry(path, typ.IsDir()), special && isSpecial(typ):
			found = append(found, match{path, typ})
		case typ.IsDir():
			dirs = append(dirs, path)
		}
	})
	return found, dirs, err
}
