package runs

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/org/agent-sandbox/runner/event"
)

// The files of a run.
const (
	PlanFile    = "plan.json"
	EventsFile  = "events.jsonl"
	StdoutFile  = "stdout.log"
	StderrFile  = "stderr.log"
	ChangesFile = "changes.json"
	PatchFile   = "changes.patch"
	ResultFile  = "result.json"
	// ManifestFile is the signed evidence; it is there before the result is.
	ManifestFile = "manifest.json"
	// RecoveryFile is there while nobody has read what the agent changed.
	RecoveryFile = "recovery.json"
)

// maxJSON bounds a JSON file that is read: a change set of some 100,000 files fits.
const maxJSON = 256 << 20

const tempPrefix = ".tmp-"

// State is where a run stands.
type State string

// The states.
const (
	Running     State = "running"     // a process holds the lock
	Finished    State = "finished"    // result.json is there
	Interrupted State = "interrupted" // neither: the runner died, see [Run.Recover]
)

// Run is the directory of one run. It is not for concurrent use, but different
// files of it may be written at the same time.
type Run struct {
	ID ID
	// Seal makes the content of ManifestFile when the run ends, or when it is found to have died; nil: there is none. It may
	// give a content and an error: then both count.
	Seal func(event.Summary) ([]byte, event.Manifest, error)

	store *Store
	lock  *os.File // held by this process, or nil
	chain *event.Chain

	sealed *event.Manifest // set once the manifest is written
}

// Dir is the absolute path of the directory.
func (r *Run) Dir() string { return filepath.Join(r.store.path, string(r.ID)) }

// State looks at the result and the lock.
func (r *Run) State() (State, error) {
	if r.finished() {
		return Finished, nil
	}
	if r.lock != nil {
		return Running, nil
	}
	alive, err := r.alive()
	switch {
	case err != nil:
		return "", fmt.Errorf("state of run %s: %w", r.ID, err)
	case alive:
		return Running, nil
	case r.finished(): // it ended while we looked
		return Finished, nil
	}
	return Interrupted, nil
}

func (r *Run) finished() bool {
	info, err := r.store.root.Lstat(r.name(ResultFile))
	return err == nil && info.Mode().IsRegular()
}

func (r *Run) alive() (bool, error) {
	alive := false
	err := r.store.locked(shared, func() error {
		f, err := r.store.root.OpenFile(r.name(lockName), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it died before it had a lock
		}
		if err != nil {
			return err
		}
		defer f.Close()
		free, err := lockFile(f, shared)
		alive = !free
		return err
	})
	return alive, err
}

// Lock makes this process the one that works on the run, until Close: for commands
// that change a run that ended. It gives ErrRunning when another process does.
func (r *Run) Lock() error {
	if r.lock != nil {
		return nil
	}
	return r.store.locked(exclusive, r.take)
}

