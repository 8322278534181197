package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sync/errgroup"
)

// atOnce is how many files are moved or removed at the same time. Each waits for the filesystem's journal, not for a
// processor, and one after the other they would wait as often as there are files.
const atOnce = 16

// keep puts the new contents into the blob store. What the agent wrote is moved there from upper/; what it only moved
// about is copied, where the name alone does not tell.
func (w *layers) keep(changes []Change) error {
	if err := w.state.Mkdir(BlobsDir, 0o700); ignore(err, fs.ErrExist) != nil {
		return err
	}
	blobs, err := w.state.OpenRoot(BlobsDir)
	if err != nil {
		return err
	}
	defer blobs.Close()
	var moves errgroup.Group
	moves.SetLimit(atOnce)
	mine, err := w.toMove(changes)
	for group := range neighbours(mine, func(c *Change) (*os.Root, string) { return w.state, path.Dir(c.Path) }) {
		moves.Go(func() error { return w.adopt(group, blobs) })
	}
	return errors.Join(err, moves.Wait())
}

// toMove are the changes whose contents are in upper/, one for each content; the others are copied.
func (w *layers) toMove(changes []Change) (mine []*Change, err error) {
	seen := make(map[string]bool)
	for i := range changes {
		c := &changes[i]
		if !c.needsBlob() {
			continue
		}
		if origin := w.delta.entries[c.Path].origin; origin != "" {
			err = errors.Join(err, w.copyOrigin(c, origin))
		} else if !seen[c.New.SHA256] {
			seen[c.New.SHA256] = true
			mine = append(mine, c)
		}
	}
	return mine, err
}

// needsBlob reports whether the content after the change is not what the host has under the old name.
func (c *Change) needsBlob() bool {
	return c.New != nil && c.New.Type == File && (c.Old == nil || c.Old.SHA256 != c.New.SHA256)
}

// adopt moves files of one directory from upper/ into the blob store, under digests that were just taken. Nothing is copied: both are on
// one filesystem.
func (w *layers) adopt(group []*Change, blobs *os.Root) error {
	move, err := moverFrom(w.state, path.Join("upper", path.Dir(group[0].Path)), BlobsDir)
	if err != nil {
		return err
	}
	defer move.close()
	for _, c := range group {
		blob := c.New.SHA256
		if err := move.file(path.Base(c.Path), blob); err != nil {
			return err
		}
		// Other names of the file in upper/ change with it; their modes were read before.
		if err := blobs.Chmod(blob, 0o600); err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			continue
		}
		if err := blobs.Lchown(blob, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// copyOrigin stores a file of the project that the agent moved here while something else took its old place.
func (w *layers) copyOrigin(c *Change, origin string) error {
	if err := w.delta.spend(c.New.Size); err != nil {
		return err
	}
	return c.store(OpenBlobs(w.view.cfg.StateDir), w.lower, origin)
}
