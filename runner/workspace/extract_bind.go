package workspace

import (
	"context"
	"errors"
	"os"
)

// extractBind compares the project with what it was at the start. What people changed on the host meanwhile
// can't be told from what the agent did. New contents are copied; old ones were not kept.
func (v *View) extractBind(ctx context.Context) ([]Change, error) {
	if v.index == nil {
		return nil, errors.New("bind: Hide was not called before the start")
	}
	after, err := v.scanProject(ctx, v.index)
	if err != nil {
		return nil, err
	}
	d := newDelta(v)
	over := d.compare(v.index, after.found, after.unread) // a *LimitError: what was found until then is shown
	d.settle()
	changes := d.changes()
	return changes, errors.Join(over, v.keepFromProject(d, changes))
}

// compare makes entries for what differs between two indexes. unread says which paths of the second are unknown.
func (d *delta) compare(before, after index, unread func(string) bool) error {
	for path, was := range before {
		if is := after[path]; is == nil && !unread(path) {
			e, err := d.at(path)
			if err != nil {
				return err
			}
			e.old = &was.Node
		}
	}
	for path, is := range after {
		was := before[path]
		if was != nil && was.Node.Equal(&is.Node) {
			continue
		}
		e, err := d.at(path)
		if err != nil {
			return err
		}
		if e.new = &is.Node; was != nil {
			e.old = &was.Node
		}
	}
	return nil
}

// keepFromProject copies new contents from the host.
func (v *View) keepFromProject(d *delta, changes []Change) error {
	root, err := os.OpenRoot(v.cfg.Project)
	if err != nil {
		return err
	}
	defer root.Close()
	for i := range changes {
		c := &changes[i]
		if !c.needsBlob() {
			continue
		}
		if err := d.spend(c.New.Size); err != nil {
			return err
		}
		if err := c.store(OpenBlobs(v.cfg.StateDir), root, c.Path); err != nil {
			return err
		}
	}
	return nil
}

// store copies the new content of a change from a file of the host. If the file is another by now, the change is
// recorded without its content.
func (c *Change) store(blobs Blobs, root *os.Root, path string) error {
	f, err := openRegular(root, path)
	if err == nil {
		var sum string
		sum, _, err = blobs.Put(f)
		f.Close()
		if err == nil && sum == c.New.SHA256 {
			return nil
		}
	}
	if err != nil && !unreachable(err) {
		return err
	}
	c.HostChanged, c.Tier, c.Reason = true, Reject, "the host's file changed while it was read"
	c.New = &Node{Type: Other, Mode: c.New.Mode}
	return nil
}
