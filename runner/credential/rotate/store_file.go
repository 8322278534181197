package rotate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/agent-sandbox/runner/secret"
)

// fileStore is a file with the key alone.
type fileStore struct {
	path string
	name string // in the policy
}

// maxKeyFile bounds such a file in bytes.
const maxKeyFile = 64 << 10

func (s fileStore) written(context.Context) (time.Time, error) {
	st, err := s.stat()
	if err != nil {
		return time.Time{}, err
	}
	return st.ModTime(), nil
}

// stat never follows a link: whoever reads the secret would follow it elsewhere after a rotation.
func (s fileStore) stat() (fs.FileInfo, error) {
	st, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, mend("write the present key into it, with mode 0600", "the file %s does not exist", s.name)
	case err != nil:
		return nil, fmt.Errorf("the file %s: %w", s.name, err)
	case !st.Mode().IsRegular():
		return nil, mend("name the file itself", "%s is no ordinary file", s.name)
	}
	return st, nil
}

func (s fileStore) read(context.Context) (secret.Value, error) {
	if _, err := s.stat(); err != nil {
		return secret.Value{}, err
	}
	f, err := os.Open(s.path)
	if err != nil {
		return secret.Value{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	return secret.New(strings.TrimRight(string(b), "\r\n")), err
}

// put replaces the file as a whole: whoever reads it meanwhile has the old key or the new one.
func (s fileStore) put(ctx context.Context, v secret.Value) (bool, error) {
	st, err := s.stat()
	if err != nil {
		return false, &untouchedError{err}
	}
	temp := filepath.Join(filepath.Dir(s.path), ".agent-sandbox-"+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, st.Mode().Perm()&0o700)
	if err != nil {
		return false, &untouchedError{err}
	}
	_, err = io.WriteString(f, v.Reveal()+"\n")
	if err = errors.Join(err, f.Chmod(st.Mode().Perm()), f.Sync(), f.Close()); err == nil {
		err = os.Rename(temp, s.path)
	}
	if err != nil {
		return false, &untouchedError{errors.Join(fmt.Errorf("the file %s: %w", s.name, err), os.Remove(temp))}
	}
	now, err := s.read(ctx)
	return err == nil && now.Reveal() == v.Reveal(), err
}
