package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sync/errgroup"

	"github.com/org/agent-sandbox/policy"
)

// atOnce is how many files are removed at the same time. Each waits for the filesystem's journal, not for a
// processor, and one after the other they would wait as often as there are files.
const atOnce = 16

// taken is what an extraction has taken of upper/. Until the change set is on the disk all of it can be given back.
type taken struct {
	complete bool                   // it met no limit
	files    []string               // the regular files, in the order of their directories
	modes    map[string]fs.FileMode // what the agent gave to paths that had to be opened up to be read
}

// open lets a runner that isn't root into a directory of upper/ that the agent has closed.
func (t *taken) open(state *os.Root, at, p string) error {
	info, err := state.Lstat(at)
	if err != nil || info.Mode()&0o700 == 0o700 {
		return err
	}
	t.modes[p] = info.Mode()
	return state.Chmod(at, 0o700)
}

// keep puts the new contents into the blob store. What the agent only moved about is copied, where the name alone does not tell. What
// it wrote stays where it is in upper/, which becomes a part of the store: one rename, all or nothing, for any number of files.
func (w *layers) keep(changes []Change) error {
	if err := w.state.Mkdir(BlobsDir, 0o700); ignore(err, fs.ErrExist) != nil {
		return err
	}
	for i := range changes {
		c := &changes[i]
		if origin := w.delta.entries[c.Path].origin; c.needsBlob() && origin != "" {
			if err := w.copyOrigin(c, origin); err != nil {
				return err
			}
		}
	}
	return w.state.Rename("upper", upperBlobs)
}

// needsBlob reports whether the content after the change is not what the host has under the old name.
func (c *Change) needsBlob() bool {
	return c.New != nil && c.New.Type == File && (c.Old == nil || c.Old.SHA256 != c.New.SHA256)
}

// copyOrigin stores a file of the project that the agent moved here while something else took its old place.
func (w *layers) copyOrigin(c *Change, origin string) error {
	if err := w.delta.spend(c.New.Size); err != nil {
		return err
	}
	return c.store(OpenBlobs(w.view.cfg.StateDir), w.lower, origin)
}

// Settle removes what of upper/ no change of the extracted set needs, once that is saved: [View.Preserve] can give nothing back any more.
func (v *View) Settle(cs *ChangeSet) error {
	if v.Mode != policy.ModeOverlay {
		return nil
	}
	t := v.taken
	v.taken = nil
	if t == nil { // a process that died had extracted it: what it knew is gone, but for the change set
		t = &taken{complete: true, files: cs.newFiles()}
	}
	state, err := os.OpenRoot(v.cfg.StateDir)
	if err != nil {
		return err
	}
	defer state.Close()
	written := cs.written(t.files)
	if !t.complete {
		return errors.Join(keepEach(state, written), removeTree(path.Join(v.cfg.StateDir, upperBlobs)))
	}
	return errors.Join(disarm(state, written), removeRest(state, t.files, written))
}

// newFiles are the files that the change set has contents of.
func (cs *ChangeSet) newFiles() (files []string) {
	for i := range cs.Changes {
		if c := &cs.Changes[i]; c.needsBlob() {
			files = append(files, c.Path)
		}
	}
	return files
}

// written are the changes whose contents are among the files of upper/, by path.
func (cs *ChangeSet) written(files []string) map[string]*Change {
	there := make(map[string]bool, len(files))
	for _, p := range files {
		there[p] = true
	}
	written := make(map[string]*Change, len(files))
	for i := range cs.Changes {
		if c := &cs.Changes[i]; c.needsBlob() && there[c.Path] {
			written[c.Path] = c
		}
	}
	return written
}

// disarm takes the bits from files that would let them run as their owner. The change set has recorded them.
func disarm(state *os.Root, written map[string]*Change) error {
	for _, c := range written {
		if c.New.Mode&(fs.ModeSetuid|fs.ModeSetgid) == 0 {
			continue
		}
		if err := state.Chmod(path.Join(upperBlobs, c.Path), 0o600); ignore(err, fs.ErrNotExist) != nil {
			return err
		}
	}
	return nil
}

// removeRest removes what was in upper/ and is in no change: the overlay copies a file whole when its times or its mode are set, or its name.
func removeRest(state *os.Root, files []string, written map[string]*Change) error {
	var rest []string
	for _, p := range files {
		if written[p] == nil {
			rest = append(rest, p)
		}
	}
	var removals errgroup.Group
	removals.SetLimit(atOnce)
	for group := range neighbours(rest, func(p string) (*os.Root, string) { return state, path.Dir(p) }) {
		removals.Go(func() error { return removeFrom(state, path.Join(upperBlobs, path.Dir(group[0])), group) })
	}
	return removals.Wait()
}

func removeFrom(state *os.Root, dir string, files []string) error {
	at, err := state.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	for _, p := range files {
		if err := at.Remove(path.Base(p)); err != nil {
			return err
		}
	}
	return nil
}

// keepEach moves the files of a set that is not all: what is over the limits must not stay on the disk.
func keepEach(state *os.Root, written map[string]*Change) error {
	for _, c := range written {
		blob := path.Join(BlobsDir, c.New.SHA256)
		if err := state.Rename(path.Join(upperBlobs, c.Path), blob); err != nil {
			return err
		}
		if err := state.Chmod(blob, 0o600); err != nil {
			return err
		}
	}
	return nil
}
