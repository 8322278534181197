package workspace

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Version is the schema version of changes.json. A file with another version is refused by Load.
const Version = 1

// Bounds of a change set, so that neither an agent that makes a million files nor a damaged
// changes.json takes the runner's memory. Save and Load refuse what is over them.
const (
	MaxChanges      = 500_000   // entries
	maxChangesBytes = 512 << 20 // length of changes.json
)

// File names inside the run directory.
const (
	ChangesFile = "changes.json"  // the ChangeSet, mode 0600
	PatchFile   = "changes.patch" // the git-format patch, mode 0600
	BlobsDir    = "blobs"         // new file contents, one file per SHA-256
)

// Kind says what happened to a path.
type Kind string

// The kinds of change. Which nodes each has:
//
//	added     Old nil, New set
//	modified  both set; content, symlink target or type differ (a file that became a directory is modified)
//	deleted   Old set, New nil
//	renamed   both set; Old is the node that was at From; Path did not exist before; never a directory
//	mode      both set; only the permission bits differ
const (
	Added    Kind = "added"
	Modified Kind = "modified"
	Deleted  Kind = "deleted"
	Renamed  Kind = "renamed"
	Mode     Kind = "mode"
)

// NodeType is what a path is.
type NodeType string

// The node types. Other is a FIFO, socket or device: recorded, never applied.
const (
	File    NodeType = "file"
	Symlink NodeType = "symlink"
	Dir     NodeType = "dir"
	Other   NodeType = "other"
)

// Tier says how a change is gated. The zero value is a change that nobody need be warned of.
type Tier string

// The tiers. Warn is shown before apply; Reject is not applied unless named with --allow-protected.
const (
	NoTier Tier = ""
	Warn   Tier = "warn"
	Reject Tier = "reject"
)

// Node is the state of a path at one time.
type Node struct {
	Type   NodeType
	Mode   fs.FileMode // permission bits and ModeSetuid, ModeSetgid, ModeSticky, as found; 0 or 0777 for a symlink
	Size   int64       // bytes of a file or of a symlink's target; 0 for the others
	SHA256 string      // lower-case hex: of a file's content, of a symlink's target; "" for the others
	Target string      // of a symlink, raw bytes
}

// Change is one altered path.
type Change struct {
	Path    string // slash-separated, relative to the project, clean, raw bytes (may be invalid UTF-8)
	From    string // the source of a rename; gone afterwards, so never the Path of another Change
	Kind    Kind
	Old     *Node
	New     *Node
	Tier    Tier
	Reason  string // why it has that tier, for people
	Git     bool   // inside a .git directory (or a name that some filesystem takes for one): never in diff, patch or apply unless named
	Omitted string // why the patch lacks it, "" when it does not

	// HostChanged means that the host's file changed between the start of the run and the extraction,
	// so that the agent may not have seen what is recorded as Old. Applying it is a conflict.
	HostChanged bool
}

// ChangeSet is everything that an agent altered in a project.
type ChangeSet struct {
	Version int       // Version
	Run     string    // id of the run
	Base    string    // absolute path of the project on the host
	Commit  string    // the project's HEAD commit when the run started, hex; "" when there was none
	Head    string    // what HEAD named then, such as refs/heads/main; "" when detached or none
	Started time.Time // of the run
	Changes []Change  // sorted by Path, bytewise, no path twice

	// PatchIncomplete is set when changes.patch lacks a change that belongs in it; Change.Omitted says which.
	PatchIncomplete bool
}

// Counts sums a change set up. A change in .git counts in Git alone, a directory in Dirs alone.
type Counts struct {
	Added, Modified, Deleted, Renamed, Mode int // files, symlinks and others outside .git
	Dirs, Git                               int
	Warn, Reject                            int // of all changes
}

