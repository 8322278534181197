package workspace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
)

// Extract reads back what the agent changed, after it has stopped for good: nobody may write any more. New contents
// go to blobs/ in the run's state, except where only the name or the mode of a file changed: then the host has
// the content, at From or Path. Version, Base, Started, Changes, Git and the tier of changes at hidden paths are
// set; the rest is the caller's, who also has a Gate classify the set.
//
// With a *LimitError comes the part of the set that was read until then. In mode overlay upper/ becomes a part of the blob store;
// so Extract is called once.
func (v *View) Extract(ctx context.Context, from Sources) (*ChangeSet, error) {
	if v.extracted {
		return nil, errors.New("extract workspace: it was extracted already")
	}
	v.extracted = true
	var changes []Change
	var err error
	switch v.Mode {
	case policy.ModeReadonly: // nothing could be written
	case policy.ModeOverlay:
		changes, err = v.extractOverlay(ctx, from.Xattrs)
	case policy.ModeCopy:
		changes, err = v.extractCopy(ctx, from.Tar)
	case policy.ModeBind:
		changes, err = v.extractBind(ctx)
	default:
		err = fmt.Errorf("mode %q", v.Mode)
	}
	cs := &ChangeSet{Version: Version, Base: v.cfg.Project, Started: v.started, Changes: changes}
	cs.Sort()
	var over *LimitError
	if errors.As(err, &over) {
		err = fmt.Errorf("extract workspace: %w", err)
		if !from.Keep {
			err = errors.Join(err, v.Settle(cs))
		}
		return cs, err
	}
	if err != nil {
		return nil, fmt.Errorf("extract workspace: %w", err)
	}
	if from.Keep {
		return cs, nil
	}
	return cs, errors.Join(v.Settle(cs), v.Discard())
}

// Discard removes what the view keeps in the run's state besides the blobs, and closes it. The container must be
// gone. It may be called at any time after Prepare, and again. A *LeftoverError says that it needs a helper.
func (v *View) Discard() error {
	err := v.Close()
	if v.Mode != policy.ModeOverlay {
		return err
	}
	return errors.Join(err, removeTree(v.upper()), v.removeWork())
}

// LeftoverError says that a directory of the kernel's holds a file of root's that the runner's user may not remove. The
// helper that reads the attributes should empty it with ovl.Empty, see View.KernelDir.
type LeftoverError struct{ Dir string }

func (e *LeftoverError) Error() string {
	return fmt.Sprintf("%s holds what only root can remove\nhint: sudo rm -r %q", e.Dir, e.Dir)
}

// KernelDir is the directory that the kernel makes for itself in work/, and in which it leaves a whiteout of root's
// when the agent deleted anything. A runner that isn't root has it emptied (ovl.Empty) by a helper after the
// container has gone and before Extract ends, in Sources.Xattrs say. "" unless Mode is overlay.
func (v *View) KernelDir() string {
	if v.Mode != policy.ModeOverlay {
		return ""
	}
	return filepath.Join(v.work(), "work")
}

func (v *View) removeWork() error {
	err := os.Remove(v.KernelDir()) // takes no permission on it, if it is empty
	if err != nil && !errors.Is(err, fs.ErrNotExist) && os.Geteuid() != 0 {
		return &LeftoverError{v.KernelDir()}
	}
	return removeTree(v.work())
}

// entry is one path that may have changed: what the host has there, and what the agent left. A nil node is
// a path that does not exist. Digests of files are filled in later.
type entry struct {
	old, new    *Node
	origin      string // of new: the host's path that its content comes from; "" when the agent wrote it
	hostChanged bool
	reject      string // why it must not be applied; "" when the gate alone decides
}

// delta gathers entries within the limits.
type delta struct {
	limits  Limits
	hidden  []string // sorted
	entries map[string]*entry
	bytes   int64 // of new contents
}

func newDelta(v *View) *delta {
	return &delta{limits: v.cfg.Limits, hidden: v.hidden, entries: make(map[string]*entry)}
}

