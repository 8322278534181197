package workspace

import "path/filepath"

// The directories of an overlay in the run's state.
func (v *View) upper() string { return filepath.Join(v.cfg.StateDir, "upper") }
func (v *View) work() string  { return filepath.Join(v.cfg.StateDir, "work") }

// idSwap exchanges two users and two groups in what a mount shows: files of root appear as the agent's and
// the other way round. The zero value changes nothing.
type idSwap struct{ a, b IDs }

// of is what the owner of a file on the host appears as.
func (s idSwap) of(id IDs) IDs {
	return IDs{UID: swap(id.UID, s.a.UID, s.b.UID), GID: swap(id.GID, s.a.GID, s.b.GID)}
}

func swap(id, a, b int) int {
	switch id {
	case a:
		return b
	case b:
		return a
	}
	return id
}