// Sort puts the changes into the order that Save and Find need.
func (cs *ChangeSet) Sort() {
	slices.SortFunc(cs.Changes, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
}

// Find returns the change of path, or nil. Changes must be sorted.
func (cs *ChangeSet) Find(path string) *Change {
	i, ok := slices.BinarySearchFunc(cs.Changes, path, func(c Change, p string) int { return cmp.Compare(c.Path, p) })
	if !ok {
		return nil
	}
	return &cs.Changes[i]
}

// Counts sums the changes up.
func (cs *ChangeSet) Counts() Counts {
	var n Counts
	for i := range cs.Changes {
		n.add(&cs.Changes[i])
	}
	return n
}

func (n *Counts) add(c *Change) {
	switch c.Tier {
	case Warn:
		n.Warn++
	case Reject:
		n.Reject++
	}
	if c.Git {
		n.Git++
		return
	}
	if c.IsDir() {
		n.Dirs++
		return
	}
	switch c.Kind {
	case Added:
		n.Added++
	case Modified:
		n.Modified++
	case Deleted:
		n.Deleted++
	case Renamed:
		n.Renamed++
	case Mode:
		n.Mode++
	}
}

// IsDir reports whether the change is one of a directory alone: made, removed or its mode changed.
func (c *Change) IsDir() bool {
	return (c.Old == nil || c.Old.Type == Dir) && (c.New == nil || c.New.Type == Dir)
}

// Equal reports whether two nodes are the same as far as a change set can tell. A nil node is a path
// that does not exist. The mode of a symlink means nothing and is not compared.
func (n *Node) Equal(o *Node) bool {
	if n == nil || o == nil {
		return n == o
	}
	if n.Type != o.Type || n.SHA256 != o.SHA256 || n.Target != o.Target {
		return false
	}
	return n.Type == Symlink || n.Mode == o.Mode
}

// encode writes the canonical form: the JSON of the set, with each change on a line of its own. It goes a batch at
// a time, so that a large set is not in memory twice.
func (cs *ChangeSet) encode(w io.Writer) error {
	head := *cs
	head.Changes = nil
	data, err := json.Marshal(&head)
	if err != nil {
		return fmt.Errorf("encode change set: %w", err)
	}
	out := bufio.NewWriter(w)
	out.Write(bytes.TrimSuffix(data, []byte("]}")))
	first := true
	err = inTurn(slices.Chunk(cs.Changes, encodeBatch), encodeLines, func(l lines) error {
		if l.err == nil && !first {
			out.WriteByte(',')
		}
		first = false
		out.Write(l.text)
		return l.err
	})
	if err != nil {
		return fmt.Errorf("encode change set: %w", err)
	}
	out.WriteString("]}\n")
	return out.Flush()
}

// Write writes the change set as Save does.
func (cs *ChangeSet) Write(w io.Writer) error { return cs.encode(w) }

// encodeBatch is how many changes are encoded at once.
const encodeBatch = 256

// lines are changes in the canonical form, with commas between them, or why they have none.
type lines struct {
	text []byte
	err  error
}

func encodeLines(changes []Change) lines {
	var text bytes.Buffer
	for i := range changes {
		data, err := json.Marshal(changes[i].forJSON())
		if err != nil {
			return lines{err: err}
		}
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteByte('\n')
		text.Write(data)
	}
	return lines{text: text.Bytes()}
}

// Save checks the change set and writes it to dir/changes.json (mode 0600), all or nothing.
func (cs *ChangeSet) Save(dir string) error {
	if err := cs.check(); err != nil {
		return fmt.Errorf("save change set: %w", err)
	}
	return writeFile(filepath.Join(dir, ChangesFile), cs.encode)
}

// writeFile puts what fill writes at path, through a new file beside it and a rename.
func writeFile(path string, fill func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // O_EXCL, 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Load reads dir/changes.json and checks it: version, bounds, order, every path, every digest's form.
// It returns fs.ErrNotExist, wrapped, when the run left no change set.
func Load(dir string) (*ChangeSet, error) {
	f, err := os.Open(filepath.Join(dir, ChangesFile))
	if err != nil {
		return nil, fmt.Errorf("load change set: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxChangesBytes+1))
	if err != nil {
		return nil, fmt.Errorf("load change set: %w", err)
	}
	cs, err := decodeChangeSet(data)
	if err != nil {
		return nil, fmt.Errorf("load change set %s: %w", f.Name(), err)
	}
	return cs, nil
}

func decodeChangeSet(data []byte) (*ChangeSet, error) {
	if len(data) > maxChangesBytes {
		return nil, fmt.Errorf("longer than %d bytes", maxChangesBytes)
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	if v.Version != Version {
		return nil, fmt.Errorf("schema version %d, this program knows %d", v.Version, Version)
	}
	cs := new(ChangeSet)
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(cs); err != nil {
		return nil, err
	}
	return cs, cs.check()
}
