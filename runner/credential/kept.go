package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// Kept is a token that is to be revoked, also if the process that got it is killed.
type Kept struct {
	GitHubAPI string `json:"github_api"`
	Token     string `json:"token"`
}

// Keeper is the file of one run with the tokens that are still good. It is the only place on disk that has a token, outside of the runs'
// directory, for the owner alone, and gone when the tokens are. In a directory of memory, as XDG_RUNTIME_DIR is, it does not outlive the
// machine.
type Keeper struct {
	path string
	save func([]Kept) error // instead of the file

	mu   sync.Mutex // guards kept and the file
	kept []Kept
}

// NewKeeper keeps the tokens of a run in a directory.
func NewKeeper(dir, run string) *Keeper { return &Keeper{path: filepath.Join(dir, run+keptSuffix)} }

// NewKeeperWith gives the tokens that are still good to save, whenever there are others.
func NewKeeperWith(save func([]Kept) error) *Keeper { return &Keeper{save: save} }

const keptSuffix = ".tokens"

func (k *Keeper) add(t Kept) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, t)
	return k.write()
}

// drop forgets a token that is of no more use.
func (k *Keeper) drop(t Kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = slices.DeleteFunc(k.kept, func(o Kept) bool { return o == t })
	_ = k.write() // a token that is over does no harm there
}

func (k *Keeper) write() error {
	if k.save != nil {
		return k.save(slices.Clone(k.kept))
	}
	if len(k.kept) == 0 {
		return os.Remove(k.path)
	}
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return fmt.Errorf("keep token: %w", err)
	}
	b, err := json.Marshal(k.kept)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(k.path), ".tokens-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keep token: %w", err)
	}
	_, err = temp.Write(b)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), k.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep token: %w", err), os.Remove(temp.Name()))
	}
	return nil
}

// KeptRuns are the runs of which a directory has tokens.
func KeptRuns(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var runs []string
	for _, e := range entries {
		if name := e.Name(); filepath.Ext(name) == keptSuffix {
			runs = append(runs, name[:len(name)-len(keptSuffix)])
		}
	}
	return runs, err
}

// RevokeKept revokes what a run that is over left, and removes the file if nothing of it is good any more.
func RevokeKept(ctx context.Context, dir, run string, client *http.Client) (int, error) {
	path := filepath.Join(dir, filepath.Base(run)+keptSuffix)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var kept []Kept
	if err := json.Unmarshal(b, &kept); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	n, err := Revoke(ctx, kept, client)
	if err != nil {
		return n, err
	}
	return n, os.Remove(path)
}

// Revoke revokes tokens, and tells how many of them are of no use any more.
func Revoke(ctx context.Context, kept []Kept, client *http.Client) (int, error) {
	var errs []error
	for _, t := range kept {
		if status, err := (gitHub{t.GitHubAPI, client}).revoke(ctx, secret.New(t.Token)); status == event.RevocationFailed {
			errs = append(errs, err)
		}
	}
	return len(kept) - len(errs), errors.Join(errs...)
}
