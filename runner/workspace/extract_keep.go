package workspace

import (
	"io/fs"
	"os"
)

// keep puts the new contents into the blob store. What the agent wrote is moved there from upper/; what it only moved
// about is copied, where the name alone does not tell.
func (w *layers) keep(changes []Change) error {
	if err := w.state.Mkdir(BlobsDir, 0o700); ignore(err, fs.ErrExist) != nil {
		return err
	}
	for i := range changes {
		c := &changes[i]
		if !c.needsBlob() {
			continue
		}
		origin := w.delta.entries[c.Path].origin
		if origin == "" {
			if err := w.adopt(c); err != nil {
				return err
			}
		} else if err := w.copyOrigin(c, origin); err != nil {
			return err
		}
	}
	return nil
}

// needsBlob reports whether the content after the change is not what the host has under the old name.
func (c *Change) needsBlob() bool {
	return c.New != nil && c.New.Type == File && (c.Old == nil || c.Old.SHA256 != c.New.SHA256)
}

// adopt moves a file from upper/ into the blob store, under a digest that was just taken. Nothing is copied: both are on
// one filesystem.
func (w *layers) adopt(c *Change) error {
	if OpenBlobs(w.view.cfg.StateDir).Has(c.New.SHA256) {
		return nil
	}
	blob := BlobsDir + "/" + c.New.SHA256
	if err := w.state.Rename("upper/"+c.Path, blob); err != nil {
		return err
	}
	// Other names of the file in upper/ change with it; their modes were read before.
	if err := w.state.Chmod(blob, 0o600); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return w.state.Lchown(blob, 0, 0)
}

// copyOrigin stores a file of the project that the agent moved here while something else took its old place.
func (w *layers) copyOrigin(c *Change, origin string) error {
	if err := w.delta.spend(c.New.Size); err != nil {
		return err
	}
	return c.store(OpenBlobs(w.view.cfg.StateDir), w.lower, origin)
}
