package workspace

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// check holds the rules that every change set obeys, whoever made it.
func (cs *ChangeSet) check() error {
	if cs.Version != Version {
		return fmt.Errorf("schema version %d, want %d", cs.Version, Version)
	}
	if len(cs.Changes) > MaxChanges {
		return fmt.Errorf("%d changes, more than %d", len(cs.Changes), MaxChanges)
	}
	for i := range cs.Changes {
		c := &cs.Changes[i]
		if err := c.check(); err != nil {
			return fmt.Errorf("change %q: %w", c.Path, err)
		}
		if i > 0 && cs.Changes[i-1].Path >= c.Path {
			return fmt.Errorf("change %q: out of order or twice", c.Path)
		}
	}
	for i := range cs.Changes {
		if from := cs.Changes[i].From; from != "" && cs.Find(from) != nil {
			return fmt.Errorf("change %q: renamed from %q, which has a change of its own", cs.Changes[i].Path, from)
		}
	}
	return nil
}

func (c *Change) check() error {
	if err := checkPath(c.Path); err != nil {
		return err
	}
	if err := c.checkKind(); err != nil {
		return err
	}
	if c.Tier != NoTier && c.Tier != Warn && c.Tier != Reject {
		return fmt.Errorf("unknown tier %q", c.Tier)
	}
	return errors.Join(c.Old.check(), c.New.check())
}

func (c *Change) checkKind() error {
	wantOld, wantNew := c.Kind != Added, c.Kind != Deleted
	if (c.Old != nil) != wantOld || (c.New != nil) != wantNew {
		return fmt.Errorf("kind %q with old=%t new=%t", c.Kind, c.Old != nil, c.New != nil)
	}
	if (c.From != "") != (c.Kind == Renamed) {
		return fmt.Errorf("kind %q with from=%q", c.Kind, c.From)
	}
	switch c.Kind {
	case Added, Deleted, Modified:
		return nil
	case Renamed:
		if c.Old.Type == Dir || c.New.Type == Dir {
			return errors.New("a directory as renamed")
		}
		return checkPath(c.From)
	case Mode:
		if c.Old.Type != c.New.Type || c.Old.SHA256 != c.New.SHA256 {
			return errors.New("kind \"mode\" but the content differs")
		}
		return nil
	}
	return fmt.Errorf("unknown kind %q", c.Kind)
}

const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

func (n *Node) check() error {
	if n == nil {
		return nil
	}
	if n.Mode&^modeBits != 0 || n.Size < 0 {
		return fmt.Errorf("mode %v or size %d out of range", n.Mode, n.Size)
	}
	switch n.Type {
	case File:
		if !validSHA256(n.SHA256) || n.Target != "" {
			return fmt.Errorf("file with digest %q and target %q", n.SHA256, n.Target)
		}
	case Symlink:
		if n.Target == "" || len(n.Target) > maxPath || strings.Contains(n.Target, "\x00") || n.SHA256 != hashString(n.Target) {
			return fmt.Errorf("symlink with target %q and digest %q", n.Target, n.SHA256)
		}
	case Dir, Other:
		if n.SHA256 != "" || n.Target != "" {
			return fmt.Errorf("%s with digest %q and target %q", n.Type, n.SHA256, n.Target)
		}
	default:
		return fmt.Errorf("unknown node type %q", n.Type)
	}
	return nil
}

// Limits of Linux (NAME_MAX, PATH_MAX), which no project can exceed.
const (
	maxName = 255
	maxPath = 4096
)

// checkPath says whether a path may be in a change set: relative, clean, nothing that climbs.
func checkPath(p string) error {
	if p == "" || len(p) > maxPath || strings.Contains(p, "\x00") {
		return fmt.Errorf("path %q: empty, too long or with NUL", p)
	}
	for name := range strings.SplitSeq(p, "/") {
		if name == "" || name == "." || name == ".." || len(name) > maxName {
			return fmt.Errorf("path %q: not relative and clean", p)
		}
	}
	return nil
}

func validSHA256(s string) bool {
	return len(s) == 2*sha256.Size && isHex(s)
}

// isHex takes lower case only: one content, one name.
func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == "" && s != ""
}

func hashString(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
