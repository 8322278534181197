package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sync/errgroup"
)

// atOnce is how many files are removed at the same time. Each waits for the filesystem's journal, not for a
// processor, and one after the other they would wait as often as there are files.
const atOnce = 16

// keep puts the new contents into the blob store. What the agent only moved about is copied, where the name alone does not tell. What
// it wrote stays where it is in upper/, which becomes a part of the store: one rename, all or nothing, for any number of files.
func (w *layers) keep(changes []Change, complete bool) error {
	if err := w.state.Mkdir(BlobsDir, 0o700); ignore(err, fs.ErrExist) != nil {
		return err
	}
	written, err := w.keepMoved(changes)
	if err != nil {
		return err
	}
	if !complete {
		return w.keepEach(written)
	}
	if err := errors.Join(w.disarm(written), w.removeRest(written)); err != nil {
		return err
	}
	return w.state.Rename("upper", upperBlobs)
}

// keepMoved copies the contents of the project that a change needs, and returns the changes whose contents are in upper/.
func (w *layers) keepMoved(changes []Change) (written []*Change, err error) {
	for i := range changes {
		c := &changes[i]
		if !c.needsBlob() {
			continue
		}
		if origin := w.delta.entries[c.Path].origin; origin != "" {
			err = errors.Join(err, w.copyOrigin(c, origin))
		} else {
			written = append(written, c)
		}
	}
	return written, err
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

// disarm takes the bits from files that would let them run as their owner. The change set has recorded them.
func (w *layers) disarm(written []*Change) error {
	for _, c := range written {
		if c.New.Mode&(fs.ModeSetuid|fs.ModeSetgid) == 0 {
			continue
		}
		if err := w.state.Chmod("upper/"+c.Path, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// removeRest removes what is in upper/ and in no change: the overlay copies a file whole when its times or its mode are set, or its name.
func (w *layers) removeRest(written []*Change) error {
	needed := make(map[string]bool, len(written))
	for _, c := range written {
		needed[c.Path] = true
	}
	var rest []string
	for _, p := range w.files {
		if !needed[p] {
			rest = append(rest, p)
		}
	}
	var removals errgroup.Group
	removals.SetLimit(atOnce)
	for group := range neighbours(rest, func(p string) (*os.Root, string) { return w.state, path.Dir(p) }) {
		removals.Go(func() error { return w.removeFrom("upper/"+path.Dir(group[0]), group) })
	}
	return removals.Wait()
}

func (w *layers) removeFrom(dir string, files []string) error {
	at, err := w.state.OpenRoot(dir)
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

// keepEach moves the files one by one, and leaves the rest in upper/ to be removed: what is over the limits must not stay on the disk.
func (w *layers) keepEach(written []*Change) error {
	for _, c := range written {
		blob := path.Join(BlobsDir, c.New.SHA256)
		if err := w.state.Rename("upper/"+c.Path, blob); err != nil {
			return err
		}
		if err := w.state.Chmod(blob, 0o600); err != nil {
			return err
		}
	}
	return nil
}
