package credential

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// maxFile bounds a file with a secret in bytes: a private key, or a small JSON document.
const maxFile = 64 << 10

// path is where a file of the policy is: below the home directory, the project, or anywhere.
func (cfg Config) path(name string) (string, error) {
	if rest, below := strings.CutPrefix(name, "~/"); below {
		home, ok := cfg.LookupEnv("HOME")
		if !ok {
			return "", refuse("write the whole path", "there is no home directory for %s", name)
		}
		return filepath.Join(home, filepath.FromSlash(rest)), nil
	}
	if strings.HasPrefix(name, "/") {
		return filepath.FromSlash(name), nil
	}
	if cfg.Dir == "" {
		return "", refuse("write the whole path", "there is no project that %s could be in", name)
	}
	return filepath.Join(cfg.Dir, filepath.FromSlash(name)), nil
}

// read returns the text of a file that neither everybody on this machine nor the agent can read.
func (cfg Config) readFile(name string) (string, error) {
	path, err := cfg.path(name)
	if err != nil {
		return "", err
	}
	// A pipe would be waited for before it could be seen to be one.
	file, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", refuse("write the secret into it, or remove the credential", "the file %s does not exist", name)
	case err != nil:
		return "", refuse("", "the file %s can't be read: %v", name, errors.Unwrap(err))
	}
	defer file.Close()
	if err := cfg.checkFile(file, path, name); err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return "", refuse("", "the file %s can't be read: %v", name, errors.Unwrap(err))
	case len(b) > maxFile:
		return "", refuse("name the file with the secret alone", "the file %s has more than %d bytes", name, maxFile)
	}
	return string(b), nil
}

func (cfg Config) checkFile(file *os.File, path, name string) error {
	st, err := file.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return refuse("", "%s is no ordinary file", name)
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o006 != 0 {
		return refuse("chmod go-rwx "+name, "everybody on this machine may read or change the file %s (mode %#o)", name, st.Mode().Perm())
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return refuse("", "the file %s can't be read: %v", name, err)
	}
	if cfg.Visible != nil && (cfg.Visible(path) || cfg.Visible(real)) {
		return refuse("move it out of the project, or add it to workspace.hide", "the agent can read the file %s", name)
	}
	return nil
}
