package rotate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/org/agent-sandbox/policy"
)

// phase is how far a rotation has come. Each is written down before what it names begins.
type phase string

// The phases, in their order.
const (
	creating phase = "creating" // the provider may have made a key whose id nobody knows
	created  phase = "created"  // there is a new key; nothing else has it
	storing  phase = "storing"  // some places may have it
	revoking phase = "revoking" // all places have it; the old key may be gone
	left     phase = "left"     // nothing is under way, and keys of earlier tries are to be revoked
)

// words say what a rotation was at.
func (p phase) words() string {
	switch p {
	case creating:
		return "making a new key"
	case created:
		return "trying the new key"
	case storing:
		return "storing the new key"
	case revoking:
		return "revoking the old key"
	}
	return "keys of it were still to be revoked"
}

// journal is a rotation that is not finished. Nothing in it is secret.
type journal struct {
	Credential string    `json:"credential"`
	Begun      time.Time `json:"begun"`
	Phase      phase     `json:"phase"`
	OldPrint   string    `json:"old_fingerprint"` // see Book.Fingerprint
	NewPrint   string    `json:"new_fingerprint,omitempty"`
	OldID      string    `json:"old_id,omitempty"`
	NewID      string    `json:"new_id,omitempty"`
	Orphans    []string  `json:"orphans,omitempty"` // ids of keys that earlier tries made: to be revoked
	Lost       int       `json:"lost,omitempty"`    // how many keys earlier tries may have made whose ids nobody knows
}

// journalName is the file of a credential's rotation.
func (cfg Config) journalName(c policy.Credential) string {
	sum := sha256.Sum256([]byte(cfg.Scope + "\x00" + c.Name))
	return "rotation-" + hex.EncodeToString(sum[:12])
}

// pending is the rotation of a credential that is not finished; nil if there is none.
func (cfg Config) pending(c policy.Credential) (*journal, error) {
	if cfg.Book == nil {
		return nil, nil
	}
	content, err := cfg.Book.read(cfg.journalName(c))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var j journal
	if err == nil {
		err = json.Unmarshal(content, &j)
	}
	if err == nil && !slices.Contains([]phase{creating, created, storing, revoking, left}, j.Phase) {
		err = fmt.Errorf("it has the unknown phase %q", j.Phase)
	}
	if err != nil {
		return nil, mend("see to the provider's keys yourself, then: credentials rotate "+c.Name+" --forget", "the record of a rotation of %s can't be read: %v", c.Name, err)
	}
	return &j, nil
}

// save writes the journal down: when it returns, it is on disk.
func (cfg Config) save(c policy.Credential, j *journal) error {
	content, err := json.Marshal(j)
	if err == nil {
		err = cfg.Book.replace(cfg.journalName(c), content)
	}
	if err == nil {
		err = cfg.Book.sync()
	}
	if err != nil {
		return fmt.Errorf("record the rotation of %s: %w", c.Name, err)
	}
	return nil
}

func (cfg Config) forget(c policy.Credential) error {
	if err := os.Remove(cfg.Book.path(cfg.journalName(c))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return cfg.Book.sync()
}

const lockName = "lock"

// lock lets one rotation at a time into the book. It ends with the process, however that dies.
func (b *Book) lock() (unlock func() error, err error) {
	f, err := os.OpenFile(b.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	free, err := lockFile(f)
	if err == nil && !free {
		err = mend("wait until it has ended", "another rotation is at work")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