// take locks the run. The store's lock is held, so that no look at the state is in the way.
func (r *Run) take() error {
	if _, err := r.store.root.Lstat(string(r.ID)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("run %s: %w", r.ID, ErrNotFound)
	}
	f, err := r.store.root.OpenFile(r.name(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return writeError(r.Path(lockName), err)
	}
	free, err := lockFile(f, exclusive)
	if err == nil && !free {
		err = ErrRunning
	}
	if err != nil {
		return errors.Join(fmt.Errorf("lock run %s: %w", r.ID, err), f.Close())
	}
	r.lock = f
	return nil
}

// Close releases the lock. A run without a result is interrupted from then on.
func (r *Run) Close() error {
	if r.lock == nil {
		return nil
	}
	err := r.lock.Close()
	r.lock = nil
	return err
}

// Path is the absolute path of a file of the run.
func (r *Run) Path(file string) string { return filepath.Join(r.Dir(), file) }

func (r *Run) name(file string) string { return filepath.Join(string(r.ID), file) }

// Events starts the audit log; [Run.Finish] closes it.
func (r *Run) Events() (*event.Chain, error) {
	f, err := r.Append(EventsFile)
	if err != nil {
		return nil, err
	}
	r.chain = event.NewChain(logFile{File: f, path: r.Path(EventsFile)}, string(r.ID))
	return r.chain, nil
}

// logFile names the file and the mend in its errors, which end up in Recorder.Err.
type logFile struct {
	*os.File
	path string
}

func (f logFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, writeError(f.path, err)
}

func (f logFile) Sync() error { return writeError(f.path, f.File.Sync()) }

// Append creates a file of the run that grows, such as StdoutFile. It must not be there yet.
func (r *Run) Append(file string) (*os.File, error) {
	f, err := r.store.root.OpenFile(r.name(file), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, writeError(r.Path(file), err)
	}
	return f, nil
}

// WriteFile puts a file in place at once, or not at all: a reader sees what was
// there before or the whole. It does not wait for the disk, which takes milliseconds.
func (r *Run) WriteFile(file string, fill func(io.Writer) error) error {
	return r.put(file, fill, false)
}

// stagedFile is a file that is on the disk, but not yet in its place.
type stagedFile struct {
	temp, name string
	err        error
}

// stage brings a file to the disk.
func (r *Run) stage(file string, fill func(io.Writer) error) stagedFile {
	s := stagedFile{temp: r.name(tempPrefix + rand.Text()), name: r.name(file)}
	s.err = writeError(r.Path(file), r.writeTemp(s.temp, fill, true))
	return s
}

// commit puts the files in their places, in this order, unless one of them could not be written.
func (r *Run) commit(files ...stagedFile) error {
	var err error
	for _, f := range files {
		err = errors.Join(err, f.err)
	}
	for _, f := range files {
		if err == nil {
			err = r.store.root.Rename(f.temp, f.name)
		}
		if err != nil {
			_ = r.store.root.Remove(f.temp) // Recover and Remove find it otherwise
		}
	}
	if err == nil {
		err = syncDir(r.store.root, string(r.ID))
	}
	return err
}

// FS reads the run's directory. Links that lead out of it are not followed.
func (r *Run) FS() (fs.FS, error) { return fs.Sub(r.store.root.FS(), string(r.ID)) }

// put writes a file; a durable one is on the disk when it returns, and so survives a power cut.
func (r *Run) put(file string, fill func(io.Writer) error, durable bool) error {
	temp := r.name(tempPrefix + rand.Text())
	err := r.writeTemp(temp, fill, durable)
	if err == nil {
		err = r.store.root.Rename(temp, r.name(file))
	}
	if err == nil && durable {
		err = syncDir(r.store.root, string(r.ID))
	}
	if err != nil {
		_ = r.store.root.Remove(temp) // Recover and Remove find it otherwise
	}
	return writeError(r.Path(file), err)
}

func (r *Run) writeTemp(temp string, fill func(io.Writer) error, durable bool) error {
	f, err := r.store.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	err = fill(b)
	if err == nil {
		err = b.Flush()
	}
	if err == nil && durable {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// WriteJSON writes v as indented JSON, as WriteFile does.
func (r *Run) WriteJSON(file string, v any) error { return r.put(file, asJSON(v), false) }

func asJSON(v any) func(io.Writer) error {
	return func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
}

// Open opens a file of the run for reading. A run that has none gives ErrNotFound.
func (r *Run) Open(file string) (*os.File, error) {
	f, err := r.store.root.Open(r.name(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s of run %s: %w", file, r.ID, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s of run %s: %w", file, r.ID, err)
	}
	return f, nil
}

// ReadJSON reads a JSON file of the run into v.
func (r *Run) ReadJSON(file string, v any) error {
	f, err := r.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	limited := &io.LimitedReader{R: f, N: maxJSON}
	if err := json.NewDecoder(limited).Decode(v); err != nil {
		if limited.N == 0 {
			err = fmt.Errorf("more than %d bytes", maxJSON)
		}
		return fmt.Errorf("read %s: %w", r.Path(file), err)
	}
	return nil
}
