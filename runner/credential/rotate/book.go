package rotate

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/runner/secret"
)

// Book is what this machine knows of secrets, by a fingerprint that is keyed with a random number of this machine: nobody can look for a
// value in a copy of it. It is a directory for the owner alone with a file for each secret, so that several processes can use it.
type Book struct {
	dir string
	key []byte
}

// Entry is one secret in a [Book]. Nothing in it is secret.
type Entry struct {
	Name      string    `json:"name"` // of the credential when it was seen first
	FirstSeen time.Time `json:"first_seen"`
	LastUsed  time.Time `json:"last_used,omitzero"`
	Made      time.Time `json:"made,omitzero"`    // by [Rotate], on this machine
	KeyID     string    `json:"key_id,omitempty"` // at the provider
	Revoked   time.Time `json:"revoked,omitzero"` // by [Rotate], on this machine
}

const (
	bookKey    = "key"
	entrySize  = 16 << 10 // the most that is read of an entry, in bytes
	maxEntries = 2000     // then those that were not seen for the longest time go
	entryType  = ".json"
)

// OpenBook opens the book in dir, and makes one if there is none.
func OpenBook(dir string) (*Book, error) {
	err := os.MkdirAll(dir, 0o700)
	b := &Book{dir: dir}
	if err == nil {
		b.key, err = b.machineKey()
	}
	if err != nil {
		return nil, fmt.Errorf("book of credentials: %w", err)
	}
	return b, nil
}

func (b *Book) path(name string) string { return filepath.Join(b.dir, name) }

// machineKey is made by the first process that needs it.
func (b *Book) machineKey() ([]byte, error) {
	key := make([]byte, sha256.Size)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	if err := b.create(bookKey, key); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	key, err := b.read(bookKey)
	if err == nil && len(key) != sha256.Size {
		err = fmt.Errorf("%s is damaged: remove it, and every age begins anew", b.path(bookKey))
	}
	return key, err
}

// create writes a file that is not there, as a whole or not at all.
func (b *Book) create(name string, content []byte) error {
	temp, err := b.temporary(content)
	if err != nil {
		return err
	}
	return errors.Join(os.Link(temp, b.path(name)), os.Remove(temp))
}

// replace writes a file, as a whole or not at all.
func (b *Book) replace(name string, content []byte) error {
	temp, err := b.temporary(content)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, b.path(name)); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

func (b *Book) temporary(content []byte) (string, error) {
	f, err := os.CreateTemp(b.dir, ".new-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func (b *Book) read(name string) ([]byte, error) {
	f, err := os.Open(b.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, entrySize))
}

// Fingerprint tells secrets apart on this machine.
func (b *Book) Fingerprint(v secret.Value) string {
	mac := hmac.New(sha256.New, b.key)
	mac.Write([]byte(v.Reveal()))
	return hex.EncodeToString(mac.Sum(nil))
}

// Entry is what is known of a secret; the zero Entry if nothing is.
func (b *Book) Entry(v secret.Value) (Entry, error) {
	if b == nil || v.IsEmpty() {
		return Entry{}, nil
	}
	return b.entry(b.Fingerprint(v))
}

func (b *Book) entry(print string) (Entry, error) {
	var e Entry
	content, err := b.read(print + entryType)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &e)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("book of credentials: %w", err)
	}
	return e, nil
}

// Note changes what is known of a secret, and begins with the present time if nothing is.
func (b *Book) Note(v secret.Value, name string, now time.Time, change func(*Entry)) error {
	if b == nil || v.IsEmpty() {
		return nil
	}
	print := b.Fingerprint(v)
	e, err := b.entry(print)
	if err != nil {
		return err
	}
	known := !e.FirstSeen.IsZero()
	if !known {
		e.Name, e.FirstSeen = name, now.UTC()
	}
	before := e
	if change != nil {
		change(&e)
	}
	if known && e == before {
		return nil
	}
	content, err := json.Marshal(e)
	if err == nil && !known {
		err = b.makeRoom()
	}
	if err == nil {
		err = b.replace(print+entryType, content)
	}
	if err != nil {
		return fmt.Errorf("book of credentials: %w", err)
	}
	return nil
}

// makeRoom keeps the book bounded.
func (b *Book) makeRoom() error {
	all, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(e fs.DirEntry) bool { return !strings.HasSuffix(e.Name(), entryType) })
	if len(all) < maxEntries {
		return nil
	}
	at := func(e fs.DirEntry) time.Time {
		if info, err := e.Info(); err == nil {
			return info.ModTime()
		}
		return time.Time{} // somebody else removed it
	}
	oldest := slices.MinFunc(all, func(x, y fs.DirEntry) int { return at(x).Compare(at(y)) })
	if err := os.Remove(b.path(oldest.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
