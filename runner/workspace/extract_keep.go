package workspace

import (
	"errors"
	"io/fs"
	"os"

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
	for i := range changes {
		c := &changes[i]
		if !c.needsBlob() {
			continue
		}
		origin := w.delta.entries[c.Path].origin
		if origin == "" {
			moves.Go(func() error { return w.adopt(c, blobs) })
		} else if err := w.copyOrigin(c, origin); err != nil {
			return errors.Join(err, moves.Wait())
		}
	}
	return moves.Wait()
}

// needsBlob reports whether the content after the change is not what the host has under the old name.
func (c *Change) needsBlob() bool {
	return c.New != nil && c.New.Type == File && (c.Old == nil || c.Old.SHA256 != c.New.SHA256)
}

// adopt moves a file from upper/ into the blob store, under a digest that was just taken. Nothing is copied: both are on
// one filesystem. Of two files with the same content, moved at once, either stays.
func (w *layers) adopt(c *Change, blobs *os.Root) error {
	blob := c.New.SHA256
	if _, err := blobs.Lstat(blob); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := w.state.Rename("upper/"+c.Path, BlobsDir+"/"+blob); err != nil {
		return err
	}
	// Other names of the file in upper/ change with it; their modes were read before.
	if err := blobs.Chmod(blob, 0o600); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return blobs.Lchown(blob, 0, 0)
}

// copyOrigin stores a file of the project that the agent moved here while something else took its old place.
func (w *layers) copyOrigin(c *Change, origin string) error {
	if err := w.delta.spend(c.New.Size); err != nil {
		return err
	}
	return c.store(OpenBlobs(w.view.cfg.StateDir), w.lower, origin)
}
