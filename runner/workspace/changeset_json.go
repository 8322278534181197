package workspace

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The JSON of changes.json is also what `diff --json` prints: a contract, to which fields are only added.

type changeSetJSON struct {
	Version         int       `json:"version"`
	Run             string    `json:"run,omitempty"`
	Base            string    `json:"base"`
	BaseB64         string    `json:"base_b64,omitempty"`
	Commit          string    `json:"commit,omitempty"`
	Head            string    `json:"head,omitempty"`
	Started         time.Time `json:"started"`
	PatchIncomplete bool      `json:"patch_incomplete,omitempty"`
	Changes         []Change  `json:"changes"`
}

type changeJSON struct {
	Path        string    `json:"path"`
	PathB64     string    `json:"path_b64,omitempty"`
	From        string    `json:"from,omitempty"`
	FromB64     string    `json:"from_b64,omitempty"`
	Kind        Kind      `json:"kind"`
	Old         *nodeJSON `json:"old,omitempty"`
	New         *nodeJSON `json:"new,omitempty"`
	Tier        Tier      `json:"tier,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Git         bool      `json:"git,omitempty"`
	Omitted     string    `json:"omitted,omitempty"`
	HostChanged bool      `json:"host_changed,omitempty"`
}

type nodeJSON struct {
	Type      NodeType `json:"type"`
	Mode      string   `json:"mode"` // octal, as chmod takes it: "0644", "4755"
	Size      int64    `json:"size"`
	SHA256    string   `json:"sha256,omitempty"`
	Target    string   `json:"target,omitempty"`
	TargetB64 string   `json:"target_b64,omitempty"`
}

// MarshalJSON implements json.Marshaler. It sets no order: Save refuses a set that is not sorted.
func (cs *ChangeSet) MarshalJSON() ([]byte, error) {
	v := changeSetJSON{
		Version: cs.Version, Run: cs.Run, Commit: cs.Commit, Head: cs.Head, Started: cs.Started.UTC(),
		PatchIncomplete: cs.PatchIncomplete, Changes: cs.Changes,
	}
	if v.Changes == nil {
		v.Changes = []Change{}
	}
	v.Base, v.BaseB64 = splitRaw(cs.Base)
	return json.Marshal(v)
}

// UnmarshalJSON implements json.Unmarshaler.
func (cs *ChangeSet) UnmarshalJSON(data []byte) error {
	var v changeSetJSON
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	base, err := joinRaw(v.Base, v.BaseB64)
	if len(v.Changes) == 0 {
		v.Changes = nil // one value for no changes
	}
	*cs = ChangeSet{
		Version: v.Version, Run: v.Run, Base: base, Commit: v.Commit, Head: v.Head, Started: v.Started,
		PatchIncomplete: v.PatchIncomplete, Changes: v.Changes,
	}
	return err
}

// MarshalJSON implements json.Marshaler.
func (c Change) MarshalJSON() ([]byte, error) { return json.Marshal(c.forJSON()) }

// forJSON has no marshaler in it: package json reads over what one gives again, level by level.
func (c *Change) forJSON() *changeJSON {
	v := changeJSON{
		Kind: c.Kind, Old: c.Old.forJSON(), New: c.New.forJSON(), Tier: c.Tier, Reason: c.Reason, Git: c.Git,
		Omitted: c.Omitted, HostChanged: c.HostChanged,
	}
	v.Path, v.PathB64 = splitRaw(c.Path)
	v.From, v.FromB64 = splitRaw(c.From)
	return &v
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *Change) UnmarshalJSON(data []byte) error {
	var v changeJSON
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	path, errPath := joinRaw(v.Path, v.PathB64)
	from, errFrom := joinRaw(v.From, v.FromB64)
	before, errOld := v.Old.node()
	after, errNew := v.New.node()
	*c = Change{
		Path: path, From: from, Kind: v.Kind, Old: before, New: after, Tier: v.Tier, Reason: v.Reason,
		Git: v.Git, Omitted: v.Omitted, HostChanged: v.HostChanged,
	}
	return errors.Join(errPath, errFrom, errOld, errNew)
}

// MarshalJSON implements json.Marshaler.
func (n Node) MarshalJSON() ([]byte, error) { return json.Marshal(n.forJSON()) }

func (n *Node) forJSON() *nodeJSON {
	if n == nil {
		return nil
	}
	v := nodeJSON{Type: n.Type, Mode: fmt.Sprintf("%04o", unixMode(n.Mode)), Size: n.Size, SHA256: n.SHA256}
	v.Target, v.TargetB64 = splitRaw(n.Target)
	return &v
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *Node) UnmarshalJSON(data []byte) error {
	var v nodeJSON
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	node, err := v.node()
	if err != nil {
		return err
	}
	*n = *node
	return nil
}

func (v *nodeJSON) node() (*Node, error) {
	if v == nil {
		return nil, nil
	}
	mode, err := strconv.ParseUint(v.Mode, 8, 12)
	if err != nil {
		return nil, fmt.Errorf("mode %q: not four octal digits", v.Mode)
	}
	target, err := joinRaw(v.Target, v.TargetB64)
	if err != nil {
		return nil, err
	}
	return &Node{Type: v.Type, Mode: goMode(uint32(mode)), Size: v.Size, SHA256: v.SHA256, Target: target}, nil
}

// splitRaw gives the two fields that hold a string of arbitrary bytes in JSON: what a person reads, and
// base64 of the bytes only when the first cannot hold them.
func splitRaw(s string) (text, b64 string) {
	if utf8.ValidString(s) {
		return s, ""
	}
	return strings.ToValidUTF8(s, "\uFFFD"), base64.StdEncoding.EncodeToString([]byte(s))
}

// joinRaw undoes splitRaw. Base64 of valid UTF-8 is refused, and text that is not its rendering too: there
// is one way to write a path, so nobody is shown another one than is used.
func joinRaw(text, b64 string) (string, error) {
	if b64 == "" {
		return text, nil
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(b64)
	if err != nil {
		return "", fmt.Errorf("base64 of %q: %w", text, err)
	}
	if t, b := splitRaw(string(raw)); t != text || b != b64 {
		return "", fmt.Errorf("base64 of %q does not say the same", text)
	}
	return string(raw), nil
}

// unixMode gives the permission bits as chmod(2) takes them.
func unixMode(m fs.FileMode) uint32 {
	u := uint32(m.Perm())
	for _, b := range modePairs() {
		if m&b.goBit != 0 {
			u |= b.unixBit
		}
	}
	return u
}

// goMode undoes unixMode.
func goMode(u uint32) fs.FileMode {
	m := fs.FileMode(u) & fs.ModePerm
	for _, b := range modePairs() {
		if u&b.unixBit != 0 {
			m |= b.goBit
		}
	}
	return m
}

type modePair struct {
	goBit   fs.FileMode
	unixBit uint32
}

func modePairs() [3]modePair {
	return [3]modePair{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}}
}
