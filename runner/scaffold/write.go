package scaffold

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// State is how a project stands to a [File].
type State string

// The states.
const (
	Missing State = "missing"
	Same    State = "same"
	Differs State = "differs"
)

// Target is the project that is written to.
type Target struct{ root *os.Root }

// Open opens the project in dir. Close must be called.
func Open(dir string) (*Target, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Target{root}, nil
}

// Close closes the project.
func (t *Target) Close() error { return t.root.Close() }

// Compare tells what the project has in the file's place, and its text.
func (t *Target) Compare(f File) (State, string, error) {
	file, err := t.root.Open(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return Missing, "", nil
	}
	if err != nil {
		return "", "", err
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return "", "", errors.Join(err, fmt.Errorf("%s is not a file", f.Path))
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFile))
	switch {
	case err != nil:
		return "", "", err
	case string(b) == f.Content:
		return Same, f.Content, nil
	}
	return Differs, string(b), nil
}

// Write puts the file there. What is there already is replaced, as a whole, and only with force. A link in its place, or on the way to
// it, is never followed out of the project.
func (t *Target) Write(f File, force bool) error {
	if err := t.root.MkdirAll(path.Dir(f.Path), 0o755); err != nil {
		return err
	}
	if !force {
		return t.create(f.Path, f.Content)
	}
	temp := path.Join(path.Dir(f.Path), ".agent-sandbox-"+rand.Text())
	if err := t.create(temp, f.Content); err != nil {
		return err
	}
	if err := t.root.Rename(temp, f.Path); err != nil {
		return errors.Join(err, t.root.Remove(temp))
	}
	return nil
}

func (t *Target) create(name, content string) error {
	file, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, content)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, t.root.Remove(name))
	}
	return nil
}
