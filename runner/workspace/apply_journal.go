package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

const (
	journalVersion = 1
	journalFile    = "apply.journal"
	maxJournal     = 512 << 20
	oldSuffix      = ".old" // of a stage slot: the displaced node, where it could not be swapped
)

// The phases of a journal. Until committed, an interrupted apply is put back; from then on, it is tidied up.
const (
	phaseStaging    = "staging"
	phaseCommitting = "committing"
	phaseCommitted  = "committed"
)

// The operations of a step.
const (
	opPut     = "put"     // the slot's node moves to Path, where nothing is
	opReplace = "replace" // the slot's node and Path's change places
	opRemove  = "remove"  // Path's node moves to the slot
	opChmod   = "chmod"   // of a directory
)

// journal is what apply means to do, written before it does it. Which steps are done is seen from where
// their nodes are: the identities say which is which.
type journal struct {
	Version int
	Target  []byte // raw path
	Stage   string
	Phase   string
	Steps   []step
}

type step struct {
	Op            string
	Path          []byte // raw
	Slot          int
	ID            nodeID // of the staged node
	OldID         nodeID // of the node that it displaces
	Mode, OldMode uint32
}

// nodeID tells one node from another across renames. A directory's size and time change with its entries and
// are left out; where there are no inode numbers, size and time have to do.
type nodeID struct {
	Dev, Ino uint64
	Size     int64
	Time     int64 // of the last modification, in ns
	Type     fs.FileMode
}

func idOf(info fs.FileInfo) nodeID {
	st := statOf(info)
	id := nodeID{Dev: st.dev, Ino: st.ino, Type: info.Mode().Type()}
	if !info.IsDir() {
		id.Size, id.Time = info.Size(), info.ModTime().UnixNano()
	}
	return id
}

func slotPath(stage string, n int) string { return stage + "/" + strconv.Itoa(n) }

func journalPath(runDir string) string { return filepath.Join(runDir, journalFile) }

func (j *journal) save(runDir string) error {
	return writeFile(journalPath(runDir), func(w io.Writer) error { return json.NewEncoder(w).Encode(j) })
}

// loadJournal returns nil when there is none.
func loadJournal(runDir string) (*journal, error) {
	f, err := os.Open(journalPath(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxJournal))
	if err != nil {
		return nil, err
	}
	return decodeJournal(data)
}

func decodeJournal(data []byte) (*journal, error) {
	j := new(journal)
	if err := json.Unmarshal(data, j); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if j.Version != journalVersion || !validStageName(j.Stage) {
		return nil, fmt.Errorf("journal: version %d, stage %q", j.Version, j.Stage)
	}
	if j.Phase != phaseStaging && j.Phase != phaseCommitting && j.Phase != phaseCommitted {
		return nil, fmt.Errorf("journal: phase %q", j.Phase)
	}
	for _, s := range j.Steps {
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	return j, nil
}

func (s step) check() error {
	switch s.Op {
	case opPut, opReplace, opRemove, opChmod:
	default:
		return fmt.Errorf("operation %q", s.Op)
	}
	if s.Slot < 0 {
		return fmt.Errorf("slot %d", s.Slot)
	}
	return checkPath(string(s.Path))
}