// at returns the entry of path, made if need be.
func (d *delta) at(path string) (*entry, error) {
	if e := d.entries[path]; e != nil {
		return e, nil
	}
	switch {
	case len(path) > maxPath:
		return nil, &LimitError{What: "bytes in a path", Limit: maxPath}
	case strings.Count(path, "/") >= d.limits.Depth:
		return nil, &LimitError{What: "directories above each other", Limit: int64(d.limits.Depth)}
	case len(d.entries) >= d.limits.Changes:
		return nil, &LimitError{What: "changes", Limit: int64(d.limits.Changes)}
	}
	e := &entry{}
	d.entries[path] = e
	return e, nil
}

// spend counts the bytes of new contents.
func (d *delta) spend(n int64) error {
	if n > d.limits.Bytes-d.bytes {
		return &LimitError{What: "bytes of new contents", Limit: d.limits.Bytes}
	}
	d.bytes += n
	return nil
}

// settle drops what turned out not to be changed, and gates what meets hidden paths.
func (d *delta) settle() {
	for path, e := range d.entries {
		if e.old.Equal(e.new) {
			delete(d.entries, path)
			continue
		}
		d.guardHidden(path, e)
	}
}

// guardHidden keeps apply away from files that the agent could not see.
func (d *delta) guardHidden(path string, e *entry) {
	switch {
	case d.isHidden(path):
		e.old = nil // no digest of a secret may get into the change set
		e.reject = "hidden from the agent: would overwrite what the host has there"
	case !d.holdsHidden(path):
	case e.new == nil:
		delete(d.entries, path) // on the host the directory is not empty, and stays
	case e.new.Type != Dir:
		e.reject = "hidden from the agent: would overwrite a directory with hidden files"
	}
}

// isHidden reports whether the agent could not see path because of what is hidden.
func (d *delta) isHidden(path string) bool { return isHidden(d.hidden, path) }

func isHidden(hidden []string, path string) bool {
	for {
		if _, found := slices.BinarySearch(hidden, path); found {
			return true
		}
		slash := strings.LastIndexByte(path, '/')
		if slash < 0 {
			return false
		}
		path = path[:slash]
	}
}

// holdsHidden reports whether something below path is hidden.
func (d *delta) holdsHidden(path string) bool {
	i, _ := slices.BinarySearch(d.hidden, path+"/")
	return i < len(d.hidden) && strings.HasPrefix(d.hidden[i], path+"/")
}

// changes turns the entries into changes. Deleted and added files with the same content become renames.
func (d *delta) changes() []Change {
	changes := make([]Change, 0, len(d.entries))
	for path, e := range d.entries {
		c := Change{Path: path, Kind: kindOf(e), Old: e.old, New: e.new, Git: inGit(path), HostChanged: e.hostChanged}
		if e.reject != "" {
			c.Tier, c.Reason = Reject, e.reject
		}
		changes = append(changes, c)
	}
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return findRenames(changes, func(path string) string { return d.entries[path].origin })
}

func kindOf(e *entry) Kind {
	switch {
	case e.old == nil:
		return Added
	case e.new == nil:
		return Deleted
	case e.old.Type == e.new.Type && e.old.SHA256 == e.new.SHA256:
		return Mode
	}
	return Modified
}

// nodeOf describes what info says, without a digest. Symlinks need their target still.
func nodeOf(info fs.FileInfo) *Node {
	n := &Node{Mode: info.Mode() & modeBits}
	switch info.Mode().Type() {
	case 0:
		n.Type, n.Size = File, info.Size()
	case fs.ModeDir:
		n.Type = Dir
	case fs.ModeSymlink:
		n.Type = Symlink
	default:
		n.Type = Other
	}
	return n
}

// readLink completes the node of a symlink.
func (n *Node) readLink(root *os.Root, path string) error {
	target, err := root.Readlink(path)
	if err != nil {
		return err
	}
	n.setTarget(target)
	return nil
}

func (n *Node) setTarget(target string) {
	n.Target, n.Size, n.SHA256 = target, int64(len(target)), hashString(target)
}

// changedSince reports whether the host's file was altered after the run started. The change time tells, which no
// tool can set back; the modification time is for filesystems without one.
func changedSince(info fs.FileInfo, start time.Time) bool {
	return statOf(info).ctime.After(start) || info.ModTime().After(start)
}
